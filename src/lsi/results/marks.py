"""What a file of this library says about itself: written and read here, and nowhere else.

A mark names the kind of a file, the version of its format and of the library, the run behind it, and the data
it speaks of. It stands inside the file, so that it survives copying, renaming and a spreadsheet:

* JSON: fields of the outermost object, `format` first.
* Parquet: an entry of the schema's metadata.
* CSV: the last cell of the header, so that every reader of tables still reads the file.
* Text and HTML: the first line, and a meta element.
* NPY: a line after the array, which numpy does not look at.
* Folders: the JSON file that describes them.

A file without a mark is none of ours, or older than marks; what it is, only its owner can say.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pyarrow as pa

from lsi.errors import InputError
from lsi.system.door import Refused, open_regular, read_bytes
from lsi.system.versions import __version__

SCORES, CHECKPOINT = "laplace-sample-information scores", "lsi-checkpoint"
TABLE, SELECTION, SUSPECTS, DECISIONS = "lsi-scores", "lsi-selection", "lsi-suspects", "lsi-decisions"
SENSITIVITY, REPORT, RECEIPT = "lsi-sensitivity", "lsi-report", "lsi-receipt"
CONSENSUS = "lsi-consensus"
FITTED, CANDIDATES = "lsi-fitted", "lsi-candidates"
EXPLANATION = "lsi-explanation"
GROUPS = "lsi-groups"
NOUNS = {
    SCORES: "a folder of scores",
    TABLE: "a table of scores",
    SELECTION: "a selection, which lists what to keep",
    SUSPECTS: "a list of suspects, whose labels may be wrong",
    DECISIONS: "decisions",
    CONSENSUS: "labels on which annotators agree",
    SENSITIVITY: "a table of how ranks depend on settings",
    REPORT: "a report",
    GROUPS: "a table of what groups of samples are worth",
    EXPLANATION: "a table of which rows made which answers",
    RECEIPT: "the receipt of a cleaned dataset",
    CHECKPOINT: "finished blocks of a run",
    FITTED: "a trained probe, which `lsi fit` writes",
    CANDIDATES: "a list of candidates, which are not in the data",
}
"""What messages call each kind."""
VERSION = 1
COLUMNS = (
    "split", "label_column", "clean_label_column", "id_column", "group_column", "image_column", "text_column",
    "audio_column", "feature_columns", "label_columns", "prepare",
)  # fmt: skip
"""Options of a dataset that a mark repeats: texts, such as names of columns, never paths."""
_TEXTS = ("lsi_version", "run", "fingerprint", "dataset_fingerprint", "scores")
_KEY = b"lsi"
_DESCRIBING = ("manifest.json", "receipt.json", "run.json")
_LINE = re.compile(r"#(lsi-[a-z]+)\?([^\s,;\"'<>]*)")
_FIELD = re.compile(rb'\s*(?:\xef\xbb\xbf)?\s*\{\s*"format"\s*:\s*"')
_HEAD_BYTES = 1 << 16  # longest first line that is searched; a mark takes some 300 bytes


@dataclass(frozen=True)
class Mark:
    """What a file says about itself.

    Attributes:
        kind: One of `NOUNS`.
        version: Version of the kind's format.
        lsi_version: Version of the library that wrote the file.
        run: Digest of the run whose scores the file was made from: of its data, settings and versions.
        fingerprint: Fingerprint of the features and labels that were scored.
        dataset_fingerprint: Fingerprint of the dataset as it was read (`lsi.data.Samples.fingerprint`).
        scores: The folder of scores that the file was made from, as it was typed.
        columns: How the dataset was read: `COLUMNS` by name.
    """

    kind: str
    version: int = VERSION
    lsi_version: str | None = __version__
    run: str | None = None
    fingerprint: str | None = None
    dataset_fingerprint: str | None = None
    scores: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(manifest: Mapping[str, Any], kind: str, scores: str | None = None) -> Mark:
        """Return the mark of a file that is made from the scores with this manifest."""
        source, data = _mapping(manifest.get("source")), _mapping(manifest.get("data"))
        options = _mapping(source.get("options"))
        return Mark(
            kind,
            run=_run(manifest),
            fingerprint=_text(data.get("fingerprint")),
            dataset_fingerprint=_text(source.get("fingerprint")),
            scores=scores,
            columns={name: options[name] for name in COLUMNS if _is_name(options.get(name))},
        )

    @property
    def noun(self) -> str:
        """What messages call the file."""
        return f"{NOUNS.get(self.kind, 'another file of lsi')} ({self.kind})"

    def fields(self) -> dict[str, Any]:
        """Return the mark as fields of a JSON object."""
        known = {name: getattr(self, name) for name in _TEXTS if getattr(self, name)}
        columns = {"columns": dict(self.columns)} if self.columns else {}
        return {"format": self.kind, "version": self.version, **known, **columns}

    def line(self) -> str:
        """Return the mark as one line without commas, quotes and spaces."""
        known = {name: getattr(self, name) for name in _TEXTS if getattr(self, name)}
        return f"#{self.kind}?{urlencode({'version': self.version, **known, **self.columns}, doseq=True)}"

    def checked(self, path: Path) -> Mark:
        """Return the mark, or refuse a version that this installation does not read."""
        if self.version != VERSION:
            raise InputError(
                f"{str(path)!r} has version {self.version!r}; this installation reads version {VERSION}."
            )
        return self


def marked_table(table: pa.Table, mark: Mark) -> pa.Table:
    """Return an Arrow table that says what it is."""
    content = json.dumps(mark.fields(), sort_keys=True).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: content})


def meta_element(mark: Mark) -> str:
    """Return the element of an HTML page's head that says what the page is."""
    return f'<meta name="lsi" content="{html.escape(mark.line())}">'


