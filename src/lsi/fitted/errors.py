"""Which rows a trained probe predicts wrongly."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from lsi.fitted.asked import Asked
from lsi.fitted.explain import label_names
from lsi.loo.newton.engine import NewtonEngine


def find_errors(engines: Iterable[NewtonEngine], asked: Asked) -> pd.DataFrame:
    """Return the table of `Fitted.errors`."""
    loss, predicted = np.zeros(len(asked)), []
    for head, engine in enumerate(engines):
        queries = asked.queries(engine, head)
        place = queries.place.cpu().numpy()
        own = queries.log_p.gather(1, queries.target[:, None])[:, 0]
        loss[place] -= own.cpu().numpy()
        codes = np.empty(len(asked), dtype=np.int64)
        codes[place] = torch.argmax(queries.log_p, 1).cpu().numpy()
        predicted.append(codes)
    found = np.array(predicted).T
    assert asked.target is not None  # whoever asks for errors knows the labels
    given = asked.target if asked.target.ndim == 2 else asked.target[:, None]
    position = np.flatnonzero((found != given).any(1))
    position = position[np.argsort(-loss[position], kind="stable")]
    return pd.DataFrame(
        {
            "query": asked.names[position],
            "position": position,
            "label": label_names(asked, given)[position],
            "prediction": label_names(asked, found)[position],
            "loss": loss[position],
        }
    )
