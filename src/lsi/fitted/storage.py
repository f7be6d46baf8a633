"""A fitted object on disk: a folder of plain arrays and `manifest.json`, written as a whole or not at all.

The manifest says what the folder is, the settings, and the digest of every array, so that damage and
exchanged files are noticed. Features that are read from a file (memory-mapped) are copied, and mapped again
on loading. Nothing is pickled.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from lsi.errors import InputError
from lsi.methods import Newton
from lsi.pipeline import check_device, check_settings
from lsi.probes.linear import LinearProbe
from lsi.probes.ridge import RidgeProbe
from lsi.probes.sigmoid import SigmoidProbe
from lsi.results.marks import FITTED, VERSION, Mark, read_mark, refuse_other
from lsi.run.context import Clock, Run
from lsi.run.manifest import fingerprint
from lsi.system.digests import digest_values
from lsi.system.door import inside, read_json
from lsi.system.drafts import tidy
from lsi.system.files import Content, PathLike, check_folder, replace_folder
from lsi.system.machine import Machine, expand
from lsi.system.npy import load_npy
from lsi.system.text import parse_size
from lsi.system.versions import versions
from lsi.tasks import task_of
from lsi.tasks.storing import INVERSE, parts_of, restored
from lsi.validation.labels import object_array
from lsi.validation.problem import Problem, labels_of

MANIFEST_FILE = "manifest.json"
PROBES = {"linear": LinearProbe, "sigmoid": SigmoidProbe, "ridge": RidgeProbe}
ARRAYS = ("features", "target", "sample_id", "theta", "basis", *INVERSE)
"""Every array that a folder may hold, each in a file of its name."""
_OVERHEAD_BYTES = 1 << 20
_STORABLE = (str, bool, int, float)
"""Types that JSON gives back as they were."""


def check_output(path: PathLike, overwrite: bool = False, needed: int = 0) -> Path:
    """Refuse a folder to which a fitted object cannot be written; called before any work is done."""
    return check_folder(expand(path), "fitted objects", _is_ours, overwrite, _OVERHEAD_BYTES + needed)


def _is_ours(folder: Path) -> bool:
    """Return whether a folder holds a fitted object and nothing else."""
    known = {MANIFEST_FILE, *(f"{name}.npy" for name in ARRAYS)}
    mark = read_mark(folder)
    return mark is not None and mark.kind == FITTED and set(os.listdir(folder)) <= known


def write_fitted(path: PathLike, run: Run, method: Newton, overwrite: bool) -> Path:
    """Write a fitted object into a folder."""
    problem = run.problem
    described = _described(run, method)
    arrays, told = parts_of(run.fitted)
    arrays |= {"features": problem.features, "target": problem.target}
    if problem.sample_id.dtype != object:
        arrays["sample_id"] = problem.sample_id
    target = check_output(path, overwrite, sum(array.nbytes for array in arrays.values()))
    digests = {name: digest_values(array) for name, array in arrays.items() if name != "features"}
    manifest = {
        **Mark.of({**run.notes, "data": {"fingerprint": fingerprint(problem)}}, FITTED).fields(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        **described,
        "fit": told,
        "arrays": digests,
        "mapped": isinstance(problem.features, np.memmap),
        "timings": run.clock.seconds,
        "notes": run.notes,
    }
    files: dict[str, Content] = {f"{name}.npy": _writer(array) for name, array in arrays.items()}
    files[MANIFEST_FILE] = (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()
    replace_folder(target, files, "fitted objects", _is_ours)
    return target


def _writer(array: np.ndarray) -> Any:
    def write(file: BinaryIO) -> None:
        np.save(file, array, allow_pickle=False)

    return write


def _described(run: Run, method: Newton) -> dict[str, Any]:
    """Return settings, labels and ids as JSON values."""
    probe, problem = run.probe, run.problem
    if type(probe) not in PROBES.values():
        kind = type(probe).__name__
        raise InputError(
            f"A probe of the class {kind} cannot be saved. Use lsi.LinearProbe, SigmoidProbe or RidgeProbe."
        )
    settings = probe.describe()
    if isinstance(settings.get("class_weight"), Mapping):  # by place: JSON's keys are text
        settings["class_weight"] = [float(probe.class_weight[label]) for label in problem.classes]
    ids = problem.sample_id.tolist() if problem.sample_id.dtype == object else None
    return {
        "config": {
            "probe": settings,
            "posterior": run.posterior,
            "method": method.describe(),
            "prior_precision": run.prior_precision,
            "seed": run.seed,
        },
        "classes": _storable(problem.classes.tolist(), "labels"),
        "outputs": list(problem.outputs),
        "sample_id": None if ids is None else _storable(ids, "ids"),
    }


def _storable(values: list[Any], what: str) -> list[Any]:
    """Return labels or ids, or refuse those that would not come back as they are."""
    others = {type(value).__name__ for value in values if type(value) not in _STORABLE}
    if others:
        raise InputError(
            f"{what} of the type {', '.join(sorted(others))} cannot be saved. Fit again with text or numbers."
        )
    return values


def read_fitted(path: PathLike, device: Any = None, memory: Any = None) -> tuple[Run, Newton]:
    """Read what `write_fitted` wrote."""
    folder = expand(path)
    manifest = _manifest(folder)
    try:
        return _restored(folder, manifest, device, parse_size(memory))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, _Unfit):
            raise InputError(str(error)) from error
        said = "" if isinstance(error, InputError) else f"{MANIFEST_FILE} lacks or misstates "
        raise InputError(
            f"The fitted object in {os.fspath(folder)!r} is damaged: {said}{error}. Restore the folder from "
            "a copy, or fit again."
        ) from error


class _Unfit(InputError):
    """What this machine or the caller's settings do not allow, whatever the folder holds."""


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        tidy(folder.absolute().parent)  # a process that died while it replaced them may have moved them away
    wanted = "a folder with a fitted object, which Fitted.save or `lsi fit` writes"
    mark = read_mark(folder)
    if mark is not None and mark.kind != FITTED:
        refuse_other(folder, mark, wanted)
    if mark is None or not folder.is_dir():
        what = "is not" if folder.exists() else "does not exist: pass"
        raise InputError(f"{os.fspath(folder)!r} {what} {wanted}.")
    if mark.version != VERSION:
        raise InputError(
            f"The fitted object in {os.fspath(folder)!r} has version {mark.version!r}; this installation "
            f"reads version {VERSION}. Fit again, or install the lsi that wrote it ({mark.lsi_version})."
        )
    found: dict[str, Any] = read_json(folder / MANIFEST_FILE)
    return found


