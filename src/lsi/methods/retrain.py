"""Settings of `Retrain`: leave-one-out by training again."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lsi.errors import InputError
from lsi.methods.algorithms import SGD, Algorithm, Schedule, as_algorithm, as_schedule, describe_settings
from lsi.validation.settings import SINGLE_MAX, check_positive


@dataclass(frozen=True)
class Retrain:
    """Leave-one-out by training again, stopped after a number of epochs as in the paper.

    The training algorithm is part of what is measured. All copies, with all samples and without each
    one, start from the same weights, see the same batches in the same order (the left-out sample's batch is
    one shorter), and share all random draws.

    Args:
        epochs: Passes over the data.
        lr: Learning rate.
        momentum: Momentum in [0, 1), of every optimizer but Adam.
        nesterov: Whether to use Nesterov's momentum.
        seed: Seed of the initial weights, which are those of ``torch.manual_seed(seed)``, then
            ``torch.nn.Linear(D, C)`` (of a network: its layers in order), and of DP-SGD's noise.
        n_seeds: Repetitions with seeds ``seed, seed + 1, …``; scores are their mean, and the column
            `lsi_std` holds their standard deviation.
        optimizer: ``"sgd"``, ``"adam"``, ``"sam"``, ``"dp-sgd"``, or `lsi.Adam`, `lsi.SAM`, `lsi.DPSGD`
            with settings.
        schedule: ``"constant"``, ``"cosine"``, ``"step"``, ``"exponential"``, or `lsi.Schedule`.
        batch_size: Samples a step, in the order of the data; None: all.
        record_every: Score also after every multiple of this number of epochs, in columns `lsi_epoch_…`;
            None: only at the end.
        tol: Relative error of LSI that is accepted for following heads in strides of many epochs; None: every
            epoch of every head is computed. Only linear probes trained by plain full-batch SGD go in strides.

    Raises:
        InputError: Settings outside their range.
    """

    epochs: int = 1000
    lr: float = 0.004
    momentum: float = 0.9
    nesterov: bool = True
    seed: int = 5
    n_seeds: int = 1
    optimizer: str | Algorithm = "sgd"
    schedule: str | Schedule = "constant"
    batch_size: int | None = None
    record_every: int | None = None
    tol: float | None = 1e-3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.n_seeds < 1:
            raise InputError(
                f"epochs and n_seeds must be at least 1, got {self.epochs!r} and {self.n_seeds!r}."
            )
        if not 0 < self.lr <= SINGLE_MAX:
            raise InputError(
                f"lr must be a positive number of single precision, got {self.lr!r}; the paper uses 0.004."
            )
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {self.momentum!r}; the paper uses 0.9.")
        if self.nesterov and self.momentum == 0:
            raise InputError("Nesterov needs a momentum above 0; set nesterov=False or raise momentum.")
        as_algorithm(self.optimizer)
        as_schedule(self.schedule)
        if self.tol is not None:
            check_positive("tol", self.tol)
        if self.batch_size is not None and self.batch_size < 2:
            raise InputError(f"batch_size must be at least 2, got {self.batch_size!r}; None: all samples.")
        if self.record_every is not None and not 1 <= self.record_every <= self.epochs:
            raise InputError(
                f"record_every must lie between 1 and epochs={self.epochs}, got {self.record_every!r}."
            )

    @property
    def algorithm(self) -> Algorithm:
        """The optimizer's settings."""
        return as_algorithm(self.optimizer)

    @property
    def learning_rate(self) -> Schedule:
        """The schedule's settings."""
        return as_schedule(self.schedule)

    @property
    def is_plain(self) -> bool:
        """Whether this is full-batch gradient descent at a constant rate, the paper's protocol."""
        plain = isinstance(self.algorithm, SGD) and self.learning_rate.kind == "constant"
        return plain and self.batch_size is None

    def records(self, epoch: int) -> bool:
        """Whether scores are recorded after `epoch` epochs: multiples of `record_every`, and the end."""
        every = self.record_every
        return every is not None and (epoch % every == 0 or epoch == self.epochs)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        names = (field.name for field in fields(self))
        values = {name: getattr(self, name) for name in names}
        values["optimizer"] = describe_settings(self.algorithm)
        values["schedule"] = describe_settings(self.learning_rate)
        return {"kind": "retrain", **values}
