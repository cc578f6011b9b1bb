"""A function over many batches in several processes, in order and within bounded memory."""

import os
import signal
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import parent_process
from threading import RLock, Thread
from typing import Any, Callable, Deque, Iterable, Iterator, List, Optional, TypeVar

from tqdm import tqdm

from fairseq_admin.errors import UserError

T = TypeVar("T")
AHEAD = 4  # batches a process that are read before their results are taken
BATCH = 1000  # lines
PROGRESS_EVERY = (10.0, 0.5)  # seconds, also before the first: in a file; on a terminal
SHARE = {"total": 1.0, "bar_format": "{desc} {percentage:3.0f} % [{elapsed}, {remaining} left]"}


class Lines(tqdm):
    """The bar where there is no terminal: a line each time."""

    def display(self, msg: Optional[str] = None, pos: Optional[int] = None) -> None:
        if msg is None:
            self.fp.write(f"{self}\n")


@contextmanager
def progress(what: str, **how: Any) -> Iterator[Any]:
    """A function that takes what is done, and shows it with the remaining time: the share, 0 to 1,
    unless *how*, arguments of tqdm, says else."""
    terminal = sys.stderr.isatty()
    seconds = PROGRESS_EVERY[terminal]
    when = {"mininterval": seconds, "miniters": 0, "delay": seconds, "leave": terminal}
    tqdm.set_lock(RLock())  # its own is shared with forks: one killed holding it stops all others
    with (tqdm if terminal else Lines)(desc=what, **when, **(how or SHARE)) as bar:
        yield lambda done: bar.update(done - bar.n)


def batches(lines: Iterable[T]) -> Iterator[List[T]]:
    """*lines* in lists of BATCH, the last one shorter."""
    lines = iter(lines)
    while batch := list(islice(lines, BATCH)):
        yield batch


_function: Optional[Callable[[Any], Any]] = None  # of this process, see in_order


def in_order(
    make: Callable[[], Callable[[Any], Any]], items: Iterable[Any], processes: int
) -> Iterator[Any]:
    """`make()(item)` of each item, in their order, whatever the number of processes.

    Args:
        make: makes the function, in each process before its first item, and before all in this
            one, where its mistakes are told.

    Raises:
        UserError: when a process dies (of memory, mostly); an error of the function is raised here.
    """
    make()
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=(make,)) as pool:
        pending: Deque[Any] = deque()
        try:
            for item in items:
                pending.append(pool.submit(_call, item))
                if len(pending) > AHEAD * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                f"a process was killed, for lack of memory perhaps: give fewer --processes than "
                f"{processes}"
            ) from None
        finally:
            for future in pending:
                future.cancel()


def _call(item: Any) -> Any:
    return _function(item)


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    """The start of each process: it ends with its parent, on Ctrl-C and when that is killed, and
    so keeps none of its locks."""
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()
    _function = make()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def visible_devices(count: int) -> List[str]:
    """Names of *count* GPUs, those that CUDA_VISIBLE_DEVICES leaves, if it is set."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else list(map(str, range(count)))
