"""What a training cannot go on from, told before it starts."""

import logging
import zipfile
from argparse import Namespace
from typing import Any, Dict, Optional, Tuple

import torch

from fairseq_admin.data_files import check_dictionaries, text_of
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.fit import COMPUTED_BY, check_fork
from fairseq_admin.methods import method_of, title
from fairseq_admin.options import ABSENT, as_dict, group, value
from fairseq_admin.restoring import is_finished, is_whole, last_checkpoint, mend, restored, saved_in

# what decides which batches an epoch has for a process, and how many
BATCHES = (
    ("distributed_training", "distributed_world_size"),
    ("dataset", "max_tokens"),
    ("dataset", "batch_size"),
    ("dataset", "required_batch_size_multiple"),
    ("dataset", "train_subset"),
    ("common", "seed"),
)
TIED = ("share_all_embeddings", "share_decoder_input_output_embed")
BEST = ("best_checkpoint_metric", "maximize_best_checkpoint_metric")
CHOSEN, SCHEDULE = ("optimizer", "criterion"), ("lr_scheduler",)
OWN_LR = ("fixed", "manual")  # schedules that keep a rate, and no best loss
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
        UserError: for a checkpoint that is not there, damaged, of another method, of other text or
            options, and for one that was never profiled though its method is; for a new training
            where the checkpoints of another are.
    """
    checkpoint, optimization = (group(options, name) for name in ("checkpoint", "optimization"))
    try:
        path = restored(checkpoint)
        if path in (None, checkpoint.continue_once, checkpoint.finetune_from_model):
            check_new(checkpoint)
        if path is None:
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
    try:
        finished = not finetuned and is_finished(state, checkpoint, optimization)
        check_options(state, options, model, path, not (finetuned or finished))
        if not finetuned:
            check_batches(state, options, path)
    except (AttributeError, KeyError, TypeError) as error:  # of entries of other types
        raise UserError(f"{path} is no checkpoint of fairseq: {one_line(error)}") from error
    return path, finished


def check_new(checkpoint: Any) -> None:
    """Raise UserError where a new training with fairseq's options *checkpoint* would write over the
    checkpoints of another."""
    folder, there = checkpoint.save_dir, saved_in(checkpoint.save_dir, checkpoint.checkpoint_suffix)
    if there and not checkpoint.no_save:
        raise UserError(
            f"{folder} holds checkpoints of a training: give another --save-dir, --restore-file "
            f"one of them ({there[0]}), or move them away"
        )


def saved_options(state: Any) -> Any:
    """All options of the training of the checkpoint *state*."""
    return state.get("cfg") or state.get("args")


def check_batches(state: Any, options: Any, path: str) -> None:
    """Warn where the checkpoint *state* lies within an epoch of other batches than those of a
    task's *options*: fairseq counts them, so that text is left out or read twice."""
    try:
        begun = state["extra_state"]["train_iterator"]["iterations_in_epoch"]
    except (KeyError, TypeError):
        return  # of the time before hydra, or fairseq says what is wrong with it
    if not begun or group(options, "checkpoint").reset_dataloader:
        return
    for name, key in BATCHES:
        was = value(group(saved_options(state), name), key)
        now = value(group(options, name), key)
        if ABSENT not in (was, now) and was != now:
            logger.warning(
                f"{path} lies within an epoch of {key} {was}, which is {now} now: text of that "
                "epoch is left out or read twice"
            )


def decisive(config: Any, model: Any) -> Dict[str, Any]:
    """The options that a training must keep when it goes on, by name: of all its options *config*
    and of those of its *model*."""
    found = {name: value(model, name) for name in (*COMPUTED_BY, *TIED)}
    if found[TIED[0]] is True:
        found[TIED[1]] = True  # as fairseq sets it where it builds the model
    found.update({name: value(group(config, "checkpoint"), name) for name in BEST})
    for kind in (*CHOSEN, *SCHEDULE):
        name = value(config, kind)
        name = name if isinstance(name, str) else value(name, "_name")
        found[kind] = "adam" if name == "adam_fused" else name  # its checkpoints are the same
    return found


def check_options(state: Any, options: Any, model: Any, path: str, goes_on: bool) -> None:
    """Raise UserError where the options of the checkpoint *state*, of the file *path*, are of a
    model that computes something else than the options *model* say or, if its training *goes_on*,
    of another optimizer, criterion, schedule or measure of the best checkpoint than *options*
    say."""
    saved, checkpoint = saved_options(state), group(options, "checkpoint")
    was = decisive(saved, group(saved, "model"))
    now = decisive(options if isinstance(options, Namespace) else options._get_root(), model)
    goes_on = goes_on and not checkpoint.reset_optimizer
    stepped = goes_on and state.get("last_optimizer_state") is not None
    schedule = (state.get("optimizer_history") or [{}])[-1].get("lr_scheduler_state") or {}
    scheduled = stepped and not checkpoint.reset_lr_scheduler and "best" not in schedule
    best = goes_on and not checkpoint.reset_meters and "best" in (state.get("extra_state") or {})
    rows = (  # options, whether the training needs them as they were, and what to do
        (COMPUTED_BY, True, "give the options of its training"),
        (TIED, stepped, "give the options of its training, or --reset-optimizer"),
        (CHOSEN, stepped, "give that of its training, or --reset-optimizer"),
        (SCHEDULE, scheduled and now["lr_scheduler"] not in OWN_LR, "give --reset-lr-scheduler"),
        (BEST, best, "give --reset-meters, as its best is of another measure"),
    )
    for names, needed, remedy in rows:
        for name in names if needed else ():
            if ABSENT not in (was[name], now[name]) and was[name] != now[name]:
                raise UserError(f"{path}: {name} was {was[name]} and is {now[name]} now: {remedy}")


def check_method(state: Any, model: Any, path: str, other: str) -> None:
    """Raise UserError where the checkpoint *state*, of the file *path*, is of another residual
    method than the options *model*, or was not profiled as its own method is; *other* is what would
    choose another checkpoint."""
    own = getattr(model, "residual", None)
    try:
        saved = as_dict(group(saved_options(state) or {}, "model"))
        method, learned = method_of(saved), bool(saved.get("learn_first_omega"))
        unprofiled = never_profiled(state)
        if "residual" not in saved:
            check_fork(saved, state.get("model") or {}, path)
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
    """Whether the checkpoint *state* has omegas, all of them about 1, and no profile."""
    weights = (state.get("model") or {}).items()
    omegas = [x.float().mean() for key, x in weights if key.endswith(OMEGA) and x.dim() > 0]
    known = "profile" in (state.get("task_state") or {})
    return bool(omegas) and not known and all(abs(x - 1) < ABOUT_1 for x in omegas)


def check_text(state: Any, text: Any, path: str, other: str, finetuned: bool) -> None:
    """Raise UserError where the checkpoint *state*, of the file *path*, was trained on text of
    other dictionaries than *text* or, unless it is *finetuned*, of other languages; both as
    `data_files.described`, or not known. *other* is what would choose another checkpoint."""
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
