"""Takes files out of an archive, whole or not at all."""

import difflib
import gzip
import json
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Optional, Sequence, Set, Tuple

from fairseq_admin.errors import UserError
from fairseq_admin.files import locked, partial_of, whole_folder, write, writing
from fairseq_admin.text import read_json

CHUNK = 1 << 20  # bytes in memory at once
STAMP = ".extracted.json"  # in the folder: what it was made of
LONGEST_LINK = 4096  # bytes of a path, Linux's PATH_MAX
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError)
DAMAGE += (RuntimeError,)  # of a zip file that is encrypted or compressed in an unknown way

Member = Tuple[str, Optional[IO[bytes]]]  # name; content, None where it is no regular file


def extract(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Makes *folder* of the *members* of *archive* (.tar, .tar.gz, .tgz, .zip; .gz, whose only
    member is the file without that ending), each by its path in the archive. Does nothing where the
    folder was made of the same before; replaces it where it was made of something else.

    Raises:
        UserError: for a damaged archive, one with any member that is unsafe to extract, a wanted
            member that is not there once, as a regular file, a folder that was not made here or
            cannot be written. What was in the folder is still there then.
    """
    archive, folder = Path(archive), Path(folder)
    wanted = {_safe(name) for name in members}
    try:
        state = archive.stat()
    except OSError as error:
        raise UserError(f"cannot read {archive}: {error.strerror}") from error
    if not state.st_size:
        raise UserError(f"{archive} is damaged: it is empty")
    origin = {"archive": archive.name, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
    for kind in (".old", ".partial"):
        partial_of(str(folder), kind)  # what a killed process left goes
    if _made_of(folder, origin, wanted):
        return
    with locked(folder, "extraction"):
        if _made_of(folder, origin, wanted):
            return
        with whole_folder(folder) as partial:
            sizes = _unpack(archive, wanted, partial)
            with writing(folder):
                stamp = json.dumps({**origin, "members": sizes}, indent=1)
                (partial / STAMP).write_text(stamp, encoding="utf-8")


def _made_of(folder: Path, origin: Dict[str, Any], wanted: Set[str]) -> bool:
    """Whether *folder* is there and whole, made of the *wanted* members of *origin*."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        stamp = read_json(folder / STAMP)
        sizes = stamp.pop("members")
        same = stamp == origin and set(sizes) == wanted
    except (UserError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder} was not made from an archive: remove it first") from error
    files = {name: folder / name for name in wanted}
    return same and all(f.is_file() and f.stat().st_size == sizes[n] for n, f in files.items())


def _unpack(archive: Path, wanted: Set[str], folder: Path) -> Dict[str, int]:
    """The sizes of the *wanted* members, in bytes, which lie in *folder* then."""
    sizes: Dict[str, int] = {}
    others = []
    reader = next((read for end, read in READERS.items() if archive.name.endswith(end)), None)
    if reader is None:
        endings = ", ".join(READERS)
        raise UserError(f"{archive}: no archive by its name; known endings are {endings}")
    try:
        for given, content in reader(archive, folder):
            name = _safe(given, f"{archive}, refused: ")
            if name not in wanted:
                others.append(name)
                _copy(content, None)
            elif content is None:
                raise UserError(f"{archive}: {name} is a folder or a link, no file")
            elif name in sizes:
                raise UserError(f"{archive}: {name} is in it twice")
            else:
                sizes[name] = _copy(content, folder / name)
    except DAMAGE as error:
        raise UserError(f"{archive} is damaged: {error or type(error).__name__}") from error
    except OSError as error:  # writing raises UserError
        raise UserError(f"{archive} is damaged or cannot be read: {error}") from error
    for name in sorted(wanted - set(sizes)):
        nearest = ", ".join(difflib.get_close_matches(name, others, n=3, cutoff=0)) or "nothing"
        raise UserError(f"{archive}: no {name} in it; the nearest is {nearest}")
    return sizes


def _copy(content: Optional[IO[bytes]], path: Optional[Path]) -> int:
    """Reads *content* to its end, which checks it; to *path* if given. Its length in bytes."""
    if content is None:
        return 0
    if path is None:
        return sum(map(len, iter(lambda: content.read(CHUNK), b"")))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "xb", buffering=0)  # noqa: SIM115  closed below
    with file:
        for data in iter(lambda: content.read(CHUNK), b""):
            with writing(path):
                write(file, data)
        with writing(path):
            os.fsync(file.fileno())
        return file.tell()


def _safe(name: str, prefix: str = "") -> str:
    """*name* without "./". Raises UserError for a path that is absolute or leads upwards."""
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"{prefix}{name} is absolute or leads out of the folder by '..'")
    return posixpath.normpath(name)


def _read_gz(archive: Path, folder: Path) -> Iterator[Member]:
    with gzip.open(archive) as content:
        yield archive.name[: -len(".gz")], content


def _read_tar(archive: Path, folder: Path) -> Iterator[Member]:
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python's tarfile has no data_filter: update to its last patch")
    with (open if archive.suffix == ".tar" else gzip.open)(archive, "rb") as file:
        with tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as tar:
            for member in tar:
                _safe(member.name, f"{archive}, refused: ")  # the filter would cut "/" off
                try:
                    tarfile.data_filter(member, str(folder))
                except tarfile.FilterError as error:
                    raise UserError(f"{archive}, refused: {error}") from error
                yield member.name, tar.extractfile(member) if member.isreg() else None
                tar.members = []  # bounds the memory
        _copy(file, None)  # to the checksum at its end


class _Header(tarfile.TarInfo):
    """Tells the end of an archive from damage, where tarfile would end without a word."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _read_zip(archive: Path, folder: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            with file.open(info) as content:
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0: not written by Unix
                if info.is_dir() or kind == stat.S_IFDIR:
                    yield info.filename, None
                elif kind in (0, stat.S_IFREG):
                    yield info.filename, content
                elif kind != stat.S_IFLNK:
                    raise UserError(f"{archive}, refused: {info.filename} is a device")
                else:
                    target = content.read(LONGEST_LINK).decode("utf-8", "surrogateescape")
                    target = posixpath.join(posixpath.dirname(info.filename), target)
                    _safe(posixpath.normpath(target), f"{archive}, refused: {info.filename}, to ")
                    yield info.filename, None


# what gives the members of an archive one after the other, all of them read to their ends
READERS = {ending: _read_tar for ending in (".tar.gz", ".tgz", ".tar")}
READERS.update({".zip": _read_zip, ".gz": _read_gz})
