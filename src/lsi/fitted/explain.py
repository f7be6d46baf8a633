"""Which training samples made an answer, and how few of them it hangs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch

from lsi.fitted.asked import Asked
from lsi.loo.attribution.causes import Effects, exact_effects, extremes, first_order_changes
from lsi.loo.attribution.flips import Flip, FlipFinder
from lsi.loo.attribution.queries import TINY
from lsi.loo.attribution.steps import TOGETHER, Steps
from lsi.loo.newton.engine import NewtonEngine
from lsi.system.progress import Progress
from lsi.tasks.columns import label_texts

SLACK = 2  # more samples than are shown on each side, since first-order ranks may be off by some

Heads = Callable[[], Iterable[tuple[NewtonEngine, Steps]]]
"""Makes the engine of each head with its first-order steps; called again for each pass over the heads."""


def explain_queries(heads: Heads, asked: Asked, k: int, progress: Progress | None) -> pd.DataFrame:
    """Return the table of `Fitted.explain`."""
    tables = []
    for low in range(0, len(asked), TOGETHER):
        part = asked.part(slice(low, low + TOGETHER))
        pairs = _candidates(heads, part, k + SLACK)
        tables.append(_ranked(part, pairs, effects_of(heads, part, pairs), k))
        if progress is not None:
            progress("explain", low + len(part), len(asked))
    return pd.concat(tables, ignore_index=True)


def effects_of(heads: Heads, asked: Asked, pairs: torch.Tensor) -> Effects:
    """Return the effects of pairs of a query and a sample `(P, 2)`, added up over heads."""
    total = Effects.none(len(pairs))
    for head, (engine, steps) in enumerate(heads()):
        total = total + exact_effects(engine, steps, asked.queries(engine, head), pairs)
    return total


def _candidates(heads: Heads, asked: Asked, k: int) -> torch.Tensor:
    """Return pairs of a query and a sample that may be among the k of either side, `(P, 2)`."""
    changes = torch.zeros(())
    for head, (engine, steps) in enumerate(heads()):
        changes = changes + first_order_changes(steps, asked.queries(engine, head))
    samples = extremes(changes, k)
    queries = torch.arange(len(asked))[:, None].expand_as(samples)
    return torch.stack([queries, samples], 2).flatten(0, 1).unique(dim=0)


def _ranked(asked: Asked, pairs: torch.Tensor, effects: Effects, k: int) -> pd.DataFrame:
    """Return the k samples of each side of each query, the strongest first."""
    query, sample = pairs.numpy().T
    loss = effects.loss.numpy()
    frame = pd.DataFrame(
        {
            "query": query,
            "rank": 0,
            "sample_id": asked.run.problem.sample_id[sample],
            "loss_change": loss,
            "logit_change": effects.odds.numpy(),
            "changes_prediction": effects.changed.numpy(),
            "relative_error": effects.error.numpy() / np.maximum(np.abs(loss), TINY),
        }
    )
    sides = []
    for sign in (1, -1):
        side = frame[sign * frame["loss_change"] > 0]
        side = side.sort_values(["query", "loss_change"], ascending=[True, sign < 0], kind="stable")
        rank = side.groupby("query").cumcount() + 1
        sides.append(side.assign(rank=sign * rank)[rank <= k])
    shown = pd.concat(sides).sort_values("query", kind="stable", ignore_index=True)
    return shown.assign(query=asked.names[shown["query"].to_numpy()])


def smallest_changes(heads: Heads, asked: Asked, limit: int, progress: Progress | None) -> pd.DataFrame:
    """Return the table of `Fitted.smallest_change`."""
    best: list[tuple[int, Flip] | None] = [None] * len(asked)
    codes = []
    for head, (engine, steps) in enumerate(heads()):
        found = FlipFinder(engine, steps, limit).find(asked.rows(engine))
        codes.append([flip.before for flip in found])
        for place, flip in enumerate(found):
            before = best[place]
            # The prediction changes with any of several labels: the one that hangs on the fewest rows counts.
            if flip.found and (before is None or len(flip.rows) < len(before[1].rows)):
                best[place] = head, flip
        if progress is not None:
            progress("smallest change", head + 1, max(1, len(asked.run.problem.outputs)))
    return _flips(asked, np.array(codes).T, best)


def _flips(asked: Asked, before: np.ndarray, best: list[tuple[int, Flip] | None]) -> pd.DataFrame:
    """Return one row for each query. Shapes: before, predicted codes of each head, `(M, L)`."""
    after = before.copy()
    for place, entry in enumerate(best):
        if entry is not None:
            after[place, entry[0]] = entry[1].after
    ids = asked.run.problem.sample_id
    sets = [[] if entry is None else ids[entry[1].rows.cpu().numpy()].tolist() for entry in best]
    found = np.array([entry is not None for entry in best])
    return pd.DataFrame(
        {
            "query": asked.names,
            "prediction": label_names(asked, before),
            "changes_to": pd.Series(label_names(asked, after), dtype=object).where(found, None),
            "found": found,
            "n": [len(rows) for rows in sets],
            "sample_ids": pd.Series(sets, dtype=object),
            "logit": [np.nan if entry is None else entry[1].lead for entry in best],
        }
    )


def label_names(asked: Asked, codes: np.ndarray) -> np.ndarray:
    """Return predictions in words. Shapes: codes `(M, 1)`, or zeros and ones `(M, L)`."""
    problem = asked.run.problem
    return label_texts(codes, problem.outputs) if problem.outputs else problem.classes[codes[:, 0]]
