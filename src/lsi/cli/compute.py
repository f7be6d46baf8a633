"""``lsi compute``: from a dataset to scores, a table and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.gather import Gathered, gather
from lsi.cli.options import (
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
from lsi.cli.settings import audit_size, build_method, seed_of, subset_text, use_machine
from lsi.cli.targets import as_column, build_probe, named
from lsi.errors import InputError, OutputError

if TYPE_CHECKING:
    from lsi.checkpoint import Checkpoint
    from lsi.data import Corruption, Samples
    from lsi.problem import Problem
    from lsi.scores import Scores

_CHECKED = ("probe", "posterior", "method", "prior_precision", "audit")
_PROBE, _METHOD, _OUTPUT, _MACHINE = ProbeOptions(), MethodOptions(), OutputOptions(), MachineOptions()
_ENCODER, _CORRUPTION, _PAIRS, _LONG = EncoderOptions(), CorruptionOptions(), PairOptions(), LongRunOptions()


@dataclass(frozen=True, eq=False)
class Job:
    """A run whose every input has been checked.

    Attributes:
        data: Features, labels, and the truth about what was changed on purpose.
        problem: Checked features and the labels to train on.
        settings: Keyword arguments of `lsi.score`, apart from the data.
    """

    data: Gathered
    problem: Problem
    settings: dict[str, Any]

    @property
    def samples(self) -> Samples:
        """The data, labels as they came."""
        return self.data.samples

    @property
    def corruption(self) -> Corruption | None:
        """What was changed on purpose, or None."""
        return self.data.corruption

    @property
    def labels(self) -> Any:
        """``(N,)`` labels to train on; a table with one column each where a sample has several."""
        return named(self.data.labels, self.samples.target_names)


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
    from lsi.cli.display import say, show_result
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
    """Refuse options that do not go together, before any work.

    Args:
        output: Where results go, and whether redundancy is asked for.
        long: How the run is divided.
        in_pairs: Whether pairs are scored.

    Raises:
        InputError: There is no such shard, or not of what is asked for.
    """
    from lsi.work import Shard

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
    from lsi.cli.display import announce, say
    from lsi.tasks import task_of

    if output.redundancy:
        need_classes({"task": task_of(job.settings["probe"]).name}, "--redundancy")
    if not output.quiet:
        announce(job)
        if long.shard is not None:
            say(f"part {long.shard} of it; `lsi merge` puts all parts together")
    scores = run(job, quiet=output.quiet, checkpoint=checkpoint, shard=long.shard)
    return scores.with_redundancy(job.samples.features, job.labels) if output.redundancy else scores


def check_places(output: OutputOptions, again: bool = False) -> None:
    """Check before any work that results can be written.

    Args:
        output: Where results go.
        again: Whether scores that are there may be replaced unasked.

    Raises:
        InputError: If packages for the report are missing.
        OutputError: If a place is taken or cannot be written to.
    """
    if output.output is not None:
        from lsi.scores import check_output

        check_output(output.output, output.overwrite or again)
    if output.report is not None:
        from lsi.report import check_report

        check_report(output.report, overwrite=output.overwrite)
    if output.output is not None and output.report is not None:
        keep_apart(output.output, output.report)


def keep_apart(scores: Path, report: Path) -> None:
    """Refuse a page inside a folder of scores: only a folder that holds nothing else can be replaced.

    Args:
        scores: Folder of the scores.
        report: Page to write.

    Raises:
        OutputError: If the page would lie in the folder.
    """
    if scores.resolve() in report.resolve().parents:
        raise OutputError(
            f"the report {report} would lie inside the folder of the scores, which holds nothing else. "
            f"Put it beside that folder, for example as {scores.parent / 'report.html'}."
        )


def prepare(
    data: DataOptions,
    encoder: EncoderOptions,
    corruption: CorruptionOptions,
    probe: ProbeOptions,
    method: MethodOptions,
    machine: MachineOptions,
    *,
    quiet: bool = False,
) -> Job:
    """Check every setting, load the data, and encode what is raw.

    Args:
        data: What is scored.
        encoder: How raw items become features.
        corruption: What is changed on purpose.
        probe: What is trained.
        method: How a model without a sample is found.
        machine: What the computation runs on.
        quiet: Whether to leave out progress and remarks.

    Returns:
        The checked job.

    Raises:
        InputError: If anything cannot be used as it is.
    """
    import numpy as np

    from lsi.cli.display import say
    from lsi.cli.progress import progress_bar
    from lsi.data import parse_subset
    from lsi.pipeline import check_settings
    from lsi.tasks import task_of

    likely = probe.task or ("classification" if probe.noise_precision is None else "regression")
    settings: dict[str, Any] = {
        "probe": build_probe(probe, likely),
        "posterior": "kron" if probe.posterior == "kfac" else probe.posterior,
        "method": build_method(method),
        "prior_precision": probe.prior_precision,
        "audit": audit_size(method.audit),
        "seed": seed_of(method.seed, "--seed"),
        "device": machine.device,
        "memory": machine.memory,
        "cluster": machine.ray,
    }
    if method.label_noise is not None:
        settings["label_noise"] = method.label_noise
    check_settings(**{key: settings[key] for key in _CHECKED})
    use_machine(machine)
    with progress_bar(quiet) as progress:
        gathered = gather(
            data,
            corruption,
            encoder,
            probe,
            seed=settings["seed"],
            machine=machine,
            progress=progress,
            say=(lambda text: None) if quiet else say,
        )
    if gathered.probe != settings["probe"]:  # the data decided the task
        settings["probe"] = gathered.probe
        check_settings(**{key: settings[key] for key in _CHECKED})
    samples, labels = gathered.samples, named(gathered.labels, gathered.samples.target_names)
    wanted = subset_text(data, len(samples))
    # Numbers have no classes to draw from evenly.
    strata = np.zeros(len(samples)) if task_of(gathered.probe).name == "regression" else samples.labels
    if gathered.labels.ndim == 1 and gathered.corruption is not None and strata is samples.labels:
        strata = gathered.labels
    subset = None if wanted is None else parse_subset(wanted, strata, settings["seed"])
    check = task_of(settings["probe"]).problem
    problem = check(samples.features, labels, subset=subset, sample_id=samples.ids)
    return Job(gathered, problem, {**settings, "subset": subset})


def run(job: Job, *, quiet: bool, checkpoint: Checkpoint | None = None, shard: str | None = None) -> Scores:
    """Score, and add what only the command knows: the source, and the truth about changed labels.

    Args:
        job: A checked job.
        quiet: Whether to leave out the progress bar.
        checkpoint: Keeps finished blocks.
        shard: Which part to score; None: all.

    Returns:
        The scores.
    """
    import lsi
    from lsi.cli.progress import progress_bar
    from lsi.scores import Scores

    with progress_bar(quiet) as progress:
        scores = lsi.score(
            job.samples.features,
            job.labels,
            sample_id=job.samples.ids,
            progress=progress,
            checkpoint=checkpoint,
            shard=shard,
            **job.settings,
        )
    table, manifest, samples = scores.to_frame(), dict(scores.manifest), job.samples
    manifest["source"] = {**samples.source, "description": samples.description}
    manifest |= job.data.extra | ({} if checkpoint is None else {"run": checkpoint.run})
    if "encoder" in job.data.extra:
        manifest["timings"] = {"encode": job.data.extra["encoder"]["seconds"], **manifest["timings"]}
    if samples.class_names:
        manifest["class_names"] = {str(label): name for label, name in samples.class_names.items()}
    if job.corruption is not None:
        positions = table["position"].to_numpy()
        table["corrupted"] = job.corruption.mask[positions]
        original = job.corruption.original_labels[positions]
        table["original_label"] = as_column(original, manifest["task"], samples.target_names)
        manifest["corruption"] = job.corruption.describe()
    return Scores(table, manifest, scores.audit)


def write(
    scores: Scores, samples: Samples | None, output: OutputOptions, again: bool = False
) -> dict[str, Path]:
    """Write scores and page where they were asked for.

    Args:
        scores: The result.
        samples: The data, for the page's pictures.
        output: Where results go.
        again: Whether scores that are there may be replaced unasked.

    Returns:
        The places written to, under ``output`` and ``report``.
    """
    written = {}
    if output.output is not None:
        scores.save(output.output, overwrite=output.overwrite or again)
        written["output"] = output.output
    if output.report is not None:
        from lsi.report import write_report

        written["report"] = write_report(output.report, scores, samples, overwrite=output.overwrite)
    return written
