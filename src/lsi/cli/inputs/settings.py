"""From the options of ``lsi compute`` to the settings of `lsi.score`."""

from __future__ import annotations

from typing import Any

from lsi.cli.inputs.options import DataOptions, MachineOptions, MethodOptions
from lsi.errors import InputError

_FLAGS = {"batch_size": "train_batch_size"}
"""Options whose name differs from that of the setting."""


def build_method(options: MethodOptions) -> Any:
    """Return the leave-one-out method that the options mean."""
    from lsi import Newton, Retrain

    if options.num_batches not in (None, 1):
        raise InputError(
            f"--num-batches {options.num_batches}: say how large batches are, with --train-batch-size."
        )
    settings: dict[str, Any] = {"epochs": options.epochs, "lr": options.lr, "momentum": options.momentum}
    settings |= {"schedule": options.schedule, "record_every": options.record_every}
    settings |= {"batch_size": options.train_batch_size, "optimizer": build_optimizer(options)}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if options.n_seeds not in (None, 1):
        given["n_seeds"] = options.n_seeds
    flags = ", ".join(f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in given)
    if options.method == "newton" and given:
        raise InputError(f"{flags}: settings of the method retrain. Drop them, or choose --method retrain.")
    if options.method == "retrain" or given:
        if options.solver is not None:
            raise InputError(
                "--solver is a setting of the method newton. Drop it, or choose --method newton."
            )
        if options.seed is not None:
            given["seed"] = options.seed
        if options.tol is not None:
            given["tol"] = None if options.tol == "none" else options.tol
        # Nesterov's look-ahead needs a momentum; plain SGD is what a momentum of 0 asks for.
        return Retrain(**given, nesterov=options.momentum != 0)
    solver = options.solver or "auto"
    if options.tol is None:
        return Newton(solver=solver)
    return Newton(tol=None if options.tol == "none" else options.tol, solver=solver)


def build_optimizer(options: MethodOptions) -> Any:
    """Return the training algorithm that the options mean; None: not given."""
    from lsi import DPSGD, SAM

    sam = {"rho": options.rho}
    private = {"noise_multiplier": options.noise_multiplier, "max_grad_norm": options.max_grad_norm}
    for kind, values in ((SAM, sam), (DPSGD, private)):
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if given and options.optimizer not in (None, kind.kind):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{flags}: for --optimizer {kind.kind}, not {options.optimizer}. Drop it.")
        if given:
            return kind(**given)
    return options.optimizer


def audit_size(audit: int | bool | None) -> int | bool:
    """Return what `lsi.score` takes as ``audit``."""
    if audit is None or isinstance(audit, bool):
        return audit is not False
    if audit < 0:
        raise InputError(f"--audit must not be negative, got {audit}. Use --no-audit for none.")
    return audit or False


def subset_text(data: DataOptions, n_samples: int) -> str | None:
    """Return the subset to score as `parse_subset` reads it."""
    if data.range1 is None and not data.range2:
        return data.subset
    if data.subset is not None:
        raise InputError("--subset and --range1/--range2 both choose what is scored. Use one of them.")
    return f"{data.range1 or 0}:{data.range2 or n_samples}"


def use_machine(machine: MachineOptions) -> None:
    """Limit the processor threads that torch uses, and try the device."""
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
            float(torch.zeros(1, device=machine.device))  # "meta" makes tensors that hold nothing
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
