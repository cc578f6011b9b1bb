"""A function over many batches in several processes, in order and within bounded memory."""

from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Callable, Deque, Iterable, Iterator, List, Tuple, TypeVar

from fairseq_admin.errors import UserError

T = TypeVar("T")
AHEAD = 4  # batches a process that are read before their results are taken
BATCH = 1000  # lines


def batches(lines: Iterable[T], size: int = BATCH) -> Iterator[List[T]]:
    """*lines* in lists of *size*, the last one shorter."""
    lines = iter(lines)
    while batch := list(islice(lines, size)):
        yield batch


def in_order(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    processes: int,
    prepare: Callable[..., None],
    arguments: Tuple[Any, ...] = (),
) -> Iterator[Any]:
    """`function(item)` of each item, in their order, whatever the number of processes.

    Args:
        prepare: called with *arguments* in each process before the first item.

    Raises:
        UserError: when a process dies (of memory, mostly); an error of *function* is raised here.
    """
    with ProcessPoolExecutor(processes, initializer=prepare, initargs=arguments) as pool:
        pending: Deque[Any] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
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
