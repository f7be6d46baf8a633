"""``lsi compute``: from a dataset to scores, a table and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.options import DataOptions, MachineOptions, MethodOptions, OutputOptions, ProbeOptions
from lsi.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np

    from lsi.data import Corruption, Samples
    from lsi.problem import Problem
    from lsi.scores import Scores

_CHECKED = ("probe", "posterior", "method", "prior_precision", "audit")
_PROBE, _METHOD, _OUTPUT, _MACHINE = ProbeOptions(), MethodOptions(), OutputOptions(), MachineOptions()


@dataclass(frozen=True, eq=False)
class Job:
    """A run whose every input has been checked.

    Attributes:
        samples: The data, labels as they came.
        corruption: Labels changed on purpose, or None.
        problem: Checked features and the labels to train on.
        settings: Keyword arguments of `lsi.score`, apart from the data.
    """

    samples: Samples
    corruption: Corruption | None
    problem: Problem
    settings: dict[str, Any]

    @property
    def labels(self) -> np.ndarray:
        """``(N,)`` labels to train on."""
        return self.samples.labels if self.corruption is None else self.corruption.labels


def compute(
    *,
    data: DataOptions,
    probe: ProbeOptions = _PROBE,
    method: MethodOptions = _METHOD,
    output: OutputOptions = _OUTPUT,
    machine: MachineOptions = _MACHINE,
) -> None:
    """Score every sample of a dataset, and show the most and the least informative.

    Args:
        data: What is scored.
        probe: What is trained.
        method: How a model without a sample is found.
        output: Where results go.
        machine: What the computation runs on.
    """
    from lsi.cli.display import announce, show_result

    check_places(output)
    job = prepare(data, probe, method, machine)
    if not output.quiet:
        announce(job)
    scores = run(job, quiet=output.quiet)
    written = write(scores, job.samples, output)
    if output.json or not output.quiet:
        show_result(scores, as_json=output.json, written=written)


def check_places(output: OutputOptions) -> None:
    """Check before any work that results can be written.

    Args:
        output: Where results go.

    Raises:
        InputError: If packages for the report are missing.
        OutputError: If a place is taken or cannot be written to.
    """
    if output.output is not None:
        from lsi.scores import check_output

        check_output(output.output, output.overwrite)
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


def prepare(data: DataOptions, probe: ProbeOptions, method: MethodOptions, machine: MachineOptions) -> Job:
    """Load the data and check every setting.

    Args:
        data: What is scored.
        probe: What is trained.
        method: How a model without a sample is found.
        machine: What the computation runs on.

    Returns:
        The checked job.

    Raises:
        InputError: If anything cannot be used as it is.
    """
    from lsi import LinearProbe
    from lsi.data import corrupt_labels, load_samples, parse_subset
    from lsi.pipeline import check_settings
    from lsi.problem import check_problem

    settings: dict[str, Any] = {
        "probe": LinearProbe(weight_decay=probe.weight_decay, fit_intercept=probe.intercept),
        "posterior": probe.posterior,
        "method": build_method(method),
        "prior_precision": probe.prior_precision,
        "audit": audit_size(method.audit),
        "seed": _seed(method.seed, "--seed"),
        "device": machine.device,
    }
    check_settings(**{key: settings[key] for key in _CHECKED})
    use_machine(machine)
    samples = load_samples(data.dataset)
    corruption = None
    if data.corrupt_label is not None:
        seed = settings["seed"] if data.corrupt_seed is None else _seed(data.corrupt_seed, "--corrupt-seed")
        corruption = corrupt_labels(samples.labels, data.corrupt_label, seed)
    labels = samples.labels if corruption is None else corruption.labels
    subset = None if data.subset is None else parse_subset(data.subset, labels, settings["seed"])
    problem = check_problem(samples.features, labels, subset=subset, sample_id=samples.ids)
    return Job(samples, corruption, problem, {**settings, "subset": subset})


def build_method(options: MethodOptions) -> Any:
    """Return the leave-one-out method that the options mean.

    Args:
        options: What was given; a setting of `retrain` alone chooses it.

    Returns:
        `lsi.Newton` or `lsi.Retrain` with these settings, defaults elsewhere.

    Raises:
        InputError: If settings of both methods are mixed, or one is out of range.
    """
    from lsi import Newton, Retrain

    settings = {"epochs": options.epochs, "lr": options.lr, "momentum": options.momentum}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    flags = ", ".join(f"--{name}" for name in given)
    if options.method == "newton" and given:
        raise InputError(f"{flags}: settings of the method retrain. Drop them, or choose --method retrain.")
    if options.method == "retrain" or given:
        if options.tol is not None:
            raise InputError("--tol is a setting of the method newton. Drop it, or choose --method newton.")
        if options.seed is not None:
            given["seed"] = options.seed
        # Nesterov's look-ahead needs a momentum; plain SGD is what a momentum of 0 asks for.
        return Retrain(**given, nesterov=options.momentum != 0)
    if options.tol is None:
        return Newton()
    return Newton(tol=None if options.tol == "none" else options.tol)


def audit_size(audit: int | bool | None) -> int | bool:
    """Return what `lsi.score` takes as ``audit``.

    Args:
        audit: A number of samples, False for none, True or None for the library's choice.

    Returns:
        The same, with 0 as False.

    Raises:
        InputError: If the number is negative.
    """
    if audit is None or isinstance(audit, bool):
        return audit is not False
    if audit < 0:
        raise InputError(f"--audit must not be negative, got {audit}. Use --no-audit for none.")
    return audit or False


def use_machine(machine: MachineOptions) -> None:
    """Limit the processor threads that torch uses, and try the device.

    Args:
        machine: What the computation runs on.

    Raises:
        InputError: If there is not at least one thread, or the device cannot be used.
    """
    import torch

    if machine.threads is not None:
        if machine.threads < 1:
            raise InputError(f"--threads must be at least 1, got {machine.threads}.")
        torch.set_num_threads(machine.threads)
    if machine.device is not None:
        try:
            torch.empty(1, device=machine.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"--device {machine.device} cannot be used here: {reason}. Try cpu.") from error


def run(job: Job, *, quiet: bool) -> Scores:
    """Score, and add what only the command knows: the source, and the truth about changed labels.

    Args:
        job: A checked job.
        quiet: Whether to leave out the progress bar.

    Returns:
        The scores.
    """
    import lsi
    from lsi.cli.progress import progress_bar
    from lsi.scores import Scores

    with progress_bar(quiet) as progress:
        scores = lsi.score(
            job.samples.features, job.labels, sample_id=job.samples.ids, progress=progress, **job.settings
        )
    table, manifest, samples = scores.to_frame(), dict(scores.manifest), job.samples
    manifest["source"] = {**samples.source, "description": samples.description}
    if samples.class_names:
        manifest["class_names"] = {str(label): name for label, name in samples.class_names.items()}
    if job.corruption is not None:
        positions = table["position"].to_numpy()
        table["corrupted"] = job.corruption.mask[positions]
        table["original_label"] = job.corruption.original_labels[positions]
        manifest["corruption"] = job.corruption.describe()
    return Scores(table, manifest, scores.audit)


def write(scores: Scores, samples: Samples, output: OutputOptions) -> dict[str, Path]:
    """Write scores and page where they were asked for.

    Args:
        scores: The result.
        samples: The data, for the page's pictures.
        output: Where results go.

    Returns:
        The places written to, under ``output`` and ``report``.
    """
    written = {}
    if output.output is not None:
        scores.save(output.output, overwrite=output.overwrite)
        written["output"] = output.output
    if output.report is not None:
        from lsi.report import write_report

        written["report"] = write_report(output.report, scores, samples, overwrite=output.overwrite)
    return written


def _seed(seed: int | None, flag: str) -> int:
    if seed is not None and seed < 0:
        raise InputError(f"{flag} must not be negative, got {seed}.")
    return seed or 0
