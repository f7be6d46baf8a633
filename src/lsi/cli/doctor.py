"""``lsi doctor``: what is installed, what the machine can do, and whether a folder of scores is intact."""

from __future__ import annotations

import importlib.util
import json as to_json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lsi.errors import LsiError
from lsi.system.machine import available_memory
from lsi.system.text import plain_text
from lsi.system.versions import install_hint


class UnwellError(LsiError):
    """Something has to be repaired (exit code 1)."""


def doctor(
    scores: Path | None = None,
    /,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what is installed, what the machine can do, and whether a folder of scores is intact.

    Exit code 0: no problems; 1: there are some.

    Args:
        scores: Folder that `lsi compute --output` wrote. Default: none is checked.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        UnwellError: If there are problems.
    """
    health = examine(scores)
    if json:
        print(to_json.dumps(health.to_dict()))
    else:
        for line in _lines(health):
            print(plain_text(line, 1000))
    if health.problems:
        count = len(health.problems)
        raise UnwellError(f"{count} problem{'s' if count > 1 else ''} found.")


def _lines(health: Health) -> list[str]:
    from lsi.report.format import number

    machine = health.machine
    packages = ", ".join(f"{name} {found or 'missing'}" for name, found in health.versions.items())
    lines = [f"Installed: {packages}"]
    for name, extra in health.extras.items():
        lines.append(f"Extra {name}: {'complete' if extra['complete'] else extra['install']}")
    memory = machine["available_memory"]
    room = "an unknown amount" if memory is None else f"{memory / (1 << 30):.1f} GiB"
    lines += [
        f"Machine: {machine['system']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{room} of memory available",
        f"Products: {number(machine['float32_rate'] / 1e9)} GFLOP/s in float32, "
        f"{number(machine['float64_rate'] / 1e9)} in float64",
        f"GPUs: {', '.join(machine['gpus']) or 'none'}",
    ]
    if health.scores is not None and health.scores["readable"]:
        found = health.scores
        what = f"{found['rows']:,} rows, {found['task']}, {found['size'] / 1e6:.1f} MB"
        lines.append(f"Scores: {what}, {found['path']}")
    lines += [f"Remark: {remark}" for remark in health.remarks]
    lines += [f"Problem: {problem}" for problem in health.problems] or ["No problems found."]
    return lines


PACKAGE = "laplace-sample-information"
EXTRAS = {
    "report": {"jinja2": "jinja2", "pillow": "PIL"},
    "encoders": {
        "transformers": "transformers",
        "pillow": "PIL",
        "safetensors": "safetensors",
        "soundfile": "soundfile",
    },
    "onnx": {"onnxruntime": "onnxruntime"},
    "plot": {"matplotlib": "matplotlib"},
    "datasets": {"datasets": "datasets"},
    "ray": {"ray": "ray"},
}
"""Packages of each extra, and the modules that they install."""
CORE = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "rich", "cyclopts", "filelock")


@dataclass
class Health:
    """What was found.

    Attributes:
        versions: Versions of the library, Python and each core dependency; None: not installed.
        extras: For each extra the versions of its packages, and how to install what is missing.
        machine: Cores, threads, memory (bytes), product rates (operations per second), GPUs.
        scores: What the folder of scores holds; None where none was named.
        problems: What has to be repaired, one sentence each.
        remarks: What is worth knowing but no problem.
    """

    versions: dict[str, str | None] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def examine(scores: str | os.PathLike[str] | None = None) -> Health:
    """Look at the installation, the machine and, where one is named, a folder of scores."""
    health = Health()
    _packages(health)
    _extras(health)
    health.machine = _machine()
    if scores is not None:
        _scores(Path(scores), health)
    return health


def _packages(health: Health) -> None:
    health.versions = {"lsi": _version(PACKAGE), "python": platform.python_version()}
    health.versions |= {name: _version(name) for name in CORE}
    lowest = _lower_bounds()
    for name in CORE:
        found = health.versions[name]
        if found is None:
            health.problems.append(f"{name} is missing. Install again: {install_hint()}.")
        elif name in lowest and _numbers(found) < _numbers(lowest[name]):
            health.problems.append(
                f"{name} {found} is older than {lowest[name]}. Upgrade: pip install --upgrade {name}"
            )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lower_bounds() -> dict[str, str]:
    """Return the oldest supported version of each core dependency, as the package states them."""
    try:
        stated = [text for text in requires(PACKAGE) or [] if ";" not in text and ">=" in text]
    except PackageNotFoundError:
        return {}
    pairs = [text.split(",")[0].split(">=") for text in stated]
    return {name.strip(): bound.strip() for name, bound in pairs}


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (2, 4) of 2.4.0rc1+cpu, for comparison."""
    numbers: list[int] = []
    for part in text.partition("+")[0].split(".")[:3]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _extras(health: Health) -> None:
    for extra, packages in EXTRAS.items():
        missing = [name for name, module in packages.items() if importlib.util.find_spec(module) is None]
        hint = install_hint(extra) if missing else None
        found = {name: _version(name) for name in packages}
        health.extras[extra] = {"packages": found, "complete": not missing, "install": hint}


def _machine() -> dict[str, Any]:
    import torch

    from lsi.planning.cost import product_rate

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "threads": torch.get_num_threads(),
        "available_memory": available_memory(),
        "float32_rate": product_rate(torch.float32),
        "float64_rate": product_rate(torch.float64),
        "gpus": gpus,
    }


