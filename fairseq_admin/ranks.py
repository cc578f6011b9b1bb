"""The processes of a training: what one finds out, all are told."""

import logging
import os
from datetime import timedelta
from typing import Any, Callable

import torch
from fairseq.distributed import utils as distributed_utils
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from fairseq_admin.errors import UserError

logger = logging.getLogger(__name__)


AS_LONG_AS_IT_TAKES = timedelta(days=7)  # fairseq's own group ends a training after 10 minutes


def from_rank_0(make: Callable[[], Any]) -> Any:
    """What *make* returns on rank 0, on every rank, however long that takes; a UserError of rank 0
    is raised on all."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return make()
    result, error = None, None
    group = torch.distributed.new_group(backend="gloo", timeout=AS_LONG_AS_IT_TAKES)
    if distributed_utils.get_global_rank() == 0:
        threads = torch.get_num_threads()
        # the other ranks wait, and a launcher gives each of them one core
        torch.set_num_threads(max(threads, len(os.sched_getaffinity(0))))
        try:
            result = make()
        except Exception as e:  # the other ranks wait: tell them before going down
            error = f"rank 0: {e}"
            logger.exception("rank 0 failed")
        except UserError as e:
            error = e.message
        finally:
            torch.set_num_threads(threads)
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


def end_training(common: Any) -> None:
    """Exit with code 0 before the end of the training with the options *common*. Raises UserError
    in a sweep of hydra, whose other trainings would not be started."""
    end_ranks()
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if sweep and not common.suppress_crashes:
        raise UserError(
            "the sweep ends here, with a training that needs no more updates: for the others give "
            "common.suppress_crashes=true"
        )
    raise SystemExit(0)
