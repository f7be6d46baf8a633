"""A trained probe that commands ask: of a folder of `lsi fit`, or of scores, whose data are read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.options import EncoderOptions, MachineOptions
from lsi.errors import InputError

if TYPE_CHECKING:
    from lsi.cli.job import Job
    from lsi.data.options import SourceOptions
    from lsi.data.preparation.plan import TablePreparation
    from lsi.fitted.fitted import Fitted
    from lsi.results.marks import Mark

_SETTINGS = ("probe", "posterior", "method", "prior_precision", "seed", "device", "memory")
"""Settings of a job that training takes."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained probe and where it came from.

    Attributes:
        fitted: The probe.
        folder: Where it came from.
        mark: What that folder says about itself.
        preparation: How the table of its data was prepared, where that is known already.
    """

    fitted: Fitted
    folder: Path
    mark: Mark
    preparation: TablePreparation | None = None

    @property
    def notes(self) -> Mapping[str, Any]:
        """What is known about the data: source, encoder, names of features, and the command's options."""
        return self.fitted.run.notes

    @property
    def from_scores(self) -> bool:
        """Whether the folder holds scores, and the probe was trained again."""
        from lsi.results.marks import SCORES

        return self.mark.kind == SCORES

    @property
    def options(self) -> SourceOptions:
        """How the data of the probe are read."""
        from lsi.data import SourceOptions

        return SourceOptions.restore((self.notes.get("source") or {}).get("options") or {})

    def marked(self, kind: str) -> Mark:
        """Return the mark of a file that is made from the probe."""
        from lsi.results.marks import VERSION
        from lsi.system.versions import __version__

        scores = str(self.folder) if self.from_scores else None
        return replace(
            self.mark, kind=kind, version=VERSION, lsi_version=__version__, scores=scores, columns={}
        )


def trained(
    folder: Path, encoder: EncoderOptions, memory: str | None = None, *, quiet: bool = False
) -> Trained:
    """Return the probe of a folder that `lsi fit` or `lsi compute` wrote.

    A typed encoder goes before that of the folder, which may not name a function.
    """
    from lsi.fitted.training import load_fitted
    from lsi.results.marks import SCORES, read_mark

    mark = read_mark(folder)
    if mark is not None and mark.kind == SCORES and folder.is_dir():
        return _again(folder, mark, encoder, memory, quiet)
    fitted = load_fitted(folder, memory=memory)
    assert mark is not None  # else there was nothing to load
    return Trained(fitted, folder, mark)


def train(job: Job) -> Fitted:
    """Train the probe of a job, and note what a command knows about its data."""
    from lsi.cli.job import notes_of
    from lsi.fitted.training import fit_problem

    names = job.samples.feature_names
    notes = notes_of(job) | ({} if names is None else {"feature_names": list(names)})
    return fit_problem(job.problem, notes, **{name: job.settings[name] for name in _SETTINGS})


def refuse_own_scale(data: Any) -> None:
    """Refuse options that change features by what the whole dataset holds."""
    if data.standardise or data.pca is not None:
        raise InputError(
            "--standardise, --pca: new rows would need the same scale and components, which a trained probe "
            "does not keep. Change the features in the file itself."
        )


def _again(folder: Path, mark: Mark, encoder: EncoderOptions, memory: str | None, quiet: bool) -> Trained:
    """Train the probe of scores again, on the data that they were made from."""
    from lsi.cli.job import prepare

    options = _options(folder, encoder)
    data = options["data"]
    refuse_own_scale(data)
    machine = MachineOptions(memory=memory)
    probe, method = options["probe"], options["method"]
    job = prepare(data, options["encoder"], options["corruption"], probe, method, machine, quiet=quiet)
    if mark.dataset_fingerprint not in (None, job.read):
        raise InputError(
            f"{job.samples.name} has changed since it was scored, so the probe of {str(folder)!r} cannot be "
            "trained again. Score it again, or keep a probe with `lsi fit`."
        )
    job.extra["command"] = options["command"]
    return Trained(train(job), folder, mark, job.samples.preparation)


def _options(folder: Path, encoder: EncoderOptions) -> dict[str, Any]:
    """Return the options of the command that made scores, in their groups."""
    from cyclopts import App

    from lsi.cli.compute import compute
    from lsi.cli.inputs.options_file import arguments_of, checked
    from lsi.cli.inputs.recall import words_of
    from lsi.scores import load

    manifest = load(folder).manifest
    command = manifest.get("command")
    if not isinstance(command, dict) or manifest.get("task") == "contrastive":
        raise InputError(
            f"the scores in {str(folder)!r} do not say how their probe is trained again: they were made in "
            "Python, or of pairs. Train one with `lsi fit`, or `Fitted.save` in Python, and give its folder."
        )
    app = App(default_command=compute)
    # Scores may come from anyone: where features are kept, only the command line says.
    ours = {"cache-dir", *(() if encoder.encoder is None else ("encoder",))}
    known = {name: value for name, value in command.items() if name not in ours}
    found = checked(folder, known, arguments_of(app))
    _, bound, _ = app.parse_args(words_of(found), exit_on_error=False, print_error=False)
    bound.apply_defaults()
    options = {**bound.arguments, "command": command}
    typed = {name: value for name, value in vars(encoder).items() if value != getattr(EncoderOptions(), name)}
    options["encoder"] = replace(options["encoder"], **typed)
    return options
