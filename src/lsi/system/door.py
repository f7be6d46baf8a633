"""The one door for bytes from outside: data, archives, pictures, encoders, and files of our own kinds.

Whoever reads a file that others may have made goes through here, so that three things hold everywhere:

* *Regular files only.* A pipe, a socket or a device would never end; a link may not leave its folder.
* *Counted before it is decoded.* What a file says it will become (`charge`) or turns out to become
  (`Counted`) is held against a share of `budget()`: a small file cannot fill the memory.
* *The message names the file and the cure.* Budgets are shares of what the machine has, and `LSI_MEMORY`
  raises them.

`LIMITS` is all of them; docs/explanation/reliability.md shows the same table.
"""

from __future__ import annotations

import bz2
import errno
import functools
import gzip
import io
import json
import lzma
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from lsi.errors import InputError
from lsi.system.machine import available_memory
from lsi.system.text import parse_size, plain_text

VARIABLE = "LSI_MEMORY"
"""Environment variable that sets the budget, as ``LSI_MEMORY=8GiB``; otherwise it is half of what is free."""
_UNKNOWN = 4 << 30  # where the system does not tell: half of a small laptop's memory


@dataclass(frozen=True)
class Limit:
    """How much of something from outside is let in.

    Attributes:
        what: What is counted, as the documentation says it.
        value: A count, or bytes; for a `share`, the divisor of the budget.
        why: Where the figure comes from.
        share: Whether the limit is the budget divided by `value`.
    """

    what: str
    value: int
    why: str
    share: bool = False

    def bytes(self) -> int:
        """Return the limit: as it is, or the share of the budget."""
        return budget() // self.value if self.share else self.value

    def text(self) -> str:
        """Return the limit as the documentation says it."""
        if not self.share:
            return f"{self.value:,}"
        return "all of the budget" if self.value == 1 else f"1/{self.value} of the budget"


LIMITS = {
    "held": Limit(
        "arrays, columns and rows that are held in memory, as they are after decoding", 1,
        "half of the free memory is left for the run itself", share=True,
    ),
    "grown": Limit(
        "the same, where they are more than 20 times as large as the file and more than 64 MB", 8,
        "features of zeros may shrink a thousandfold, and so do bombs", share=True,
    ),
    "item": Limit(
        "one picture or recording, decoded, with the copies that decoding makes", 4,
        "one large item is decoded at a time, beside a chunk of small ones", share=True,
    ),
    "chunk": Limit(
        "pictures and recordings that are decoded at the same time by one thread", 64,
        "up to eight threads decode, each with copies: together less than the budget", share=True,
    ),
    "batch": Limit(
        "rows of a table that are decoded at the same time", 16,
        "a batch and its copies stay far below the budget", share=True,
    ),
    "page": Limit(
        "a page of Parquet, or a compressed batch of Arrow", 4,
        "it is unpacked as a whole: one value of it may be as large as an item", share=True,
    ),
    "text": Limit(
        "a file of text or JSON that is read as a whole", 32,
        "`[{},{},…]` takes 25 times its bytes as Python objects", share=True,
    ),
    "pixels": Limit(
        "pixels of a picture", 89_478_485, "Pillow's own bound; the largest cameras make 60 million",
    ),
    "columns": Limit(
        "columns of a table", 100_000,
        "readers keep a few kilobytes for each; gene expression has 60,000",
    ),
    "inflation": Limit(
        "times that an archive or compressed file grows", 20,
        "pictures and floats hardly shrink: CIFAR's archives grow 1.1 times, idx files 3 times",
    ),
    "small": Limit(
        "bytes that it may become whatever its size", 64 << 20, "small files of zeros are honest",
    ),
    "archive": Limit(
        "bytes of an archive of a published dataset", 2 << 30, "the largest has 170 million; its sum is taken"
    ),
    "members": Limit(
        "members of an archive", 500_000, "a tenth of a million files is the largest published folder"
    ),
    "member": Limit(
        "bytes of one member of an archive", 1 << 30, "the largest in CIFAR's archives has 155 million"
    ),
    "modules": Limit(
        "modules of an encoder", 5_000, "the largest encoders of transformers have under 2,000"
    ),
    "config": Limit(
        "bytes of an encoder's settings", 16 << 20, "21,000 class names take 1.5 million"
    ),
}  # fmt: skip
"""Every limit of the door by its name in the code."""


class Refused(InputError):
    """Something that the door does not let in."""


def budget() -> int:
    """Return how many bytes decoded things may take: what `VARIABLE` says, or half of the free memory."""
    if given := os.environ.get(VARIABLE):
        try:
            return cast(int, parse_size(given))
        except InputError:
            raise Refused(f"{VARIABLE}={given!r} is no size. Write it like {VARIABLE}=8GiB.") from None
    return _free(int(time.monotonic())) // 2


@functools.lru_cache(maxsize=1)
def _free(second: int) -> int:
    """Return the free memory, asked for once a second: a decoder of small pictures asks very often."""
    return available_memory() or 2 * _UNKNOWN


def charge(needed: int, what: str, limit: str = "held", cure: str = "", stored: int | None = None) -> None:
    """Refuse `what` (such as ``"data.npz: 'y'"``) where it would take more bytes than the limit.

    Called before the bytes are decoded, with what they say that they will become; `stored` is what the file
    holds of them, where it is compressed.
    """
    if stored is not None and has_grown(needed, stored):
        limit = "grown"
    most = LIMITS[limit].bytes()
    if needed > most:
        raise Refused(
            f"{what} would take {_size(needed)}, and {_size(most)} are allowed. {cure}{_raise(limit)}"
        )


def has_grown(needed: int, stored: int) -> bool:
    """Return whether so many bytes are far more than the file that they are in."""
    return needed > most_unpacked(stored)


