"""What the target of a run is (classes, numbers, several labels a sample) and the probe that goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsi.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from lsi.cli.inputs.options import CorruptionOptions, ProbeOptions
    from lsi.data import Corruption, Samples


def build_probe(options: ProbeOptions, task: str) -> Any:
    """Return the probe for a task."""
    from lsi import LinearProbe, RidgeProbe, SigmoidProbe

    decay, intercept = options.weight_decay, options.intercept
    network = build_network(options, task)
    if network is not None:
        return network
    if task == "regression":
        noise = 1.0 if options.noise_precision is None else options.noise_precision
        return RidgeProbe(decay, intercept, noise)
    if options.noise_precision is not None:
        raise InputError("--noise-precision is for --task regression. Drop it.")
    return LinearProbe(decay, intercept) if task == "classification" else SigmoidProbe(decay, intercept)


def build_network(options: ProbeOptions, task: str) -> Any:
    """Return the network that the options mean; None: a probe without hidden layers."""
    settings = {"activation": options.activation, "posterior_layers": options.posterior_layers}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if options.hidden:
        given["hidden"] = options.hidden
    if options.probe == "linear" and given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{flags}: for --probe mlp, not linear. Drop it.")
    if options.probe != "mlp" and not given:
        return None
    if task != "classification":
        raise InputError(f"--probe mlp is for --task classification, not {task}. Use --probe linear.")
    from lsi import MLPProbe

    return MLPProbe(weight_decay=options.weight_decay, fit_intercept=options.intercept, **given)


def as_column(target: np.ndarray, task: str, names: tuple[str, ...]) -> np.ndarray:
    """Return targets as one column of a table. Shapes: target `(N,)`."""
    from lsi.data.samples import row_texts
    from lsi.tasks.columns import label_texts

    if target.ndim == 1:
        return target
    return label_texts(target, names) if task == "multilabel" else row_texts(target)


def corrupt(samples: Samples, options: CorruptionOptions, task: str, seed: int) -> Corruption | None:
    """Change targets that are no classes, as asked."""
    from lsi.data.corruption.labels import corrupt_targets

    refused = {
        "--transition": options.transition is not None,
        "--human-label-noise": options.human_label_noise is not None,
        "--corrupt-kind": options.corrupt_kind != "symmetric",
        "--corrupt-data": bool(options.corrupt_data),
    }
    flags = ", ".join(flag for flag, given in refused.items() if given)
    if flags:
        raise InputError(f"{flags}: for classes, and this is a {task}. Use --corrupt-label alone.")
    if options.corrupt_label is None:
        return None
    from lsi.data.targets import target_of

    return corrupt_targets(target_of(samples), options.corrupt_label, seed, task)
