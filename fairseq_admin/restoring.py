"""Which checkpoint a training goes on from, and that it is whole. It imports the standard library
alone: scripts/recipes/worker.py, which must not import the package, runs this file by its path."""

import logging
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

logger = logging.getLogger(__name__)
PICKLE = b"\x80"  # how files of torch before 1.6, which are no zip archives, begin


def is_whole(path: Union[str, Path]) -> bool:
    """Whether the checkpoint file *path* has its end; a copy that was cut off has not."""
    try:
        zipfile.ZipFile(path).close()
    except zipfile.BadZipFile:
        with open(path, "rb") as f:
            return f.read(1) == PICKLE
    return True


def restored(cfg: Any) -> Optional[str]:
    """The checkpoint that `fairseq-train` restores by its options *cfg* (`checkpoint`), None where
    it starts anew: the rules of `load_checkpoint` in fairseq/checkpoint_utils.py (0.12.3). Raises
    ValueError for a file that is not there, unless it is the last one of --save-dir, and for a
    pretrained model beside --restore-file."""
    last = last_checkpoint(cfg.save_dir, cfg.checkpoint_suffix)
    if cfg.restore_file == "checkpoint_last.pt":
        path = str(last)
        if not os.path.exists(path):
            path = cfg.continue_once or cfg.finetune_from_model
            if path == cfg.finetune_from_model and path and not os.path.isfile(path):
                raise ValueError(f"--finetune-from-model {path}: no such file")
    elif cfg.finetune_from_model:
        raise ValueError("--restore-file and --finetune-from-model: give one of them")
    else:
        path = cfg.restore_file.replace(".pt", f"{cfg.checkpoint_suffix}.pt")
        if not os.path.isfile(path) and os.path.realpath(path) != os.path.realpath(last):
            raise ValueError(
                f"--restore-file {path}: no such file; leave it out to train a new model"
            )
    return path if path and os.path.isfile(path) else None


def last_checkpoint(folder: Union[str, Path], suffix: str = "") -> Path:
    """Where fairseq saves the last checkpoint of *folder*."""
    return Path(folder) / f"checkpoint_last{suffix}.pt"


def saved_in(folder: Union[str, Path], suffix: str = "") -> List[Path]:
    """The whole checkpoints of *folder* but the last, the newest first."""
    saved = re.compile(rf"checkpoint(\d+|_\d+_\d+|_best|\.best_.*){re.escape(suffix)}\.pt")
    found = [p for p in Path(folder).glob("checkpoint*.pt") if saved.fullmatch(p.name)]
    return sorted(filter(is_whole, found), key=lambda p: p.stat().st_mtime_ns, reverse=True)


def mend(folder: Union[str, Path], suffix: str = "", missing: bool = False) -> None:
    """Make the last checkpoint of *folder* whole.

    fairseq writes a checkpoint to a file of its own and then copies that to checkpoint_best.pt and
    checkpoint_last.pt: a process killed while it copies leaves half a file, from which no training
    can go on. The newest of the others is the one that was being copied.

    Args:
        suffix: fairseq's `--checkpoint-suffix`.
        missing: also where there is no last one, as after a kill at the first copy.

    Raises:
        ValueError: where none of the others is whole; nothing is changed then.
    """
    last = last_checkpoint(folder, suffix)
    there = last.exists()
    if there and is_whole(last):
        return
    others = saved_in(folder, suffix)
    if not there and not (missing and others):
        return
    if not others:
        raise ValueError(
            f"{last} is cut off, as where a training was killed while it wrote it, and no other "
            "checkpoint there is whole: move it away to train anew, or give --restore-file"
        )
    newest = others[0]
    partial = last.with_suffix(".partial")
    shutil.copyfile(newest, partial)
    os.replace(partial, last)
    logger.warning("%s was cut off or not yet there: it is a copy of %s now", last, newest.name)


def is_finished(state: Dict[str, Any], checkpoint: Any, optimization: Any) -> bool:
    """Whether a training that restores *state* has no update left to do, by fairseq's options
    *checkpoint* and *optimization*."""
    updates, epoch = 0, 1
    if not checkpoint.reset_optimizer and state.get("last_optimizer_state") is not None:
        updates = (state.get("optimizer_history") or [{}])[-1].get("num_updates", 0)
    if not checkpoint.reset_dataloader:
        iterator = (state.get("extra_state") or {}).get("train_iterator") or {}  # none in crash.pt
        epoch = iterator.get("epoch", 1)  # the next, where one has ended
    return 0 < optimization.max_update <= updates or 0 < optimization.max_epoch < epoch
