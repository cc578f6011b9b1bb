"""What a training cannot go on from, told before it starts."""

import logging
import zipfile
from argparse import Namespace
from typing import Any, Optional, Tuple

import torch

from fairseq_admin.data_files import check_dictionaries, text_of
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.methods import method_of, title
from fairseq_admin.restoring import is_finished, is_whole, last_checkpoint, mend, restored
from fairseq_admin.training_checks import group

# what decides how many batches an epoch has for a process
BATCHES = (
    ("distributed_training", "distributed_world_size"),
    ("dataset", "max_tokens"),
    ("dataset", "batch_size"),
)
OMEGA, ABOUT_1 = "_residual.omega", 0.1
logger = logging.getLogger(__name__)


def find_checkpoint(options: Any, model: Any, text: Any) -> Tuple[Optional[str], bool]:
    """The checkpoint that fairseq is about to restore, mended where it can be; and whether no
    update is left to do after it.

    Args:
        options: of a task that profiles.
        model: those of the model.
        text: `data_files.described` of the training's, None where that is not known.

    Raises:
        UserError: for a checkpoint that is not there, damaged, of another method or of other text,
            and for one that was never profiled though its method is.
    """
    checkpoint, optimization = (group(options, name) for name in ("checkpoint", "optimization"))
    try:
        path = restored(checkpoint)
        if path is None:
            file = checkpoint.restore_file
            if file != "checkpoint_last.pt":
                logger.warning(f"--restore-file {file}: no such file, a new model is trained")
            return None, False
        last = path == str(last_checkpoint(checkpoint.save_dir, checkpoint.checkpoint_suffix))
        if last:
            mend(checkpoint.save_dir, checkpoint.checkpoint_suffix)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not last and not is_whole(path):
        raise UserError(f"{path} is cut off: give another checkpoint")
    try:
        archived = zipfile.is_zipfile(path)
        damaged = archived and zipfile.ZipFile(path).testzip()  # torch compares no checksum of mmap
        if damaged:
            raise ValueError(f"{damaged} in it is not what its checksum is of")
        state = torch.load(path, map_location="cpu", mmap=archived)
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        raise UserError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint of fairseq: give another")
    other = "--save-dir" if last else "checkpoint"
    finetuned = path == checkpoint.finetune_from_model
    check_method(state, model, path, other)
    check_text(state, text, path, other, finetuned or checkpoint.reset_dataloader)
    if finetuned:
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


def check_method(state: Any, model: Any, path: str, other: str) -> None:
    """Raise UserError where the checkpoint *state* of the file *path*, instead of which one would
    give *other*, is of another residual method than the options *model*, or was not profiled as
    its own method is."""
    own = getattr(model, "residual", None)
    try:
        saved = (state.get("cfg") or {}).get("model") or state.get("args") or {}
        saved = vars(saved) if isinstance(saved, Namespace) else saved
        method, learned = method_of(saved), bool(saved.get("learn_first_omega"))
        unprofiled = never_profiled(state)
    except (AttributeError, KeyError, TypeError):
        return  # fairseq says what is wrong with it
    if own and method != method_of({"residual": own}):
        raise UserError(
            f"{path} is of the residual method {title(method)}, the model of {title(own)}: give "
            f"--residual {method}, or another {other}"
        )
    if own and learned != getattr(model, "learn_first_omega", False):
        raise UserError(
            f"{path} was trained {'with' if learned else 'without'} --learn-first-omega: train on "
            f"as it was, or give another {other}"
        )
    if unprofiled:
        raise UserError(
            f"{path} was not profiled, and its omegas are 1: give another {other}, or go on with "
            "the --task of its training, which does not profile"
        )


def never_profiled(state: Any) -> bool:
    """Whether the model of the checkpoint *state* has omegas, about 1 all of them, and no
    profile."""
    weights = (state.get("model") or {}).items()
    omegas = [x.float().mean() for key, x in weights if key.endswith(OMEGA) and x.dim() > 0]
    known = "profile" in (state.get("task_state") or {})
    return bool(omegas) and not known and all(abs(x - 1) < ABOUT_1 for x in omegas)


def check_text(state: Any, text: Any, path: str, other: str, finetuned: bool) -> None:
    """Raise UserError where the checkpoint *state* of the file *path*, instead of which one would
    give *other*, was trained on *text* of other dictionaries, or to be continued, of other
    languages; both as `data_files.described`, or not known."""
    saved = text_of(state)
    if not text or not saved:
        return
    check_dictionaries(state, text["dictionaries"], f"another {other}", path)
    if not finetuned and saved["languages"] != text["languages"]:
        was, now = (" to ".join(x["languages"]) for x in (saved, text))
        source, target = saved["languages"]
        raise UserError(
            f"{path} translates {was}, and this training is of {now}: give -s {source} -t "
            f"{target}, another {other}, or --reset-dataloader to fine-tune"
        )
