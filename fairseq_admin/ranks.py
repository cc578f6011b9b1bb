"""The processes of a training: what one finds out, all are told."""

import logging
import os
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Callable, Iterator

import torch
from fairseq.distributed import utils as distributed_utils

from fairseq_admin.errors import UserError

logger = logging.getLogger(__name__)


AS_LONG_AS_IT_TAKES = timedelta(days=7)  # fairseq's own group ends a training after 10 minutes


@contextmanager
def all_cores() -> Iterator[None]:
    """As many threads of torch as this process may use cores: the other ranks wait, and a launcher
    gives each of them one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads, len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def from_rank_0(make: Callable[[], Any]) -> Any:
    """What *make* returns on rank 0, on every rank, however long that takes; a UserError of rank 0
    is raised on all."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return make()
    result, error = None, None
    group = torch.distributed.new_group(backend="gloo", timeout=AS_LONG_AS_IT_TAKES)
    if distributed_utils.get_global_rank() == 0:
        try:
            with all_cores():
                result = make()
        except Exception as e:  # the other ranks wait: tell them before going down
            error = f"rank 0: {e}"
            logger.exception("rank 0 failed")
        except UserError as e:
            error = e.message
    told = [result, error]
    torch.distributed.broadcast_object_list(told, 0, group)
    torch.distributed.destroy_process_group(group)
    result, error = told
    if error:
        end_ranks()
        raise UserError(error)
    return result


def end_ranks() -> None:
    """Leave the group of processes, whose threads would abort the exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
