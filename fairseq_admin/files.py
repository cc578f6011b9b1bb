"""Files and folders that are written whole or not at all, by one process at a time."""

import os
import platform
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Iterable, Iterator, Optional, Union

from fairseq_admin.errors import UserError


@contextmanager
def writing(path: Union[str, Path]) -> Iterator[None]:
    """A block in which every OSError is one of writing *path*.

    Raises:
        UserError: in place of that.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Union[str, Path], mode: str = "w") -> Iterator[IO]:
    """A file to write, UTF-8 if it is text, which becomes *path* when the block ends. When it ends
    with an error, what was at *path* before is there as it was, and nothing beside it. Processes of
    several machines may do so at once.

    Raises:
        UserError: when it cannot be written.
    """
    partial = f"{path}.{platform.node()}.{os.getpid()}.partial"
    try:
        with writing(path):
            with open(partial, mode, encoding=None if "b" in mode else "utf-8") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            os.remove(partial)


@contextmanager
def whole_folder(folder: Path, ending: str = "partial") -> Iterator[Path]:
    """An empty folder to fill, which becomes *folder* when the block ends, in place of what was
    there; by one process at a time, unless each has its own *ending*. When it ends with an error,
    what was there stays.

    Raises:
        UserError: when it cannot be made.
    """
    partial, old = (folder.with_name(f"{folder.name}.{end}") for end in (ending, f"{ending}.old"))
    try:
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir(parents=True)
        yield partial
        with writing(folder):
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def write(file: IO[bytes], data: bytes) -> None:
    """All of *data* to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def take_lock(file: IO, wait: bool = False) -> bool:
    """Whether this process has the lock of an open file now, and with it those that inherit the
    file; the system frees it when all of them have ended, however they end. If it is to *wait*, it
    has."""
    import fcntl  # there is none on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Union[str, Path], work: str) -> Iterator[IO[str]]:
    """Waits until no other process does *work* at *path*, and keeps others waiting, as `take_lock`
    does; the file that is locked, PATH.lock.

    Raises:
        UserError: when the folder of *path* cannot be written.
    """
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = open(f"{path}.lock", "a")  # noqa: SIM115  closed below
    with lock:
        with writing(path):
            if not take_lock(lock):
                print(f"waiting for another {work} of {path}", file=sys.stderr, flush=True)
                take_lock(lock, wait=True)
        yield lock


def check_no_input(output: Optional[str], inputs: Iterable[Optional[str]]) -> None:
    """Raise UserError where *output* is one of the files *inputs*, by whatever name."""
    if not output or not os.path.exists(output):
        return
    for path in inputs:
        if path and os.path.exists(path) and os.path.samefile(path, output):
            raise UserError(f"{output} is an input of this command: give another name")
