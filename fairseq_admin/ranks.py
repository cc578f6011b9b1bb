"""The processes of a training: what one finds out, all are told."""

import logging
from typing import Any, Callable

import torch
from fairseq.distributed import utils as distributed_utils

from fairseq_admin.errors import UserError

logger = logging.getLogger(__name__)


def from_rank_0(make: Callable[[], Any]) -> Any:
    """What *make* returns on rank 0, on every rank; a UserError of rank 0 is raised on all."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return make()
    result, error = None, None
    group = distributed_utils.get_global_group()
    if distributed_utils.get_global_rank() == 0:
        try:
            result = make()
        except Exception as e:  # the other ranks wait: tell them before going down
            error = f"rank 0: {e}"
            logger.exception("rank 0 failed")
        except UserError as e:
            error = e.message
    result, error = distributed_utils.broadcast_object((result, error), 0, group)
    if error:
        end_ranks()
        raise UserError(error)
    return result


def end_ranks() -> None:
    """Leave the group of processes, whose threads would abort the exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
