r"""Which samples to keep.

The default order, `"useful"`, ranks by

.. math:: \mathrm{usefulness}_i = (1 - 2 w_i) \sqrt{p_{-i}(y_i) \cdot r_i}

where :math:`w_i` is the probability that the label is wrong, :math:`p_{-i}(y_i)` the probability of the given
label without the sample, and :math:`r_i` the rank of the sample's LSI in its class, as a share. The root is
what the sample has to teach: something new that the other samples do not contradict. The factor before it is
its expected value if a right label helps as much as a wrong one harms. Labels more likely wrong than right
come last, whatever their class. `docs/how-to/decisions.md` has the measurements behind this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.view import View, ranks_within, view
from lsi.errors import InputError, nearest
from lsi.results.table import ScoreTable
from lsi.validation.settings import check_seed

ORDERS = ("useful", "largest", "smallest", "right", "random")
"""Orders in which samples are kept, the best one first."""
Order = str | Mapping[str, float]


def usefulness(seen: View) -> np.ndarray:
    """Return `(1 − 2 wrong) · √(loo_probability · rank of LSI in the class)`, in [−1, 1]."""
    probability = seen.table["loo_probability"].to_numpy(dtype=np.float64)
    trust = 1.0 - 2.0 * seen.wrong if seen.calibrated else probability
    teaches = np.sqrt(probability * ranks_within(seen.lsi, seen.codes))
    # Among suspected labels the least doubtful is kept first, whatever it has to teach.
    return np.asarray(np.where(trust < 0, trust, trust * teaches))


def select(
    scores: ScoreTable,
    keep: float | int | None = None,
    *,
    order: Order = "useful",
    balanced: bool | str = True,
    drop_mislabeled: bool | float | int = False,
    drop_redundant: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Return the rows of the table to keep, ascending; `Scores.select` describes the settings."""
    seen = view(scores)
    last = _last(seen, drop_mislabeled, drop_redundant)
    count = keep_count(keep, len(scores), int((~last).sum()))
    groups, parts = _groups(seen, balanced), _parts(_mixture(order), count)
    kept, random = np.zeros(len(scores), dtype=bool), np.random.default_rng(check_seed("seed", seed))
    for name, part in parts.items():
        priority = _priority(name, seen, random)
        behind = last | seen.suspected if name == "useful" and seen.calibrated else last
        # Samples that should go first are kept last, the least doubtful of them before the others.
        kept[_best(np.where(behind, -seen.wrong, priority), behind, groups, kept, part, balanced)] = True
    return np.flatnonzero(kept)


def keep_count(keep: Any, n: int, remaining: int) -> int:
    """Return how many of `n` samples to keep; None keeps the `remaining` ones."""
    if keep is None:
        if remaining in (0, n):
            reason = "nothing else says what goes" if remaining else "nothing would be left"
            raise InputError(f"keep is missing and {reason}. Pass a share such as keep=0.5.")
        return remaining
    return amount(keep, n, "keep")


def amount(value: Any, n: int, name: str) -> int:
    """Return a number of samples, given as such or as a share of `n`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= value <= n:
        return int(value)
    if isinstance(value, float | np.floating) and 0 < value <= 1:
        return max(1, round(float(value) * n))
    raise InputError(
        f"{name} must be a share in (0, 1] such as 0.5, or a whole number from 1 to {n:,}, got {value!r}."
    )


def _last(seen: View, drop_mislabeled: bool | float | int, drop_redundant: bool) -> np.ndarray:
    """Return which samples go first, `(n,)` bool, and so are kept last."""
    out = np.zeros(len(seen.table), dtype=bool)
    if drop_mislabeled is True:
        out |= seen.suspected
    elif drop_mislabeled is not False:
        count = amount(drop_mislabeled, len(out), "drop_mislabeled")
        out[np.argsort(-seen.wrong, kind="stable")[:count]] = True
    if drop_redundant:
        out |= spare(seen.table)
    return out


def spare(table: pd.DataFrame) -> np.ndarray:
    """Return which samples repeat a more informative one of their `redundancy_group`, `(n,)` bool."""
    if "redundancy_group" not in table:
        raise InputError(
            "these scores have no redundancy groups. Find them first: scores = scores.with_redundancy(X), or "
            "lsi compute --redundancy."
        )
    group = table["redundancy_group"].to_numpy()
    order = np.argsort(-table["lsi"].to_numpy(dtype=np.float64), kind="stable")
    repeated = pd.Series(group[order]).duplicated().to_numpy()
    out = np.zeros(len(table), dtype=bool)
    out[order] = repeated
    return np.asarray(out & (group >= 0))


def _mixture(order: Order) -> dict[str, float]:
    mixture = {order: 1.0} if isinstance(order, str) else dict(order)
    for name, share in mixture.items():
        if name not in ORDERS:
            raise InputError(f"order={name!r} is not known. {nearest(name, ORDERS)}")
        if not 0 <= share <= 1:
            raise InputError(f"order: the share of {name!r} must lie between 0 and 1, got {share!r}.")
    if abs(sum(mixture.values()) - 1.0) > 1e-6:
        raise InputError(f"order: the shares must add up to 1, got {sum(mixture.values()):g}.")
    return mixture


def _parts(mixture: Mapping[str, float], count: int) -> dict[str, int]:
    """Return how many samples each order chooses, adding up to `count`."""
    ends = np.round(np.cumsum(list(mixture.values())) * count).astype(int)
    ends[-1] = count
    return dict(zip(mixture, np.diff(ends, prepend=0).tolist(), strict=True))


def _groups(seen: View, balanced: bool | str) -> np.ndarray:
    if not isinstance(balanced, bool) and balanced != "proportional":
        raise InputError(f"balanced must be True, False or 'proportional', got {balanced!r}.")
    return seen.codes if balanced else np.zeros_like(seen.codes)


def _priority(name: str, seen: View, random: np.random.Generator) -> np.ndarray:
    """Return a number per sample, `(n,)`; the highest are kept first."""
    if name == "useful":
        return usefulness(seen)
    if name == "right":
        return 1.0 - seen.wrong
    if name == "random":
        return random.random(len(seen.table))
    place = pd.Series(seen.lsi).rank(method="first").to_numpy()
    return place if name == "largest" else len(place) - place


def _best(
    priority: np.ndarray,
    last: np.ndarray,
    groups: np.ndarray,
    taken: np.ndarray,
    count: int,
    balanced: bool | str,
) -> np.ndarray:
    """Return the rows of the next `count` samples, chosen so that the groups stay balanced.

    The k-th sample of a group stands at k (equal numbers) or at (k − ½) / size (proportional: Webster's
    apportionment). The lowest stands are taken, so each budget contains all smaller ones.
    """
    free = np.flatnonzero(~taken)
    order = free[np.lexsort((-priority[free], last[free], groups[free]))]
    group, sizes = groups[order], np.bincount(groups)
    in_group = np.bincount(group, minlength=len(sizes))
    before = np.cumsum(in_group) - in_group
    place = (
        np.arange(len(order)) - before[group] + np.bincount(groups[taken], minlength=len(sizes))[group] + 1
    )
    stand = (place - 0.5) / sizes[group] if balanced == "proportional" else place.astype(np.float64)
    stand[last[order]] = np.inf
    return order[np.lexsort((-priority[order], stand))][:count]
