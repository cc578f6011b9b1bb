"""The mean of several checkpoints of one training."""

import logging
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import torch
from torch import Tensor

from fairseq_admin.checkpoints.checkpoint import (
    finite,
    method,
    model_options,
    read_checkpoint,
    same_memory,
    seed_of,
    task_options,
    with_equal_embeddings_tied,
)
from fairseq_admin.data_files import other_dictionaries, text_of
from fairseq_admin.errors import UserError
from fairseq_admin.fit import COMPUTED_BY
from fairseq_admin.restoring import last_checkpoint

logger = logging.getLogger(__name__)

EPOCHS = re.compile(r"checkpoint(\d+)\.pt")
UPDATES = re.compile(r"checkpoint_\d+_(\d+)\.pt")

EMA = ("ema", "ema_fp32_params")  # of --store-ema: the other mean of the same training

LANGUAGES = ("source_lang", "target_lang")  # None where they were inferred from the data
COMPARED = (
    "_name",
    *COMPUTED_BY,
    "encoder_normalize_before",
    "decoder_normalize_before",
    "method",
    "learn_first_omega",
    *LANGUAGES,
)


def last_checkpoints(
    folder: str, count: int, updates: bool = False, upper_bound: Optional[int] = None
) -> List[str]:
    """The last *count* checkpoints that fairseq wrote to *folder*, newest first: those of epochs
    (`checkpoint90.pt`), or with *updates* those of updates (`checkpoint_90_100000.pt`); none after
    the epoch, or the number of updates, *upper_bound*. Raises UserError where there are fewer, and
    as `check_course`."""
    pattern = UPDATES if updates else EPOCHS
    found = []
    for name in os.listdir(folder):
        match = pattern.fullmatch(name)
        if match and (upper_bound is None or int(match.group(1)) <= upper_bound):
            found.append((int(match.group(1)), os.path.join(folder, name)))
    if len(found) < count:
        kind = "updates (checkpoint_E_U.pt)" if updates else "epochs (checkpointE.pt)"
        bound = "" if upper_bound is None else f" up to {upper_bound}"
        raise UserError(
            f"{folder} has {len(found)} checkpoints of {kind}{bound}, not {count}: ask for fewer, "
            "or train with more of them kept (--keep-last-epochs, --keep-interval-updates)"
        )
    paths = [path for _, path in sorted(found, reverse=True)[:count]]
    check_course(paths[0])
    return paths


def check_course(path: str) -> None:
    """Raise UserError where the training of the checkpoint *path* has gone back to before it: it
    is of a course that was given up, and has more updates than the last, which is later."""
    last = last_checkpoint(os.path.dirname(path))
    there = last.exists() and os.path.exists(path)
    if there and last.stat().st_mtime_ns >= os.stat(path).st_mtime_ns:
        updates, now = map(updates_of, (path, last))
        if updates and now and updates > now:
            raise UserError(
                f"{path} is of update {updates}, and {last.name}, which is later, of {now}: the "
                "training went back, or its optimizer was reset; move what was given up away"
            )


def updates_of(path: Union[str, Path]) -> Optional[int]:
    """Updates that the checkpoint *path* was trained for, None where it does not tell; its weights
    are not read."""
    with suppress(Exception):  # whatever a damaged file makes torch stumble over
        how = {"mmap": zipfile.is_zipfile(path), "weights_only": True}
        state = torch.load(path, map_location="cpu", **how)
        return int(state["optimizer_history"][-1]["num_updates"])
    return None


def average(paths: List[str]) -> Dict[str, Any]:
    """A checkpoint whose weights are the mean of those in the files *paths*.

    Sums are kept in fp32 (fp64 for fp64 files) whatever the files hold, and one file is read at a
    time. Configuration, task state and the rest are those of the first file; the optimizer's state,
    which belongs to no mean, is left out. ``extra_state["averaged"]`` names the files.

    Raises UserError for models of another architecture or shape, naming the first key that differs,
    and for weights that are no finite numbers.
    """
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UserError(f"the same file twice: {', '.join(paths)}")
    first = read_checkpoint(paths[0])
    names: Dict[tuple, str] = {}  # of each tensor the first key, by its memory
    tied = {key: names.setdefault(same_memory(t), key) for key, t in first["model"].items()}
    means = {key: wide(first["model"][key]) for key in names.values()}  # sums until all are read
    first["model"] = {key: tensor.to("meta") for key, tensor in first["model"].items()}
    text = text_of(first)
    for path in paths[1:]:
        state = read_checkpoint(path)
        check_same_model(first, state, paths[0], path)
        if other_dictionaries(text, text_of(state)):
            raise UserError(f"{path} was trained with other dictionaries than those before it")
        text = text or text_of(state)
        for key, name in tied.items():
            tensor = state["model"][key]
            if key != name and not torch.equal(tensor, state["model"][name]):
                raise UserError(f"{key} is tied to {name} in {paths[0]}, but not in {path}")
            if key == name and tensor.is_floating_point():
                means[key] += tensor
        del state, tensor
    for key, mean in means.items():
        if mean.is_floating_point():
            if not finite(mean):
                raise UserError(f"{key} is not finite in one of {', '.join(paths)}")
            means[key] = mean.div_(len(paths)).to(first["model"][key].dtype)
    extra_state = {k: v for k, v in (first.get("extra_state") or {}).items() if k not in EMA}
    # the file and its folder, not where on this machine they are
    extra_state["averaged"] = [
        os.path.join(*os.path.abspath(path).split(os.sep)[-2:]) for path in paths
    ]
    model = with_equal_embeddings_tied({key: means[name] for key, name in tied.items()})
    return {**first, "model": model, "extra_state": extra_state}


def wide(tensor: Tensor) -> Tensor:
    """A copy of *tensor* in fp32 or, if it is that, fp64; integers as they are."""
    if not tensor.is_floating_point():
        return tensor.clone()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


def check_same_model(a: Dict[str, Any], b: Dict[str, Any], path_a: str, path_b: str) -> None:
    """Raise UserError with the first option or weight in which two checkpoints differ."""
    options_a, options_b = (
        {**task_options(x), **model_options(x), "method": method(x)} for x in (a, b)
    )
    for name in COMPARED:
        values = [options_a.get(name), options_b.get(name)]
        if values[0] != values[1] and not (name in LANGUAGES and None in values):
            name_shown = "architecture" if name == "_name" else name
            raise UserError(
                f"{path_b} is another model: its {name_shown} is {values[1]}, that of {path_a} is "
                f"{values[0]}"
            )
    weights_a, weights_b = a["model"], b["model"]
    for key in [*weights_a, *weights_b]:
        if key not in weights_a or key not in weights_b:
            there, missing = (path_a, path_b) if key in weights_a else (path_b, path_a)
            raise UserError(f"{there} has {key}, {missing} does not: they are different models")
        if weights_a[key].shape != weights_b[key].shape:
            raise UserError(
                f"{key} is {tuple(weights_b[key].shape)} in {path_b} and "
                f"{tuple(weights_a[key].shape)} in {path_a}: they are different models"
            )
        if weights_a[key].dtype != weights_b[key].dtype:
            dtypes = weights_b[key].dtype, weights_a[key].dtype
            raise UserError(f"{key} is {dtypes[0]} in {path_b} and {dtypes[1]} in {path_a}")
    seed_a, seed_b = (seed_of(x) for x in (a, b))
    if seed_a != seed_b:
        logger.warning(
            f"{path_b} is of seed {seed_b}, {path_a} of {seed_a}: the mean of two trainings is no "
            "model"
        )
