"""What a run's audit measured: approximate scores against leave-one-out by brute force."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from lsi.errors import InputError
from lsi.system.text import plain_text

_LISTS = ("positions", "exact", "approximate", "certificate")
_COUNTS = ("top_k",)


@dataclass(frozen=True)
class Audit:
    """Approximate LSI of a few samples, compared with their LSI by brute force.

    Attributes:
        positions: Rows of X that were left out again.
        exact: LSI by brute force, in nats.
        approximate: LSI that the run reports, in nats.
        certificate: Relative error that the run promised for each sample; NaN where the method gives none.
        spearman: Rank correlation of exact and approximate; NaN where one of them is constant.
        median_relative_error: Median of |approximate − exact| / exact.
        p95_relative_error: Its 95th percentile.
        max_relative_error: Its maximum.
        top_k: How many of the highest samples `top_k_overlap` looks at.
        top_k_overlap: Share of the `top_k` samples by brute force that are also the `top_k` by approximation.
        seconds: Time that the audit took.
        trusts: What the brute force takes from the run, in words.
        resolution: Relative error that the brute force itself may have.
    """

    positions: list[int]
    exact: list[float]
    approximate: list[float]
    certificate: list[float]
    spearman: float
    median_relative_error: float
    p95_relative_error: float
    max_relative_error: float
    top_k: int
    top_k_overlap: float
    seconds: float
    trusts: str = ""
    resolution: float = 0.0

    @classmethod
    def from_values(
        cls,
        positions: Sequence[int] | np.ndarray,
        exact: Sequence[float] | np.ndarray,
        approximate: Sequence[float] | np.ndarray,
        certificate: Sequence[float] | np.ndarray | None,
        seconds: float,
        top_k: int | None = None,
        *,
        trusts: str = "",
        resolution: float = 0.0,
    ) -> Audit:
        """Compare approximate with exact scores.

        Args:
            positions: `(n,)` rows of X that were left out again.
            exact: `(n,)` LSI by brute force, in nats.
            approximate: `(n,)` LSI that the run reports, in nats.
            certificate: `(n,)` promised relative errors; None where the method gives none.
            seconds: Time that the audit took.
            top_k: How many of the highest samples to compare; None: a quarter of them, 10 at most.
            trusts: What the brute force takes from the run, in words.
            resolution: Relative error that the brute force itself may have.

        Returns:
            The audit. A value that is not finite makes the errors NaN or infinite; it is never dropped.

        Raises:
            InputError: The lengths differ, there is no sample, or `top_k` does not fit.

        Examples:
            >>> audit = Audit.from_values([4, 8], [2.0, 1.0], [2.2, 1.0], None, seconds=0.5)
            >>> print(audit.summary())
            2 samples were left out again by brute force in 0.5 s: rank correlation 1.0000, ...
        """
        true, close = np.asarray(exact, dtype=np.float64), np.asarray(approximate, dtype=np.float64)
        promised = np.full(true.shape, np.nan) if certificate is None else np.asarray(certificate, np.float64)
        _check_lengths(len(positions), true, close, promised)
        top_k = min(10, max(1, len(true) // 4)) if top_k is None else top_k
        if not 1 <= top_k <= len(true):
            raise InputError(f"top_k must lie between 1 and {len(true)}, the audited samples; got {top_k}.")
        error = relative_error(close, true)
        return cls(
            positions=[int(position) for position in positions],
            exact=true.tolist(),
            approximate=close.tolist(),
            certificate=promised.tolist(),
            spearman=spearman(true, close),
            median_relative_error=float(np.median(error)),
            # "higher" never interpolates between a finite and an infinite error
            p95_relative_error=float(np.percentile(error, 95, method="higher")),
            max_relative_error=float(error.max()),
            top_k=int(top_k),
            top_k_overlap=top_k_overlap(true, close, top_k),
            seconds=float(seconds),
            trusts=trusts,
            resolution=float(resolution),
        )

    @property
    def certificate_coverage(self) -> float:
        """Share of audited samples whose true relative error is within the certificate; NaN without one."""
        promised = np.asarray(self.certificate)
        if np.isnan(promised).all():
            return math.nan
        return float(np.mean(self._error() <= promised + self.resolution))

    @property
    def broken(self) -> list[int]:
        """Rows of X whose certificate does not hold, whatever the resolution of the brute force."""
        beyond = self._error() > np.asarray(self.certificate) + self.resolution  # False where one is NaN
        return [position for position, is_beyond in zip(self.positions, beyond, strict=True) if is_beyond]

    def _error(self) -> np.ndarray:
        return relative_error(np.asarray(self.approximate), np.asarray(self.exact))

    def alarm(self) -> str:
        """Return a sentence on certificates that do not hold; empty where all do."""
        broken, error = self.broken, dict(zip(self.positions, self._error().tolist(), strict=True))
        if not broken:
            return ""
        promised = dict(zip(self.positions, self.certificate, strict=True))
        worst = max(broken, key=lambda position: error[position] / max(promised[position], self.resolution))
        rows = ", ".join(map(str, broken[:_NAMED])) + (", …" if len(broken) > _NAMED else "")
        one = len(broken) == 1
        return (
            f"Certificates are broken: {len(broken)} of {len(self.positions)} audited samples "
            f"{'is' if one else 'are'} further from brute force than relative_error says "
            f"({'row' if one else 'rows'} {rows}). Row {worst} is off by {_percent(error[worst])} at a "
            f"certificate of {_percent(promised[worst])}. Do not rely on the certificates of this run; lower "
            "tol, raise weight_decay, or standardise the features."
        )

    def summary(self) -> str:
        """Return the audit as one plain sentence."""
        count = len(self.positions)
        parts = [
            f"rank correlation {self.spearman:.4f}" if math.isfinite(self.spearman) else _NO_SPEARMAN,
            f"relative error {_percent(self.median_relative_error)} median and "
            f"{_percent(self.max_relative_error)} at most",
            f"{round(self.top_k_overlap * self.top_k)} of the top {self.top_k} agree",
        ]
        if math.isfinite(self.certificate_coverage):
            parts.append(f"the certificate held for {self.certificate_coverage:.0%}")
        who = "1 sample was" if count == 1 else f"{count} samples were"
        said = f"{who} left out again by brute force in {self.seconds:.1f} s: {', '.join(parts)}."
        said += f" Brute force trusts {self.trusts}." if self.trusts else ""
        return f"{said} {self.alarm()}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; numbers that JSON lacks become the words NaN and Infinity."""
        described = {field.name: _to_json(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return described | {"broken": self.broken}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Audit:
        """Return the audit that `to_dict` described.

        Args:
            values: What `to_dict` returned; unknown keys are ignored.

        Returns:
            An audit with equal fields.

        Raises:
            InputError: A field is missing or of the wrong kind.
        """
        try:
            fields = {name: values[name] for name in _REQUIRED}
            for name in _LISTS:
                kind = int if name == "positions" else float
                fields[name] = [kind(value) for value in fields[name]]
            for name in fields.keys() - set(_LISTS):
                fields[name] = (int if name in _COUNTS else float)(fields[name])
            fields["trusts"], fields["resolution"] = _told(values)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"The audit cannot be read ({error!r}). Run the scores again.") from error
        count = len(fields["positions"])
        if any(len(fields[name]) != count for name in _LISTS) or not 1 <= fields["top_k"] <= count:
            raise InputError("The audit cannot be read (its lists differ in length). Run the scores again.")
        return cls(**fields)


_NAMED = 6  # rows that an alarm names
_REQUIRED = [field.name for field in dataclasses.fields(Audit) if field.default is dataclasses.MISSING]
_NO_SPEARMAN = "no rank correlation (constant or not finite)"


def _told(values: Mapping[str, Any]) -> tuple[str, float]:
    """Return what brute force trusts and how exact it is, which early audits do not say."""
    trusts, resolution = values.get("trusts", ""), float(values.get("resolution", 0.0))
    if not isinstance(trusts, str):
        raise TypeError("trusts")
    return plain_text(trusts, 200), resolution


def relative_error(approximate: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return `|approximate − exact| / exact`, 0 where both are zero and infinite where only exact is.

    Shapes: approximate `(n,)`, exact `(n,)`.
    """
    gap = np.abs(approximate - exact)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(gap == 0, 0.0, gap / np.abs(exact))


def spearman(exact: np.ndarray, approximate: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN where it is not defined.

    Shapes: exact `(n,)`, approximate `(n,)`.
    """
    finite = bool(np.isfinite(exact).all() and np.isfinite(approximate).all())
    if not finite or len(exact) < 2 or np.ptp(exact) == 0 or np.ptp(approximate) == 0:
        return math.nan
    return float(scipy.stats.spearmanr(exact, approximate).statistic)


def top_k_overlap(exact: np.ndarray, approximate: np.ndarray, top_k: int) -> float:
    """Return the share of the highest `top_k` by `exact` that are among the highest by `approximate`.

    Shapes: exact `(n,)`, approximate `(n,)`.
    """
    highest = np.argsort(-exact, kind="stable")[:top_k]
    last = np.sort(np.where(np.isnan(approximate), -np.inf, approximate))[-top_k]
    return float(np.mean(approximate[highest] >= last))


def _check_lengths(count: int, *values: np.ndarray) -> None:
    if count == 0 or any(value.shape != (count,) for value in values):
        shapes = [value.shape for value in values]
        raise InputError(f"An audit needs one value per position; got {count} positions and shapes {shapes}.")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if math.isfinite(share) else "not finite"


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
