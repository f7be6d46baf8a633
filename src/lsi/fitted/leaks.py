"""Test rows that training rows give away, and test rows that no training row is like."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from lsi.analysis.nearness import nearness
from lsi.fitted.asked import Asked
from lsi.fitted.explain import Heads, effects_of, label_names
from lsi.loo.attribution.hinges import hinges
from lsi.system.progress import Progress

FALSE_COPIES = 0.05  # chance that a table names any copy where there is none
FAR = 0.01  # share of rows like the training rows that are called far from all of them


def find_leaks(heads: Heads, asked: Asked, progress: Progress | None) -> pd.DataFrame:
    """Return the table of `Fitted.leaks`."""
    problem = asked.run.problem
    predicted, hangs_on = _hanging(heads, asked)
    if progress is not None:
        progress("leaks", 1, 2)
    near = nearness(problem.features, asked.features)
    if progress is not None:
        progress("leaks", 2, 2)
    copy = near.copy_p * len(asked) <= FALSE_COPIES
    far = (near.far_p <= FAR) & ~copy
    ids = problem.sample_id
    given = asked.target
    same = None if given is None else (given == problem.target[near.nearest]).reshape(len(asked), -1).all(1)
    held = pd.Series(ids[hangs_on.clip(0)], dtype=object).where(hangs_on >= 0, None)
    agrees = np.ones(len(asked), dtype=bool) if same is None else same
    facts = zip(copy, agrees, far, ids[near.nearest], held, strict=True)
    columns = {
        "query": asked.names,
        "prediction": label_names(asked, predicted),
        "nearest": ids[near.nearest],
        "distance": near.distance,
        "same_label": np.nan if same is None else same,
        "copy_p": near.copy_p,
        "far_p": near.far_p,
        "hangs_on": held,
        "finding": [in_words(*row) for row in facts],
    }
    return pd.DataFrame(columns)


def in_words(copy: bool, same: bool, far: bool, nearest: object, held: object) -> str:
    """Return what was found about a row in plain words; nothing where nothing was."""
    found = []
    if copy:
        found.append(f"near-copy of {nearest}" + ("" if same else ", which has another label"))
    if held is not None:
        found.append(f"another prediction without {held}")
    if far:
        found.append("far from every training row")
    return "; ".join(found)


def _hanging(heads: Heads, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions of each head `(M, L)`, and positions of samples that they hang on; −1: none."""
    predicted, pairs = [], []
    for head, (engine, steps) in enumerate(heads()):
        queries = asked.queries(engine, head)
        codes = torch.empty_like(queries.place)
        codes[queries.place] = queries.log_p.argmax(1)
        predicted.append(codes.cpu().numpy())
        pairs.append(torch.stack(hinges(steps, queries), 1).cpu())
    candidates = torch.cat(pairs).unique(dim=0)
    hangs_on = np.full(len(asked), -1)
    if len(candidates):
        places, local = candidates[:, 0].unique(return_inverse=True)
        some = torch.stack([local, candidates[:, 1]], 1)
        effects = effects_of(heads, asked.part(places.numpy()), some)
        turned = candidates[effects.changed].numpy()
        hangs_on[turned[:, 0]] = turned[:, 1]
    return np.array(predicted).T, hangs_on
