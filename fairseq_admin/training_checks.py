"""What a training cannot be, told before it starts: fairseq's own words for it are tracebacks."""

import sys
from argparse import ArgumentParser
from importlib.util import find_spec
from typing import Any

from fairseq import utils
from omegaconf import OmegaConf

from fairseq_admin.data_files import check_pairs
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import STACKS

PRUNED = (
    "--encoder-layers-to-keep and --decoder-layers-to-keep prune a trained model: train all layers "
    "with --encoder-layerdrop or --decoder-layerdrop, and prune where you decode, by "
    "--model-overrides \"{'encoder_layers_to_keep': '0,2'}\""
)


def of_training(task: Any) -> bool:
    """Whether options *task* are among those of all of fairseq, as its commands have them."""
    group = "distributed_training.ddp_backend"
    return OmegaConf.is_config(task) and bool(
        OmegaConf.select(task, group, throw_on_resolution_failure=False)
    )


def check_sharding(task: Any) -> None:
    """Raise UserError for options *task* among which parameters are to be sharded: fairseq prepares
    that before it has the model built."""
    if of_training(task) and task.distributed_training.ddp_backend == "fully_sharded":
        raise UserError(
            "--ddp-backend fully_sharded shards parameters before they are profiled: leave it out"
        )


def check_training(task: Any, model: Any) -> None:
    """Raise UserError for options that no training can have.

    Args:
        task: options of `translation_admin`.
        model: those of the model.
    """
    common, dataset = task.common, task.dataset
    if any(getattr(model, f"{stack}_layers_to_keep", None) for stack in STACKS):
        raise UserError(PRUNED)
    efficient = common.memory_efficient_fp16 or common.memory_efficient_bf16
    if efficient and utils.multi_tensor_l2norm_available and not common.cpu:
        raise UserError(
            "--memory-efficient-fp16 keeps omegas in fp32, and apex takes the norm of gradients "
            "of one precision: give --fp16, or run without apex"
        )
    if dataset.disable_validation:
        return
    if task.checkpoint.best_checkpoint_metric == "bleu" and not task.eval_bleu:
        raise UserError("--best-checkpoint-metric bleu: give --eval-bleu too, which measures it")
    folder = utils.split_paths(task.data)[0]
    for split in dataset.valid_subset.split(","):
        check_pairs(folder, split, task.source_lang, task.target_lang, task.dataset_impl)


def check_bf16(parser: ArgumentParser) -> None:
    """Raise UserError where *parser*, of `fairseq-train`, is to read an option for which fairseq
    looks for a TPU; on several GPUs it does so before there is a task."""
    asked = {"--bf16", "--memory-efficient-bf16"} & set(sys.argv)
    trains = parser.get_default("max_update") is not None
    if asked and trains and find_spec("torch_xla") is None:
        raise UserError(
            f"{min(asked)} is for TPUs on fairseq's command line: start fairseq-hydra-train with "
            "common.bf16=true, or give --fp16"
        )