def from_fields(content: Any) -> Mark | None:
    """Return the mark in the fields of a JSON object; None where there is none."""
    kind = content.get("format") if isinstance(content, Mapping) else None
    if not isinstance(kind, str) or kind not in NOUNS:
        return None
    columns, version = _mapping(content.get("columns")), content.get("version")
    texts = {name: content[name] for name in _TEXTS if isinstance(content.get(name), str)}
    return Mark(
        kind,
        version if isinstance(version, int) else -1,
        columns={name: columns[name] for name in COLUMNS if _is_name(columns.get(name))},
        **{"lsi_version": None, **texts},
    )


def from_line(text: str) -> Mark | None:
    """Return the mark in a line of text; None where there is none."""
    found = _LINE.search(text)
    if found is None:
        return None
    told = parse_qs(found[2], errors="replace")
    plain = {name: values if len(values) > 1 else values[0] for name, values in told.items()}
    version = plain.get("version", "")
    number = int(version) if isinstance(version, str) and version.isdecimal() and len(version) < 9 else -1
    return from_fields({**plain, "format": found[1], "version": number, "columns": plain})


def _run(manifest: Mapping[str, Any]) -> str | None:
    """Return the digest of what decides the scores: a run that was interrupted or divided has the same."""
    if not _mapping(manifest.get("config")):
        return None
    data = {key: value for key, value in _mapping(manifest.get("data")).items() if key != "n_scored"}
    what = [manifest.get(name) for name in ("task", "config", "versions")]
    return hashlib.sha256(json.dumps([*what, data], sort_keys=True).encode()).hexdigest()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _is_name(value: Any) -> bool:
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return all(isinstance(each, str) for each in value) if several else isinstance(value, str) and bool(value)


def read_mark(path: Path) -> Mark | None:
    """Return what a file or folder says about itself; None where it says nothing, or cannot be read.

    JSON that is too large to be read is refused: it might say something.
    """
    try:
        if path.is_dir():
            found = (read_mark(path / name) for name in _DESCRIBING if (path / name).is_file())
            return next(found, None)
        return _read_file(path) if path.is_file() else None
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        if isinstance(error, Refused) and path.suffix.lower() in ("", ".json"):
            raise
        return None


def _read_file(path: Path) -> Mark | None:
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
        if head.startswith(b"\x93NUMPY"):
            file.seek(max(0, file.seek(0, 2) - _HEAD_BYTES))
            tail = file.read().rpartition(b"\n#")[2]
            return from_line(f"#{tail.decode(errors='replace')}")
        if path.suffix.lower() == ".json" or _FIELD.match(head):  # tables of JSON lines may be large
            return from_fields(_json_mark(json.loads(read_bytes(path, "text").decode("utf-8-sig"))))
        if head.startswith(b"PAR1"):
            import pyarrow.parquet as pq

            metadata = pq.read_schema(file).metadata or {}
            return from_fields(json.loads(metadata[_KEY])) if _KEY in metadata else None
    text = head.decode("utf-8-sig", errors="replace")
    if text.lstrip()[:9].lower() == "<!doctype":
        element = re.search(r'<meta name="lsi" content="([^"]*)">', text)
        return from_line(html.unescape(element[1])) if element else None
    return from_line(text.splitlines()[0]) if text else None


def _json_mark(content: Any) -> Any:
    """Return the fields of a mark; the manifest of scores has them in places of its own."""
    if isinstance(content, Mapping) and content.get("format") == SCORES:
        made = Mark.of(content, SCORES).fields() | {"version": content.get("format_version")}
        return made | {"lsi_version": _mapping(content.get("versions")).get("lsi")}
    return content


def refuse_other(path: Path, mark: Mark | None, wanted: str) -> None:
    """Raise if a file says that it is something else than what a command takes."""
    if mark is not None:
        raise InputError(f"{str(path)!r} is {mark.noun}, not {wanted}.")
