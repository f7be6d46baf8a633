"""``lsi compute``: from a dataset to scores, a table and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    LongRunOptions,
    MachineOptions,
    MethodOptions,
    OutputOptions,
    PairOptions,
    ProbeOptions,
)
from lsi.cli.job import Job, prepare, run
from lsi.errors import InputError, OutputError

if TYPE_CHECKING:
    from lsi.data import Samples
    from lsi.execution.checkpoint import Checkpoint
    from lsi.scores import Scores


_PROBE, _METHOD, _OUTPUT, _MACHINE = ProbeOptions(), MethodOptions(), OutputOptions(), MachineOptions()
_ENCODER, _CORRUPTION, _PAIRS, _LONG = EncoderOptions(), CorruptionOptions(), PairOptions(), LongRunOptions()


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
        long: How the run survives its end, and how it is divided.
        machine: What the computation runs on.

    Raises:
        InputError: If something that was asked for does not go with the data.
    """
    from lsi.cli.console import say
    from lsi.cli.display import show_result
    from lsi.cli.pairs import wants_pairs
    from lsi.cli.resume import keeping

    in_pairs = wants_pairs(data, pairs)
    check_long(output, long, in_pairs)
    check_places(output, again=True)
    with keeping(output, long, (lambda text: None) if output.quiet else say) as kept:
        check_places(output, again=kept.replaces)
        if in_pairs:
            from lsi.cli.pairs import score_the_pairs

            options = data, encoder, corruption, probe, pairs, method, machine, output
            scores, samples = score_the_pairs(*options, kept.checkpoint)
        else:
            job = prepare(data, encoder, corruption, probe, method, machine, quiet=output.quiet)
            scores, samples = _score(job, output, long, kept.checkpoint), job.samples
        written = write(scores, samples, output, again=kept.replaces)
        kept.finish()
    if output.json or not output.quiet:
        show_result(scores, as_json=output.json, written=written)


def check_long(output: OutputOptions, long: LongRunOptions, in_pairs: bool) -> None:
    """Refuse options that do not go together, before any work."""
    from lsi.execution.work import Shard

    if output.redundancy and in_pairs:
        raise InputError("--redundancy is for samples with class labels, not for pairs. Leave it out.")
    if long.shard is None:
        return
    Shard.parse(long.shard)
    if in_pairs:
        raise InputError("--shard is for samples with labels: pairs are scored as one piece. Leave it out.")
    if output.redundancy:
        raise InputError("--redundancy needs all scores, and --shard gives a part of them. Leave one out.")
    if output.report is not None:
        raise InputError("--report needs all scores: give it to `lsi merge`, which takes all parts.")


def _score(job: Job, output: OutputOptions, long: LongRunOptions, checkpoint: Checkpoint | None) -> Scores:
    """Announce a job, score it, and add what was asked for besides."""
    from lsi.analysis.view import need_classes
    from lsi.cli.console import say
    from lsi.cli.display import announce
    from lsi.tasks import task_of

    if output.redundancy:
        need_classes(task_of(job.settings["probe"]).name, "--redundancy")
    if not output.quiet:
        announce(job)
        if long.shard is not None:
            say(f"part {long.shard} of it; `lsi merge` puts all parts together")
    scores = run(job, quiet=output.quiet, checkpoint=checkpoint, shard=long.shard)
    return scores.with_redundancy(job.samples.features, job.labels) if output.redundancy else scores


def check_places(output: OutputOptions, again: bool = False) -> None:
    """Check before any work that results can be written."""
    if output.output is not None:
        from lsi.results.store import check_output

        check_output(output.output, output.overwrite or again)
    if output.report is not None:
        from lsi.report import check_report

        check_report(output.report, overwrite=output.overwrite)
    if output.output is not None and output.report is not None:
        keep_apart(output.output, output.report)


def keep_apart(scores: Path, report: Path) -> None:
    """Refuse a page inside a folder of scores: only a folder that holds nothing else can be replaced."""
    if scores.resolve() in report.resolve().parents:
        raise OutputError(
            f"the report {report} would lie inside the folder of the scores, which holds nothing else. "
            f"Put it beside that folder, for example as {scores.parent / 'report.html'}."
        )


def write(
    scores: Scores, samples: Samples | None, output: OutputOptions, again: bool = False
) -> dict[str, Path]:
    """Write scores and page where they were asked for."""
    written = {}
    if output.output is not None:
        scores.save(output.output, overwrite=output.overwrite or again)
        written["output"] = output.output
    if output.report is not None:
        from lsi.report import write_report

        written["report"] = write_report(output.report, scores, samples, overwrite=output.overwrite)
    return written
