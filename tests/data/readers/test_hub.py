"""Datasets of a hub: a server on this machine speaks its protocol, and really sends the files."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.hub_server import Hub, serving

pytest.importorskip("datasets", reason="needs the extra `datasets`")
pytest.importorskip("huggingface_hub", reason="needs the extra `datasets`")

LOAD = """
import json, sys
from lsi.data import load_samples
from lsi.errors import InputError

told = {}
for name, split in json.loads(sys.argv[1]):
    try:
        samples = load_samples(name, split=split)
        told[f"{name} {split}"] = [len(samples), samples.features.sum().item(), samples.labels.tolist()[:3]]
    except InputError as error:
        told[f"{name} {split}"] = str(error)
print(json.dumps(told))
"""


def load(cases, home, **environment):
    """Load in a process of its own, which is where HF_ENDPOINT counts."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, json.dumps(cases)],
        env={**os.environ, "HF_HOME": str(home), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # a process of its own, which imports all of datasets
def test_datasets_from_the_hub(tmp_path):
    numbers = np.arange(12.0)
    table = pa.table({"x": numbers, "z": -numbers / 2, "label": [0, 1] * 6})
    (tmp_path / "made" / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(table, tmp_path / "made" / "data" / "train-00000-of-00001.parquet")
    hub = Hub()
    for name in ("good", "gated", "broken"):
        hub.add("datasets", f"org/{name}", tmp_path / "made")
    hub.gated.add("datasets/org/gated")
    hub.repos["datasets/org/broken"] = {"data/train-00000-of-00001.parquet": b"PAR1 no table PAR1"}
    cases = [("hf:org/good", None), ("hf:org/good", "test"), ("hf:org/gone", None), ("hf:org/gated", None)]
    cases.append(("hf:org/broken", None))
    with serving(hub) as address:
        told = load(cases, tmp_path / "home", HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
    assert told["hf:org/good None"] == [12, 33.0, [0, 1, 0]]
    assert "split test" in told["hf:org/good test"]
    assert "doesn't exist on the Hub" in told["hf:org/gone None"]
    assert "gated" in told["hf:org/gated None"]
    assert "could not be loaded" in told["hf:org/broken None"]
