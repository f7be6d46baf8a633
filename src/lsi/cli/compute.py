"""``lsi compute``: from a dataset to scores, tables and a page. `compute` reads as a table of contents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    FileOptions,
    LongRunOptions,
    MachineOptions,
    MethodOptions,
    OutputOptions,
    PairOptions,
    ProbeOptions,
)
from lsi.cli.inputs.places import check_results
from lsi.cli.inputs.recall import asked
from lsi.errors import InputError

if TYPE_CHECKING:
    from lsi.data import Samples
    from lsi.scores import Scores


_PROBE, _METHOD, _OUTPUT, _MACHINE = ProbeOptions(), MethodOptions(), OutputOptions(), MachineOptions()
_ENCODER, _CORRUPTION, _PAIRS, _LONG = EncoderOptions(), CorruptionOptions(), PairOptions(), LongRunOptions()
_FILE = FileOptions()


def compute(
    *,
    data: DataOptions,
    encoder: EncoderOptions = _ENCODER,
    corruption: CorruptionOptions = _CORRUPTION,
    probe: ProbeOptions = _PROBE,
    pairs: PairOptions = _PAIRS,
    method: MethodOptions = _METHOD,
    output: OutputOptions = _OUTPUT,
    long: LongRunOptions = _LONG,
    machine: MachineOptions = _MACHINE,
    file: FileOptions = _FILE,
) -> None:
    """Score every sample of a dataset, and show the most and the least informative.

    Args:
        data: What is scored.
        encoder: How images, texts and recordings become features.
        corruption: What is changed on purpose.
        probe: What is trained.
        pairs: Pairs without labels, and the heads that are trained on them.
        method: How a model without a sample is found.
        output: Where results go.
        long: How the run survives an interruption, and how it is divided.
        machine: What the computation runs on.
        file: Where options are read from.

    Raises:
        InputError: If options do not fit each other or the data.
    """
    import pandas as pd

    from lsi.cli.console import say, speaker
    from lsi.cli.display import announce, show_result
    from lsi.cli.job import prepare, run
    from lsi.cli.pairs import prepare_pairs, wants_pairs
    from lsi.cli.resume import keeping

    in_pairs, quiet = wants_pairs(data, pairs), output.quiet
    check_together(data, output, long, in_pairs)
    check_results(output, long, data, encoder, corruption, pairs, file)
    if file.config is not None and not quiet:
        say(f"options from {str(file.config)!r}; those of the command line go before them")
    check_places(output, again=True)
    with keeping(output, long, speaker(quiet)) as kept:
        check_places(output, again=kept.replaces)  # now that no other run can write there
        if in_pairs:
            job = prepare_pairs(data, encoder, corruption, probe, pairs, method, machine, quiet=quiet)
        else:
            job = prepare(data, encoder, corruption, probe, method, machine, quiet=quiet)
        samples = job.samples
        if "pca" in job.extra and not quiet:
            say(components_text(job.extra["pca"]))
        job.extra["command"] = {
            **asked(data, encoder, corruption, probe, pairs, method, machine),
            **({"redundancy": True} if output.redundancy else {}),
        }
        if output.redundancy and not job.problem.n_classes:
            raise InputError("--redundancy is for classes, and the target of these samples is none. Drop it.")
        if not quiet:
            n_right = job.target.shape[1] if in_pairs else None
            groups = 0 if samples.groups is None else pd.Series(samples.groups).nunique()
            announce(samples.name, job.problem, job.settings, job.truth, samples.notes, n_right, groups)
        if long.shard is not None and not quiet:
            say(f"part {long.shard} of it; `lsi merge` puts all parts together")
        scores = run(job, quiet=quiet, checkpoint=kept.checkpoint, shard=long.shard)
        if output.redundancy:
            scores = scores.with_redundancy(job.problem.features, job.target)
        written = write(scores, samples, output, again=kept.replaces)
        kept.finish()
    if output.json or not quiet:
        show_result(scores, as_json=output.json, written=written)
    if output.output is not None and not (output.json or quiet):
        tell_after(scores, output.output, long)


def components_text(reduced: Mapping[str, Any]) -> str:
    """Say what `--pca` kept."""
    share = f"{reduced['explained_variance']:.1%}"
    return f"scored in {reduced['n_components']:,} of {reduced['of']:,} components: {share} of the variance"


def tell_after(scores: Scores, place: Path, long: LongRunOptions) -> None:
    """Say which command usually comes next."""
    from lsi.cli.next_step import tell_next

    if long.shard is None and scores.task == "classification":
        tell_next("mislabeled", place, "-o", "suspects.csv")


def check_together(data: DataOptions, output: OutputOptions, long: LongRunOptions, in_pairs: bool) -> None:
    """Refuse options that do not go together, before any work."""
    from lsi.execution.work import Shard
    from lsi.run.shards import check_shard

    if output.redundancy and in_pairs:
        raise InputError("--redundancy is for samples with class labels, not for pairs. Drop it.")
    if data.group_column and in_pairs:
        raise InputError("--group-column is for samples with a target, not for pairs. Drop it.")
    if long.shard is None:
        return
    shard = Shard.parse(long.shard)
    check_shard(shard, "contrastive" if in_pairs else "classification")
    if data.group_column:
        raise InputError(
            "--group-column leaves out whole groups, and --shard scores a part of the samples. Score "
            "the groups in a run of their own, without --shard."
        )
    if output.redundancy:
        raise InputError("--redundancy needs all scores, and --shard gives a part of them. Drop one of them.")
    if output.report is not None:
        raise InputError("--report needs all scores: give it to `lsi merge`, which takes all parts.")


def check_places(output: OutputOptions, again: bool = False) -> None:
    """Raise before any work if results cannot be written."""
    if output.output is not None:
        from lsi.results.store import check_output

        check_output(output.output, output.overwrite or again)
    if output.report is not None:
        from lsi.report import check_report

        check_report(output.report, overwrite=output.overwrite)


def write(
    scores: Scores, samples: Samples | None, output: OutputOptions, again: bool = False
) -> dict[str, Path]:
    """Write scores and page to the places that were asked for; return these."""
    written = {}
    if output.output is not None:
        scores.save(output.output, overwrite=output.overwrite or again)
        written["output"] = output.output
    if output.report is not None:
        from lsi.report import write_report

        written["report"] = write_report(output.report, scores, samples, overwrite=output.overwrite)
    return written
