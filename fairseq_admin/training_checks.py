"""What a training cannot be, told before it starts: fairseq's own words for it are tracebacks."""

import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from typing import Any, Optional

from fairseq import utils
from omegaconf import OmegaConf

from fairseq_admin.data_files import check_pairs
from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS
from fairseq_admin.options import group

PRUNED = (
    "--encoder-layers-to-keep and --decoder-layers-to-keep prune a trained model: train all layers "
    "with --encoder-layerdrop or --decoder-layerdrop, and prune where you decode, by "
    "--model-overrides \"{'encoder_layers_to_keep': '0,2'}\""
)


def ddp_backend(options: Any) -> Optional[str]:
    """--ddp-backend, where a task's *options* are among all of those of a training."""
    if isinstance(options, Namespace):
        return getattr(options, "ddp_backend", None)
    name = "distributed_training.ddp_backend"
    return OmegaConf.is_config(options) and OmegaConf.select(
        options, name, throw_on_resolution_failure=False
    )


def check_sharding(options: Any) -> None:
    """Raise UserError for a task's *options* among which parameters are to be sharded: fairseq
    prepares that before it has the model built."""
    if ddp_backend(options) == "fully_sharded":
        raise UserError(
            "--ddp-backend fully_sharded shards parameters before they are profiled: leave it out"
        )


def check_training(options: Any, model: Any) -> None:
    """Raise UserError for *options*, of a task that profiles, and options *model* with which
    nothing can be trained."""
    common = group(options, "common")
    if any(getattr(model, f"{stack}_layers_to_keep", None) for stack in STACKS):
        raise UserError(PRUNED)
    if getattr(options, "stop_when_stuck", False) and group(options, "optimization").use_bmuf:
        raise UserError(
            "--stop-when-stuck is told by the loss of all ranks, which --use-bmuf keeps apart: "
            "leave one of them out"
        )
    recomputing = ("checkpoint_activations", "offload_activations")
    recomputed = any(getattr(model, name, False) for name in recomputing)
    if recomputed and getattr(model, "compile_layers", False):
        raise UserError(
            "--compile-layers draws other dropout masks than the recomputation of "
            "--checkpoint-activations and --offload-activations: leave one of them out"
        )
    if common.amp and not common.cpu:
        raise UserError(
            "--amp: fairseq divides gradients by the loss scale twice, of which weight decay is "
            "not: give --fp16, or through hydra common.bf16=true"
        )
    flat = not (common.memory_efficient_fp16 or common.fp16_no_flatten_grads)
    if common.fp16 and common.cpu and flat:
        raise UserError(
            "--fp16 copies all weights to a GPU: leave it out, or give --fp16-no-flatten-grads to "
            "try it on the CPU"
        )
    efficient = common.memory_efficient_fp16 or common.memory_efficient_bf16
    if efficient and utils.multi_tensor_l2norm_available and not common.cpu:
        raise UserError(
            "--memory-efficient-fp16 keeps omegas in fp32, and apex takes the norm of gradients "
            "of one precision: give --fp16, or run without apex"
        )


def check_numbers(model: Any) -> None:
    """Raise UserError for numbers that no *model*, fairseq's nested config, can have."""
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        share = getattr(model, name)
        if not 0 <= share <= 1:
            raise UserError(f"--{name.replace('_', '-')} {share}: give a share, from 0 to 1")
    for stack in STACKS:
        width, heads = (getattr(getattr(model, stack), x) for x in ("embed_dim", "attention_heads"))
        if heads < 1 or width % heads:
            raise UserError(
                f"--{stack}-embed-dim {width} is not divisible by --{stack}-attention-heads "
                f"{heads}: give a number of heads that divides it"
            )


def check_noise(model: Any) -> None:
    """Raise UserError for options *model* of a model that cannot be profiled."""
    if getattr(model, "quant_noise_scalar", 0):
        raise UserError(
            "--quant-noise-scalar keeps what it learns of the profile's pass on the CPU: leave it "
            "out, or take a --residual without a profile"
        )


def check_validation(task: Any) -> None:
    """Raise UserError where options *task* of `translation_admin` ask for a validation that cannot
    be."""
    dataset = task.dataset
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