def _restored(folder: Path, manifest: dict[str, Any], device: Any, memory: int | None) -> tuple[Run, Newton]:
    config = manifest["config"]
    arrays = _arrays(folder, manifest)
    features = _array(folder, "features", mapped=manifest["mapped"] is True)
    classes = manifest["classes"]
    probe, method = _probe(dict(config["probe"]), classes), _method(dict(config["method"]))
    check_settings(probe, config["posterior"], method, config["prior_precision"], True)
    given, target = manifest["sample_id"], arrays.pop("target")
    ids = arrays.pop("sample_id") if given is None else object_array(list(given))
    task = task_of(probe)
    if classes and not (target.dtype.kind == "i" and ((target >= 0) & (target < len(classes))).all()):
        raise InputError("target.npy holds no class codes")
    y = labels_of(target, object_array(classes), manifest["outputs"])
    problem = task.problem(features, y, sample_id=ids)
    _check_data(problem, manifest, target)
    place = _device(device or task.device)
    seed, prior = int(config["seed"]), float(config["prior_precision"])
    clock, machine = Clock(), Machine(place, memory)
    run = Run(problem, probe, config["posterior"], prior, True, seed, machine, clock)
    run.notes.update(manifest["notes"])
    run = replace(run, fitted=restored(run, method, arrays, manifest["fit"]))
    clock.seconds = {str(name): float(value) for name, value in manifest["timings"].items()}
    return run, method


def _device(device: Any) -> torch.device:
    try:
        return check_device(device)
    except InputError as error:
        raise _Unfit(str(error)) from error


def _arrays(folder: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays that the manifest names, apart from the features, each with the digest it says."""
    found = {}
    for name, digest in manifest["arrays"].items():
        if name not in ARRAYS:
            raise InputError(f"{MANIFEST_FILE} names an array that is not known")
        found[name] = _array(folder, name)
        if digest_values(found[name]) != digest:
            raise InputError(f"{name}.npy is not what {MANIFEST_FILE} says")
    return found


def _array(folder: Path, name: str, mapped: bool = False) -> np.ndarray:
    return load_npy(inside(folder / f"{name}.npy", folder), mapped=mapped)


def _probe(settings: dict[str, Any], classes: list[Any]) -> Any:
    kind = PROBES[settings.pop("kind")]
    if isinstance(settings.get("class_weight"), list):
        settings["class_weight"] = dict(zip(classes, settings["class_weight"], strict=True))
    return kind(**settings)


def _method(settings: dict[str, Any]) -> Newton:
    known = {field.name for field in fields(Newton)}
    return Newton(**{name: value for name, value in settings.items() if name in known})


def _check_data(problem: Problem, manifest: Mapping[str, Any], target: np.ndarray) -> None:
    """Refuse features and labels that are not those of the fit."""
    same = problem.classes.tolist() == manifest["classes"] and np.array_equal(problem.target, target)
    if not same or fingerprint(problem) != manifest["fingerprint"]:
        raise InputError("features or labels are not those that the probe was trained on")
