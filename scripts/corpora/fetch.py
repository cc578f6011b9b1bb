"""Fetches one file of a corpus: resumed where it broke off, verified, never half.

Beside a file NAME lie NAME.partial while it is fetched, with NAME.partial.from (the address and the
ETag or date that the partial file belongs to); NAME.lock, empty; and NAME.sha256 where its sum was
not known beforehand: that of the first download, in the format of sha256sum, under its url.
"""

import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import IO, Optional, Tuple
from urllib.parse import unquote, urlsplit

from corpora.address import Address, ask, parse
from corpora.parallel import progress
from corpora.steps import sha256
from fairseq_admin.errors import UserError
from fairseq_admin.files import locked, whole_file, write, writing

TRIES = 5  # in a row that brought nothing new, before giving up
PAUSE = 1.0  # seconds before another try, doubled with each that brought nothing new
CHUNK = 1 << 20  # bytes read at once
OWN_ENDINGS = (".partial", ".from", ".lock", ".sha256")


@dataclass
class Source:
    """A file to fetch; its SHA-256 in hexadecimal and its size in bytes where they are known."""

    url: str
    sha256: Optional[str] = None
    size: Optional[int] = None


def file_name(url: str) -> str:
    """The last part of a *url*'s path, by which its file is kept."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def fetch(source: Source, folder: Path, mirror: Optional[str] = None) -> Path:
    """The file of *source* in *folder*, fetched if it is not there, verified either way. A *mirror*
    is an http, https or file address or a folder, under which the file lies by its name; then the
    host of the url is not asked.

    Raises:
        UserError: for an address that gives no such file, a file that is not what was expected,
            one that was changed since it was fetched, or a folder that cannot be written.
    """
    address = parse(source.url)
    name = file_name(source.url)
    if not re.fullmatch(r"\w[\w.+-]*", name, re.ASCII) or name.endswith(OWN_ENDINGS):
        raise UserError(f"{source.url}: no safe file name at its end")
    if mirror is not None:
        above = parse(mirror)
        address = above / name if isinstance(above, Path) else f"{above.rstrip('/')}/{name}"
    path = Path(folder) / name
    if not path.exists():
        with locked(path, "download"):
            if not path.exists():
                return _download(source, address, path)
    try:
        found = _sum(path, replace(source, sha256=_expected(source, path)))
    except ValueError as error:
        raise UserError(
            f"{path} {error}: it was changed after it was fetched, or never was the right file; "
            "remove it to fetch it again"
        ) from error
    _pin(source, path, found)
    with suppress(OSError):
        _beside(path, ".partial.from").unlink()  # of a process killed when the file was there
    return path


def _download(source: Source, address: Address, path: Path) -> Path:
    """Makes *path*, which is not there; the lock is held."""
    partial = _beside(path, ".partial")
    known = replace(source, sha256=_expected(source, path))
    _transfer(known, address, partial)
    try:
        found = _sum(partial, known)
    except ValueError as error:
        with writing(partial):
            partial.unlink()
        pinned = "" if source.sha256 else f" (of the first download, see {path}.sha256)"
        raise UserError(f"what {address} gave {error}{pinned}; it was removed") from error
    _pin(source, path, found)  # first: what looks finished has its sum
    with writing(path):
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        with suppress(FileNotFoundError):
            _beside(partial, ".from").unlink()
    return path


def _transfer(source: Source, address: Address, partial: Path) -> None:
    """Fills *partial*, in as many tries as it takes."""
    fruitless, furthest = 0, _length(partial)
    while True:
        try:
            return _continue(source, address, partial)
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
        reached = _length(partial)
        fruitless = 0 if reached > furthest else fruitless + 1
        furthest = max(furthest, reached)
        if fruitless == TRIES:
            raise UserError(
                f"{address}: {reason}; {TRIES} tries in a row brought nothing new, {reached} bytes "
                "are there: run this again to go on, or give a mirror"
            )
        pause = PAUSE * 2**fruitless
        told = f"{address}: {reason}; {reached} bytes are there, next try in {pause:g} s"
        print(told, file=sys.stderr, flush=True)
        time.sleep(pause)


def _continue(source: Source, address: Address, partial: Path) -> None:
    """One try to fill *partial*. Raises OSError or HTTPException where another may do better."""
    size, (have, validator) = source.size, _resumable(address, partial)
    if have and have == size:
        return
    reply = ask(address, have, validator)
    with reply.stream:
        if None not in (size, reply.total) and size != reply.total:
            raise UserError(f"{address} has {reply.total} bytes, expected {size}")
        if not reply.has_end and size is None and source.sha256 is None:
            raise UserError(f"{address} does not tell its length: give its sha256 or its size")
        if reply.start == 0:
            with writing(partial):
                partial.write_bytes(b"")  # first: no bytes of another file under the new origin
            with whole_file(_beside(partial, ".from")) as file:
                file.write(f"{address}\n{reply.validator}\n")
        total = size if reply.total is None else reply.total
        done = _copy(reply.stream, partial, reply.start, total)
    if total is not None and done < total:
        raise ConnectionError(f"broke off at byte {done} of {total}")


def _copy(stream: IO[bytes], partial: Path, start: int, total: Optional[int]) -> int:
    """Appends the rest of *stream* to *partial*; the bytes that are there then."""
    done = start
    with writing(partial):
        file = open(partial, "ab", buffering=0)  # noqa: SIM115  closed below
    how = {"initial": start, "total": total, "unit": "B", "unit_scale": True}
    with file, progress(partial.stem, **how) as show:
        for data in iter(lambda: stream.read1(CHUNK), b""):
            with writing(partial):
                write(file, data)
            done += len(data)
            show(done)
    return done


def _beside(path: Path, ending: str) -> Path:
    """PATH.partial, PATH.partial.from or PATH.sha256, see above."""
    return path.with_name(f"{path.name}{ending}")


def _resumable(address: Address, partial: Path) -> Tuple[int, str]:
    """How many bytes of *partial* can stay, and the validator of the file that they are of."""
    try:
        origin = _beside(partial, ".from").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return 0, ""
    if len(origin) != 2 or origin[0] != str(address) or not origin[1]:
        return 0, ""
    return _length(partial), origin[1]


def _length(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _sum(path: Path, source: Source) -> str:
    """The SHA-256 of *path*. Raises ValueError, what is wrong, for a file that is no *source*."""
    try:
        length = path.stat().st_size
        if source.size not in (None, length):
            raise ValueError(f"has {length} bytes, expected {source.size}")
        found = sha256(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if source.sha256 not in (None, found):
        raise ValueError(f"has SHA-256 {found}, expected {source.sha256}")
    return found


def _expected(source: Source, path: Path) -> Optional[str]:
    """The sum that *path* must have; None if it is the first of this source."""
    if source.sha256 is not None:
        if not re.fullmatch(r"[\da-fA-F]{64}", source.sha256):
            raise UserError(f"{source.url}: {source.sha256} is no SHA-256")
        return source.sha256.lower()
    try:
        line = _beside(path, ".sha256").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}.sha256: {error}") from error
    parsed = re.fullmatch(r"(?:# (.*)\n)?([\da-f]{64}) [ *](.*)\n?", line)
    if not parsed or parsed[3] != path.name:
        raise UserError(f"{path}.sha256 is damaged: remove it to trust the file as it is now")
    if parsed[1] not in (None, source.url):
        raise UserError(
            f"{path} was fetched from {parsed[1]}, not from {source.url}: remove it and "
            f"{path.name}.sha256 to fetch it anew"
        )
    return parsed[2]


def _pin(source: Source, path: Path, found: str) -> None:
    """Keeps the sum *found* where none was known."""
    if source.sha256 is None and not _beside(path, ".sha256").exists():
        with whole_file(_beside(path, ".sha256")) as file:
            file.write(f"# {source.url}\n{found}  {path.name}\n")
