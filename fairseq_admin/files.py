"""Files and folders that are written whole or not at all, by one process at a time."""

import glob
import os
import platform
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Iterator, List, Sequence, Union

from fairseq_admin.errors import UserError


@contextmanager
def writing(path: Union[str, Path]) -> Iterator[None]:
    """Turn an OSError within the block into the UserError that *path* cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Union[str, Path], mode: str = "w") -> Iterator[IO]:
    """`whole_files` of one *path*."""
    with whole_files([path], mode) as (file,):
        yield file


@contextmanager
def whole_files(paths: Sequence[Union[str, Path]], mode: str = "w") -> Iterator[List[IO]]:
    """Open files, UTF-8 if they are text, which become *paths* when the block ends: all or none of
    them. When it ends with an error, what was at *paths* before is there as it was, and nothing
    beside it; what a process that was killed left there goes. Processes of several machines may do
    so at once. Links are followed, and what is no regular file (a device, a pipe) is written as it
    is. Raises UserError where they cannot be written."""
    written, targets = [], {}  # where each is written, and what those become that are regular files
    for path in paths:
        if os.path.isfile(path) or not os.path.exists(path):
            target = os.path.realpath(path)
            path = partial_of(target)
            targets[path] = target
        written.append(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        with writing(" and ".join(map(str, paths))), ExitStack() as stack:
            files = [stack.enter_context(open(path, mode, encoding=encoding)) for path in written]
            yield files
            for file in files:
                file.flush()
                if file.name in targets:
                    os.fsync(file.fileno())
            stack.close()
            for partial, target in targets.items():
                os.replace(partial, target)
    finally:
        for partial in targets:
            with suppress(OSError):
                os.remove(partial)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder to fill, which becomes *folder* when the block ends, in place of what
    was there. When it ends with an error, what was there stays, and nothing beside it; what a
    process that was killed left there goes. A link is followed. Raises UserError where it cannot be
    made."""
    folder = Path(os.path.realpath(folder))
    with writing(folder):
        old = Path(partial_of(str(folder), ".old"))  # first: it may be all there is
        partial = Path(partial_of(str(folder)))
        partial.mkdir(parents=True)
    try:
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


def partial_of(path: str, kind: str = ".partial") -> str:
    """A name beside *path* for what this process, and no other of any machine, writes there. What
    processes of this machine left under such names goes when they are dead (one of the same number
    as this is: of a container, say); but what one moved away from *path* (*kind* `.old`) comes back
    where nothing has taken its place."""
    begin = f"{path}.{platform.node()}."
    for left in glob.glob(f"{glob.escape(begin)}*{kind}"):
        pid = left[len(begin) : -len(kind)]
        if pid.isdecimal() and (int(pid) == os.getpid() or not running(int(pid))):
            if kind == ".old" and not os.path.lexists(path):
                os.rename(left, path)
            elif os.path.isdir(left):
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.remove(left)
    return f"{begin}{os.getpid()}{kind}"


def running(pid: int) -> bool:
    """Whether a process of this machine has the number *pid*."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


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
    """Wait until no other process does *work* at *path*, and keep others waiting, as `take_lock`
    does; gives the locked file, PATH.lock. Raises UserError where the folder of *path* cannot be
    written."""
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = open(f"{path}.lock", "a")  # noqa: SIM115  closed below
    with lock:
        with writing(path):
            if not take_lock(lock):
                print(f"waiting for another {work} of {path}", file=sys.stderr, flush=True)
                take_lock(lock, wait=True)
        yield lock
