"""From the options of the commands to the arguments of the library's functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.errors import InputError
from lsi.system.progress import Progress

if TYPE_CHECKING:
    from lsi.data import SourceOptions

CHECKED = ("probe", "posterior", "method", "prior_precision", "audit")
"""Settings that can be checked before there are data, in the order in which `check_settings` takes them."""
_FLAGS = {"batch_size": "train_batch_size"}
"""Options whose name differs from that of the setting."""


def source_options(data: DataOptions, encoder: EncoderOptions, progress: Progress | None) -> SourceOptions:
    """Return what `load_samples` takes."""
    from lsi.data import SourceOptions

    return SourceOptions(
        data_dir=data.data_dir,
        split=data.split,
        label_column=data.label_column,
        label_columns=data.label_columns,
        annotators=data.annotators,
        clean_label_column=data.clean_label_column,
        id_column=data.id_column,
        group_column=data.group_column,
        image_column=data.image_column,
        text_column=data.text_column,
        audio_column=data.audio_column,
        feature_columns=data.feature_columns,
        prepare=data.prepare,
        labels=data.labels,
        cache_dir=encoder.cache_dir,
        progress=progress,
    )


def encoder_settings(encoder: EncoderOptions, data: DataOptions, machine: MachineOptions) -> dict[str, Any]:
    """Return what `lsi.encode` takes."""
    return {
        "encoder": encoder.encoder,
        "pooling": encoder.pooling,
        "precision": encoder.precision,
        "batch_size": encoder.batch_size,
        "cache_dir": encoder.cache_dir,
        "skip_broken": data.skip_broken,
        "device": machine.device,
        "cluster": machine.ray,
    }


def corruption_settings(options: CorruptionOptions, data: DataOptions, seed: int) -> dict[str, Any]:
    """Return what `lsi.data.corrupt` takes."""
    if options.corrupt_seed is not None and options.corrupt_seed < 0:
        raise InputError(f"--corrupt-seed must not be negative, got {options.corrupt_seed}.")
    return {
        "label_share": options.corrupt_label,
        "label_kind": options.corrupt_kind,
        "transition": options.transition,
        "data_strength": options.corrupt_data,
        "data_classes": options.corrupt_data_label,
        "human_kind": options.human_label_noise,
        "human_path": options.human_labels or data.data_dir or Path(),
        "seed": seed if options.corrupt_seed is None else options.corrupt_seed,
    }


def shared_settings(probe: ProbeOptions, method: MethodOptions) -> dict[str, Any]:
    """Return what `lsi.score` and `lsi.score_pairs` both take."""
    return {
        "posterior": "kron" if probe.posterior == "kfac" else probe.posterior,
        "method": build_method(method),
        "prior_precision": probe.prior_precision,
        "audit": audit_size(method.audit),
        "seed": seed_of(method.seed, "--seed"),
    }


def score_settings(probe: ProbeOptions, method: MethodOptions, machine: MachineOptions) -> dict[str, Any]:
    """Return what `lsi.score` takes, with the probe that is likely before the data are known."""
    likely = probe.task or ("classification" if probe.noise_precision is None else "regression")
    return {
        "probe": build_probe(probe, likely),
        **shared_settings(probe, method),
        "device": machine.device,
        "memory": machine.memory,
        "cluster": machine.ray,
        "label_noise": method.label_noise,
    }


def build_probe(options: ProbeOptions, task: str) -> Any:
    """Return the probe that the options mean for a task."""
    from lsi import LinearProbe, RidgeProbe, SigmoidProbe

    decay, intercept = options.weight_decay, options.intercept
    network = _build_network(options, task)
    if network is not None:
        return network
    if task == "regression":
        noise = 1.0 if options.noise_precision is None else options.noise_precision
        return RidgeProbe(decay, intercept, noise)
    if options.noise_precision is not None:
        raise InputError("--noise-precision is for --task regression. Drop it.")
    return LinearProbe(decay, intercept) if task == "classification" else SigmoidProbe(decay, intercept)


def _build_network(options: ProbeOptions, task: str) -> Any:
    """Return the network that the options mean; None: a probe without hidden layers."""
    settings = {"activation": options.activation, "posterior_layers": options.posterior_layers}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if options.hidden:
        given["hidden"] = options.hidden
    if options.probe == "linear" and given:
        raise InputError(f"{_flags(given)}: for --probe mlp, not linear. Drop it.")
    if options.probe != "mlp" and not given:
        return None
    if task != "classification":
        raise InputError(f"--probe mlp is for --task classification, not {task}. Use --probe linear.")
    from lsi import MLPProbe

    if options.weight_decay == "auto":
        raise InputError(
            "--weight-decay auto is for probes without hidden layers. Give --probe mlp a number."
        )
    return MLPProbe(weight_decay=options.weight_decay, fit_intercept=options.intercept, **given)


def build_method(options: MethodOptions) -> Any:
    """Return the leave-one-out method that the options mean."""
    from lsi import Newton, Retrain

    if options.num_batches not in (None, 1):
        raise InputError(
            f"--num-batches {options.num_batches}: state the size of the batches instead, with "
            "--train-batch-size."
        )
    settings: dict[str, Any] = {"epochs": options.epochs, "lr": options.lr, "momentum": options.momentum}
    settings |= {"schedule": options.schedule, "record_every": options.record_every}
    settings |= {"batch_size": options.train_batch_size, "optimizer": build_optimizer(options)}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if options.n_seeds not in (None, 1):
        given["n_seeds"] = options.n_seeds
    if options.method == "newton" and given:
        raise InputError(
            f"{_flags(given)}: settings of the method retrain. Drop them, or choose --method retrain."
        )
    if options.method == "retrain" or given:
        if options.solver is not None:
            raise InputError(
                "--solver is a setting of the method newton. Drop it, or choose --method newton."
            )
        if options.seed is not None:
            given["seed"] = options.seed
        if options.tol is not None:
            given["tol"] = None if options.tol == "none" else options.tol
        # Nesterov's look-ahead needs momentum: without any, this is plain SGD.
        return Retrain(**given, nesterov=options.momentum != 0)
    solver = options.solver or "auto"
    if options.tol is None:
        return Newton(solver=solver)
    return Newton(tol=None if options.tol == "none" else options.tol, solver=solver)


def build_optimizer(options: MethodOptions) -> Any:
    """Return the training algorithm that the options mean; None: none was named."""
    from lsi import DPSGD, SAM

    sam = {"rho": options.rho}
    private = {"noise_multiplier": options.noise_multiplier, "max_grad_norm": options.max_grad_norm}
    for kind, values in ((SAM, sam), (DPSGD, private)):
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if given and options.optimizer not in (None, kind.kind):
            raise InputError(
                f"{_flags(given)}: for --optimizer {kind.kind}, not {options.optimizer}. Drop it."
            )
        if given:
            return kind(**given)
    return options.optimizer


def _flags(given: dict[str, Any]) -> str:
    """Return the options that these settings come from."""
    return ", ".join(f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in given)


def audit_size(audit: int | bool | None) -> int | bool:
    """Return what `lsi.score` takes as ``audit``."""
    if audit is None or isinstance(audit, bool):
        return audit is not False
    if audit < 0:
        raise InputError(f"--audit must not be negative, got {audit}. Use --no-audit for none.")
    return audit or False


def subset_text(data: DataOptions, n_samples: int) -> str | None:
    """Return which samples to score, as `parse_subset` reads it; None: all."""
    if data.range1 is None and not data.range2:
        return data.subset
    if data.subset is not None:
        raise InputError("--subset and --range1/--range2 both choose what is scored. Use one of them.")
    return f"{data.range1 or 0}:{data.range2 or n_samples}"


def use_machine(machine: MachineOptions) -> None:
    """Limit torch's processor threads, and make sure that cluster and device can be used."""
    import torch

    from lsi.system.text import parse_size

    parse_size(machine.memory)
    if machine.threads is not None:
        if machine.threads < 1:
            raise InputError(f"--threads must be at least 1, got {machine.threads}.")
        torch.set_num_threads(machine.threads)
    if machine.ray is not None:
        from lsi.execution.ray_cluster import check_cluster

        check_cluster(machine.ray)
    if machine.device is not None:
        try:
            float(torch.zeros(1, device=machine.device))  # tensors of the device "meta" hold no number
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"--device {machine.device} cannot be used here: {reason}. Try cpu.") from error


def workers_of(machine: MachineOptions) -> int:
    """Return how many workers a run on this cluster would have; 1 without a cluster."""
    if machine.ray is None:
        return 1
    from lsi.execution.ray_cluster import room_for

    return room_for(machine.ray, machine.device)


def seed_of(seed: int | None, flag: str) -> int:
    """Return a seed, 0 where none is given."""
    if seed is not None and not 0 <= seed < 1 << 63:
        raise InputError(f"{flag} must not be negative, nor have more than 18 digits, got {seed}.")
    return seed or 0
