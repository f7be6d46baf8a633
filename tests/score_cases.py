"""A small result that the tests of scores share."""

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal

from lsi.results.audit import Audit
from lsi.scores import Scores

LSI = [0.5, 3.0, 0.1, 3.0, 0.2]
LABELS = ["cat", "dog", "cat", "dog", "owl"]
PREDICTED = ["cat", "cat", "cat", "owl", "owl"]
PROBABILITY = [0.75, 0.125, 0.9, 0.125, 0.5]
AUDIT = Audit.from_values([1, 2], [3.0, 0.1], [3.1, 0.1], None, seconds=0.25)
MANIFEST = {"classes": ["cat", "dog", "owl"], "config": {"posterior": "diag"}}


def make(labels=LABELS, predicted=PREDICTED, ids=None, lsi=LSI, manifest=MANIFEST, audit=AUDIT, **more):
    count = len(lsi)
    table = {
        "sample_id": [f"id-{i}" for i in range(count)] if ids is None else ids,
        "position": np.arange(count),
        "label": labels,
        "lsi": lsi,
        "mean_term": lsi,
        "covariance_term": np.zeros(count),
        "loo_probability": PROBABILITY[:count],
        "loo_prediction": predicted,
        "leverage": np.linspace(0, 1, count),
        "relative_error": np.full(count, np.nan),
    }
    columns = {name: pd.Series(list(column)) for name, column in {**table, **more}.items()}
    return Scores(pd.DataFrame(columns), manifest, audit)


def assert_equal(left, right):
    assert_frame_equal(left.to_frame(), right.to_frame(), check_exact=True)
    assert left.manifest == right.manifest
    assert repr(left.audit) == repr(right.audit)
