"""Files that are written whole or not at all."""

import os
from contextlib import contextmanager, suppress
from typing import IO, Iterable, Iterator, Optional

from fairseq_admin.errors import UserError


@contextmanager
def whole_file(path: str, mode: str = "w") -> Iterator[IO]:
    """A file to write, UTF-8 if it is text, which becomes *path* when the block ends. When it ends
    with an error, what was at *path* before is there as it was, and nothing beside it.

    Raises:
        UserError: when it cannot be written.
    """
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.remove(partial)


def check_no_input(output: Optional[str], inputs: Iterable[Optional[str]]) -> None:
    """Raise UserError where *output* is one of the files *inputs*, by whatever name."""
    if not output or not os.path.exists(output):
        return
    for path in inputs:
        if path and os.path.exists(path) and os.path.samefile(path, output):
            raise UserError(f"{output} is an input of this command: give another name")
