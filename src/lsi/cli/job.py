"""A job: what the options asked for, checked, loaded and ready to be scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.gather import Gathered, gather
from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.cli.inputs.settings import audit_size, build_method, seed_of, subset_text, use_machine
from lsi.cli.inputs.targets import as_column, build_probe

if TYPE_CHECKING:
    from lsi.data import Corruption, Samples
    from lsi.execution.checkpoint import Checkpoint
    from lsi.scores import Scores
    from lsi.validation.problem import Problem


_CHECKED = ("probe", "posterior", "method", "prior_precision", "audit")


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
        from lsi.data.targets import named

        return named(self.data.labels, self.samples.target_names)


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
    """Check every setting, load the data, and encode what is raw."""
    import numpy as np

    from lsi.cli.console import say
    from lsi.cli.progress import progress_bar
    from lsi.data import parse_subset
    from lsi.data.targets import named
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
    """Score, and add what only the command knows: the source, and the truth about changed labels."""
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
