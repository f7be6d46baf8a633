"""Archives, found in a folder or downloaded; a download that is not what was published is refused."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lsi.data.options import SourceOptions
from lsi.errors import InputError, OutputError
from lsi.system.door import LIMITS, charge, most_unpacked, open_regular, open_unpacked, require_regular
from lsi.system.machine import cache_folder
from lsi.system.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT = 30
MOST_MEMBERS = LIMITS["members"].value


@dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes:
        name: File name.
        url: Where it is published.
        md5: Its published MD5; empty where there is none: the file is then never downloaded.
    """

    name: str
    url: str
    md5: str = ""


@dataclass(frozen=True)
class Found:
    """An archive on disk.

    Attributes:
        path: The file.
        digest: Its MD5.
        notes: What the user should know, such as that its checksum differs from the published one.
    """

    path: Path
    digest: str
    notes: tuple[str, ...] = ()


def locate(archive: Archive, options: SourceOptions) -> Found:
    """Find an archive in ``data_dir`` or among earlier downloads; else download it."""
    if options.data_dir is not None:
        if not options.data_dir.is_dir():
            raise InputError(
                f"--data-dir {options.data_dir} is not a folder. Name the folder of the archives."
            )
        for path in (options.data_dir / archive.name, *sorted(options.data_dir.glob(f"*/{archive.name}"))):
            if path.is_file():
                return _as_it_is(archive, path)
    if not archive.md5:
        raise InputError(
            f"{archive.name} has no published checksum, so it is not downloaded. Get it from {archive.url} "
            "and name its folder with --data-dir."
        )
    kept = cache_folder(options.cache_dir) / "downloads" / archive.name
    if kept.is_file() and md5_of(kept) == archive.md5:
        return Found(kept, archive.md5)
    _download(archive, kept, options.progress)
    return Found(kept, md5_of(kept))


def md5_of(path: Path) -> str:
    """Return the MD5 of a file: publishers state it; it does not protect against an attacker."""
    charge(require_regular(path).st_size, str(path), "archive")
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _as_it_is(archive: Archive, path: Path) -> Found:
    digest = md5_of(path)
    if archive.md5 in ("", digest):
        return Found(path, digest)
    note = f"{path.name} in --data-dir is not the published file (MD5 {digest}); it is read as it is."
    return Found(path, digest, (note,))


def _download(archive: Archive, target: Path, progress: Progress | None) -> None:
    cure = f"Put {archive.name} (from {archive.url}) into a folder and name it with --data-dir."
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = _copy(archive, part, progress)
        if digest != archive.md5:
            raise InputError(
                f"the download of {archive.name} is not the published file: MD5 {digest} instead of "
                f"{archive.md5}. It was thrown away. Try again. {cure}"
            )
        os.replace(part, target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{archive.name} could not be downloaded ({reason}). {cure}") from error
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}. {cure}") from error
    finally:
        with suppress(OSError):  # after a success it is gone already
            part.unlink()


def _copy(archive: Archive, part: Path, progress: Progress | None) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(archive.url, headers={"User-Agent": "laplace-sample-information"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, part.open("wb") as file:
        total, done = int(response.headers.get("Content-Length") or 0), 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None and total:
                progress(f"download {archive.name}", done, total)
        if total and done < total:
            raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
    return digest.hexdigest()


def unpack(found: Found, folder: Path, most_members: int = MOST_MEMBERS) -> Path:
    """Unpack an archive completely or not at all."""
    if folder.is_dir():
        return folder
    staging = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        staging.mkdir(parents=True)
        with open_tar(found.path) as archive:
            members = plain_members(archive, found.path, most_members)
            archive.extractall(staging, members=members, filter="data")
        os.replace(staging, folder)
    except InputError:
        raise
    except tarfile.FilterError as error:
        raise InputError(
            f"{found.path.name} was not unpacked: it holds a path or link out of its folder ({error}). "
            "Get the archive from its publisher again."
        ) from error
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError, MemoryError) as error:
        raise InputError(
            f"{found.path.name} is damaged ({error}). Get it from its publisher again."
        ) from error
    except OSError as error:
        if not folder.is_dir():  # otherwise another process has unpacked it meanwhile
            raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def plain_members(
    archive: tarfile.TarFile, path: Path, most: int = MOST_MEMBERS
) -> Iterator[tarfile.TarInfo]:
    """Yield files and folders; raise at links, devices and bombs, which no dataset needs."""
    room = most_unpacked(path.stat().st_size)
    for count, entry in enumerate(archive, start=1):
        if not (entry.isreg() or entry.isdir()):
            raise InputError(
                f"{path.name} was not unpacked: {entry.name!r} is a link or a device, through which files "
                "could leave the folder. Get the archive from its publisher again."
            )
        room -= entry.size
        if room < 0 or count > most or entry.size > LIMITS["member"].value:
            raise InputError(
                f"{path.name} was not unpacked: it holds far more than an archive of its size should (a "
                "bomb). Get the archive from its publisher again."
            )
        yield entry


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive of any compression, to be read from front to back."""
    with open_unpacked(path) as content:
        try:
            archive = tarfile.open(fileobj=content, mode="r|")
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, MemoryError) as error:
            raise InputError(f"{path} is not a readable tar archive ({error}). Get it again.") from error
        with archive:
            yield archive


def member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> BinaryIO:
    """Open a file inside an archive; nothing is written to disk."""
    file = archive.extractfile(entry) if entry.isreg() else None
    if file is None or entry.size > LIMITS["member"].value:
        raise InputError(
            f"{entry.name} in the archive is not a plain file, or is too large. Get the archive again."
        )
    return file  # type: ignore[return-value]
