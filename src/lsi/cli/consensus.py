"""``lsi consensus``: the labels behind those of several annotators, and whom to ask next."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lsi.cli.inputs.options import DataOptions, EncoderOptions
from lsi.cli.mislabeled import check_list_file, records, write_table
from lsi.cli.unscored import read_probabilities
from lsi.errors import InputError
from lsi.results.marks import CONSENSUS, Mark
from lsi.system.places import check_apart
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import pandas as pd

    from lsi.data import Samples
    from lsi.noisy_labels.consensus import Consensus

SHOWN = 20
_ENCODER = EncoderOptions()


def consensus(
    *,
    data: DataOptions,
    encoder: EncoderOptions = _ENCODER,
    pred_probs: Path | None = None,
    ask: int = 10,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Find the true labels behind those of several annotators, how good each is, and whom to ask next.

    The annotators are the columns named by `--label-columns`. `lsi compute … --annotators` scores the same
    samples with these labels.

    Args:
        data: The samples.
        encoder: How images, texts and recordings become features.
        pred_probs: Out-of-sample probabilities of a model in place of features: .npy or .npz, one row a
            sample, one column a class in sorted order.
        ask: How many samples to name that are most worth another label.
        output: File of labels to write: .csv, .json or .parquet. Never overwritten.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        InputError: If options or data cannot be used.
    """
    from lsi.analysis.label_noise import check_limits
    from lsi.cli.inputs.places import inputs_of

    check_limits(None, ask)
    if output is not None:
        check_list_file(output)
        inputs = inputs_of(data, encoder) | ({"--pred-probs": pred_probs} if pred_probs else {})
        check_apart({"--output": output}, inputs)
    samples, found = _found(data, encoder, pred_probs, quiet=json)
    frame = found.to_frame()
    frame.insert(0, "sample_id", samples.ids)
    if output is not None:
        write_table(frame, output, Mark(CONSENSUS, dataset_fingerprint=samples.fingerprint()))
    asked = found.ask(ask)
    asked.insert(0, "sample_id", samples.ids[asked["position"]])
    right = _right(samples, found)
    if json:
        people = found.annotators.rename_axis("annotator").reset_index()
        summary = {"n_samples": len(samples), "n_right": found.n_right, **right}
        print(json_module.dumps({**summary, "annotators": records(people), "ask": records(asked)}))
        return
    _show(found, asked, right)
    if output is not None:
        print(plain_text(f"Written: {output} ({len(frame):,} rows)", 400))


def _found(
    data: DataOptions, encoder: EncoderOptions, pred_probs: Path | None, *, quiet: bool
) -> tuple[Samples, Consensus]:
    """Return the samples and the consensus of their annotators."""
    from lsi.cli.console import speaker
    from lsi.cli.inputs.settings import source_options
    from lsi.cli.progress import progress_bar
    from lsi.data import load_samples
    from lsi.features import encode
    from lsi.noisy_labels.consensus import consensus as find

    p = None if pred_probs is None else read_probabilities(pred_probs)
    with progress_bar(quiet) as progress:
        options = source_options(replace(data, annotators=True), encoder, progress)
        samples = load_samples(data.dataset, options)
        if samples.answers is None:
            raise InputError(
                "lsi consensus reads tables: .parquet, .csv, .jsonl or .arrow with --label-columns."
            )
        if p is not None:
            return samples, find(samples.answers, p)
        samples = encode(
            samples,
            encoder=encoder.encoder,
            pooling=encoder.pooling,
            precision=encoder.precision,
            batch_size=encoder.batch_size,
            cache_dir=encoder.cache_dir,
            skip_broken=data.skip_broken,
            progress=progress,
            say=speaker(quiet),
        ).samples
    return samples, find(samples.answers, features=samples.features)


def _right(samples: Samples, found: Consensus) -> dict[str, float]:
    """Return the shares of right labels, where the right ones are known."""
    if samples.clean_labels is None:
        return {}
    known = {"right": found.label, "majority_right": found.majority}
    return {
        name: float((labels.astype(object) == samples.clean_labels.astype(object)).mean())
        for name, labels in known.items()
    }


def _show(found: Consensus, asked: pd.DataFrame, right: dict[str, Any]) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table

    console = out_console()
    table = plain_table("Annotators, the least reliable first")
    table.add_column("annotator")
    for name in ("labels", "right", "95 % interval"):
        table.add_column(name, justify="right")
    for row in found.annotators.sort_values("quality", kind="stable").head(SHOWN).itertuples():
        span = f"{row.low:.1%} to {row.high:.1%}"
        table.add_row(Text(plain_text(str(row.Index), 40)), f"{row.n_labels:,}", f"{row.quality:.1%}", span)
    console.print(table)
    table = plain_table("Samples most worth another label")
    for name in ("sample", "ask", "label so far"):
        table.add_column(name)
    table.add_column("P(right)", justify="right")
    for row in asked.itertuples():
        whom = "somebody new" if row.annotator is None else str(row.annotator)
        cells = [plain_text(text, 40) for text in (str(row.sample_id), whom, str(row.label))]
        table.add_row(*map(Text, cells), f"{row.probability:.1%}")
    console.print(table)
    print(found)
    if right:
        print(
            f"By the column of right labels {right['right']:.2%} of the consensus are right, and "
            f"{right['majority_right']:.2%} of the most frequent labels."
        )