def _raise(limit: str) -> str:
    if not LIMITS[limit].share:
        return "If it is what it should be, make it smaller."
    part = LIMITS[limit].text().removesuffix(" of the budget")
    return (
        f"If that is right, raise the budget, of which this is {part}: {VARIABLE}=8GiB (otherwise it is half "
        "of the free memory)."
    )


def _size(count: int) -> str:
    for unit, shift in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**shift:
            return f"{count / 10**shift:,.1f} {unit}" if count < 10**15 else f"{count / 10**9:.1e} GB"
    return f"{count:,} bytes"


# Files


def require_regular(path: Path) -> os.stat_result:
    """Refuse what is no regular file: a pipe or a device would never end. Return what the system says."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise Refused(f"{_name(path)} cannot be opened: {_reason(error)}.") from error
    _check_regular(path, found)
    if not os.access(path, os.R_OK):
        raise Refused(f"{_name(path)} may not be read. Change its permissions or copy it.")
    return found


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading bytes; nothing else is opened, even where it takes a file's place."""
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        handle = os.open(path, flags)  # without waiting: opening a pipe waits for a writer
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENXIO:  # a socket
            raise Refused(_not_regular(path, stat.S_IFSOCK)) from error
        raise Refused(f"{_name(path)} cannot be opened: {_reason(error)}.") from error
    try:
        _check_regular(path, os.fstat(handle))
    except Refused:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, limit: str = "held") -> bytes:
    """Return the content of a regular file that is no larger than the limit."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        charge(size, _name(path), limit)
        return file.read(size)  # files of the system state no size, and reading them may wait for ever


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a regular file."""
    return read_bytes(path, "text").decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, limit: str = "text") -> Any:
    """Return the value in a JSON file; raises `ValueError` where it is no JSON, or too deeply nested."""
    try:
        return json.loads(read_bytes(path, limit))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def inside(path: Path, root: Path) -> Path:
    """Refuse a path that leaves the folder `root` through a link or ``..``; return it."""
    home = _home(root)
    real = Path(os.path.realpath(path))
    if real != home and home not in real.parents:
        raise Refused(
            f"{_name(path)} leads out of its folder, to {_name(real)}: it is a link, and links are followed "
            f"only inside of {_name(root)}. Put a copy in its place, as `cp -rL` does for a folder."
        )
    return path


def _home(root: Path) -> Path:
    """Return the folder that links may not leave; in the hub's cache, snapshots are links to blobs."""
    real = Path(os.path.realpath(root))
    parts = real.parts
    for place in range(len(parts) - 1, 0, -1):
        if parts[place] == "snapshots" and parts[place - 1].startswith(("models--", "datasets--")):
            return Path(*parts[:place])
    return real


def readable_name(name: str) -> str:
    r"""Return a file's name as text that can be stored and shown: bytes that are no UTF-8 are written out.

    Examples:
        >>> readable_name("caf\udce9.png")
        'caf\\udce9.png'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def _check_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Refused(_not_regular(path, found.st_mode))
    if found.st_dev in _of_the_system():  # plain files by name, some of which never end
        raise Refused(
            f"{_name(path)} is a file of the system, no plain file. Copy what it holds into a file."
        )


@functools.cache
def _of_the_system() -> frozenset[int]:
    """Return the devices of the file systems in which the kernel shows itself."""
    return frozenset(os.stat(place).st_dev for place in ("/proc", "/sys") if os.path.ismount(place))


def _not_regular(path: Path, mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }  # fmt: skip
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    return f"{_name(path)} is {kind}, no plain file. Copy what it holds into a file."


def _name(path: Path) -> str:
    return plain_text(readable_name(str(path)), 300)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


# What is compressed


class Counted(io.RawIOBase):
    """A stream that ends in a `Refused` before it has given more bytes than `most`."""

    def __init__(self, stream: Any, file: BinaryIO, most: int, what: str) -> None:
        self._stream, self._file, self._left, self._most, self._what = stream, file, most, most, what

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the stream and the limit go."""
        part = self._stream.read(min(len(buffer), 1 << 20))
        self._left -= len(part)
        if self._left < 0:
            raise Refused(
                f"{self._what} unpacks to more than {_size(self._most)}, far more than a file of its size "
                "should (a bomb). Get it from its publisher again."
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Close the stream and the file inside too."""
        self._stream.close()
        self._file.close()
        super().close()


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file; what gzip, bzip2 or xz compressed is unpacked, as far as `most_unpacked` allows."""
    file = open_regular(path)
    magic = file.read(6)
    file.seek(0)
    stream: Any = file
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=file)
    elif magic.startswith(b"BZh"):
        stream = bz2.BZ2File(file)
    elif magic.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        # The header states a dictionary of up to 4 GiB, which is made before the first byte is unpacked.
        stream = _Lzma(file)
    most = most_unpacked(os.fstat(file.fileno()).st_size)
    return cast(BinaryIO, io.BufferedReader(Counted(stream, file, most, _name(path)), 1 << 16))


def most_unpacked(size: int) -> int:
    """Return how many bytes an archive of `size` bytes may become."""
    return LIMITS["inflation"].value * size + LIMITS["small"].value


class _Lzma:
    """The bytes in an xz file, with a bound on the memory that unpacking takes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=256 << 20)

    def read(self, size: int) -> bytes:
        """Return some bytes, at most `size`; none at the end."""
        while not self._decoder.eof:
            given = self._file.read(1 << 16) if self._decoder.needs_input else b""
            if not given and self._decoder.needs_input:
                raise EOFError("the file is shorter than it states")
            if found := self._decoder.decompress(given, size):
                return found
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file in a folder and its sub-folders, each regular and inside of the folder."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = inside(Path(place) / name, folder)
            require_regular(path)
            yield path