def _scores(path: Path, health: Health) -> None:
    """Check the values of a folder of scores; loading it checks files, checksum, format and manifest."""
    from lsi.scores import load

    try:
        scores = load(path)
    except LsiError as error:
        health.problems.append(str(error))
        health.scores = {"path": str(path), "readable": False}
        return
    table, manifest = scores.to_frame(), scores.manifest
    data = manifest.get("data") or {}
    health.scores = {
        "path": str(path),
        "readable": True,
        "rows": len(table),
        "task": scores.task,
        "created": manifest.get("created"),
        "written_by": (manifest.get("versions") or {}).get("lsi"),
        "audited": scores.audit is not None,
        "size": sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file()),
    }
    health.problems += _table_problems(table)
    expected = data.get("n_scored")
    if expected is not None and expected != len(table):
        health.problems.append(f"the table has {len(table):,} rows, and its manifest speaks of {expected:,}.")
    strange = sorted(entry.name for entry in path.iterdir() if entry.name not in _FILES)
    if strange:
        health.remarks.append(f"the folder holds other files too: {', '.join(map(repr, strange[:5]))}.")
    health.remarks += _audit_remarks(scores)


_FILES = ("manifest.json", "scores.parquet")


def _table_problems(table: Any) -> list[str]:
    import numpy as np

    found = []
    for name in ("lsi", "mean_term", "covariance_term"):
        values = table[name].to_numpy(dtype=np.float64)
        strange = int((~np.isfinite(values)).sum())
        if strange:
            found.append(f"{strange:,} values of {name} are not finite. Score these samples again.")
        below = int((values < 0).sum())
        if below:
            found.append(f"{below:,} values of {name} are negative, which no divergence is. Score again.")
    if not table["sample_id"].is_unique:
        found.append("a sample_id occurs twice. Score again with unique ids.")
    if not table["position"].is_unique:
        found.append("a position occurs twice. Score again.")
    parts = table["mean_term"] + table["covariance_term"]
    off = int((~np.isclose(parts, table["lsi"], rtol=1e-9, atol=0, equal_nan=True)).sum())
    if off:
        found.append(f"{off:,} values of lsi are not the sum of their two terms. Score again.")
    return found


def _audit_remarks(scores: Any) -> list[str]:
    if scores.audit is None:
        return ["these scores were not audited. Score with an audit to know how far they can be trusted."]
    remarks = [f"audit: {scores.audit.summary()}"]
    if scores.audit.broken:
        remarks.append("certificates are broken: some audited samples are further off than they say.")
    if scores.audit.spearman < 0.95:
        remarks.append("the audit found a rough approximation: treat single values with care.")
    return remarks
