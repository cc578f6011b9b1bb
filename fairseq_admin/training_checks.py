"""What a training cannot be, told before it starts: fairseq's own words for it are tracebacks."""

import logging
import sys
import zipfile
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from typing import Any, Optional, Tuple

import torch
from fairseq import utils
from omegaconf import OmegaConf

from fairseq_admin.data_files import check_pairs
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.methods import STACKS, method_of, title
from fairseq_admin.restoring import is_finished, is_whole, last_checkpoint, mend, restored

PRUNED = (
    "--encoder-layers-to-keep and --decoder-layers-to-keep prune a trained model: train all layers "
    "with --encoder-layerdrop or --decoder-layerdrop, and prune where you decode, by "
    "--model-overrides \"{'encoder_layers_to_keep': '0,2'}\""
)


# what decides how many batches an epoch has for a process
BATCHES = (
    ("distributed_training", "distributed_world_size"),
    ("dataset", "max_tokens"),
    ("dataset", "batch_size"),
)
logger = logging.getLogger(__name__)


def group(options: Any, name: str) -> Any:
    """The group *name* of fairseq's options, which a task of the time before hydra has among its
    own *options*."""
    return options if isinstance(options, Namespace) else options[name]


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
    """Raise UserError for options that no training can have.

    Args:
        options: of a task that profiles.
        model: those of the model.
    """
    common = group(options, "common")
    if any(getattr(model, f"{stack}_layers_to_keep", None) for stack in STACKS):
        raise UserError(PRUNED)
    if getattr(options, "stop_when_stuck", False) and group(options, "optimization").use_bmuf:
        raise UserError(
            "--stop-when-stuck is told by the loss of all ranks, which --use-bmuf keeps apart: "
            "leave one of them out"
        )
    recomputed = getattr(model, "checkpoint_activations", 0) or getattr(
        model, "offload_activations", 0
    )
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
    efficient = common.memory_efficient_fp16 or common.memory_efficient_bf16
    if efficient and utils.multi_tensor_l2norm_available and not common.cpu:
        raise UserError(
            "--memory-efficient-fp16 keeps omegas in fp32, and apex takes the norm of gradients "
            "of one precision: give --fp16, or run without apex"
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


def find_checkpoint(options: Any, model: Any) -> Tuple[Optional[str], bool]:
    """The checkpoint that fairseq is about to restore, mended where it can be; and whether no
    update is left to do after it.

    Args:
        options: of a task that profiles.
        model: those of the model.

    Raises:
        UserError: for a checkpoint that is not there, cut off or of another method.
    """
    checkpoint, optimization = (group(options, name) for name in ("checkpoint", "optimization"))
    path = restored(checkpoint)
    if path is None:
        if checkpoint.finetune_from_model and checkpoint.restore_file == "checkpoint_last.pt":
            raise UserError(f"--finetune-from-model {checkpoint.finetune_from_model}: no such file")
        return None, False
    last = path == str(last_checkpoint(checkpoint.save_dir, checkpoint.checkpoint_suffix))
    if last:
        try:
            mend(checkpoint.save_dir, checkpoint.checkpoint_suffix)
        except ValueError as error:
            raise UserError(str(error)) from None
    elif not is_whole(path):
        raise UserError(f"{path} is cut off: give another checkpoint")
    try:
        state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        raise UserError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint of fairseq: give another")
    check_method(state, model, path, last)
    if path == checkpoint.finetune_from_model:
        return path, False
    check_batches(state, options, path)
    return path, is_finished(state, checkpoint, optimization)


def check_batches(state: Any, options: Any, path: str) -> None:
    """Warn where the checkpoint *state* lies within an epoch of other batches than those of a
    task's *options*: fairseq counts them, so that text is left out or read twice."""
    try:
        begun = state["extra_state"]["train_iterator"]["iterations_in_epoch"]
        before = {key: state["cfg"][name][key] for name, key in BATCHES}
    except (KeyError, TypeError):
        return  # of the time before hydra, or fairseq says what is wrong with it
    if begun and not group(options, "checkpoint").reset_dataloader:
        for name, key in BATCHES:
            was, value = before[key], getattr(group(options, name), key)
            if was != value:
                logger.warning(
                    f"{path} lies within an epoch of {key} {was}, which is {value} now: text of "
                    "that epoch is left out or read twice"
                )


def check_method(state: Any, model: Any, path: str, last: bool) -> None:
    """Raise UserError where the checkpoint *state*, the *last* of --save-dir or another, is of
    another residual method than the options *model*."""
    own = getattr(model, "residual", None)
    try:
        saved = (state.get("cfg") or {}).get("model") or state.get("args") or {}
        saved = method_of(vars(saved) if isinstance(saved, Namespace) else saved)
    except (AttributeError, KeyError, TypeError):
        return  # fairseq says what is wrong with it
    if own and saved != method_of({"residual": own}):
        raise UserError(
            f"{path} is of the residual method {title(saved)}, the model of {title(own)}: give "
            f"--residual {saved}, or another {'--save-dir' if last else 'checkpoint'}"
        )


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
