"""What is written by one process at a time, and fails in one line."""

import fcntl
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

from fairseq_admin.errors import UserError


@contextmanager
def locked(path: Path, work: str) -> Iterator[IO[str]]:
    """Waits until no other process does *work* at *path*, and keeps others waiting. The lock is
    that of an open file: the system frees it when the process ends, however it ends.

    Raises:
        UserError: when the folder of *path* cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(f"{path}.lock", "a")  # noqa: SIM115  closed below
    with lock:
        with writing(path):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another {work} of {path}", file=sys.stderr, flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block in which every OSError is one of writing *path*.

    Raises:
        UserError: in place of that.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write(file: IO[bytes], data: bytes) -> None:
    """All of *data* to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
