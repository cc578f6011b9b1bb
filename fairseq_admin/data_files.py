"""The files of binarized data: those of a split, and that they are whole."""

import hashlib
import os
import struct
from itertools import count
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from fairseq.data import Dictionary, indexed_dataset

from fairseq_admin.errors import UserError, one_line

MAGIC = indexed_dataset.MMapIndexedDataset.Index._HDR_MAGIC
HEAD = struct.Struct(f"<{len(MAGIC)}sQBQ")  # magic, version, type of a token, sentences
SIZE, POINTER = np.dtype("<i4"), np.dtype("<i8")  # of each sentence, in this order
BLOCK = 1 << 20  # sentences that are looked at together
PAIRS = ("languages", "dictionaries")  # in `described`, of source and target
AGAIN = "copy it again, or run fairseq-preprocess again"


def described(languages: Sequence[str], dictionaries: Sequence[Dictionary]) -> Dict[str, Any]:
    """What a checkpoint keeps of the text that it was trained on: *languages* and hashes of the
    *dictionaries* of source and target."""
    symbols = ("\n".join(dictionary.symbols).encode() for dictionary in dictionaries)
    hashes = [hashlib.sha256(text).hexdigest() for text in symbols]
    return {"languages": list(languages), "dictionaries": hashes}


def text_of(state: Dict[str, Any]) -> Dict[str, Any]:
    """What `described` of the text that the checkpoint *state* was trained on; empty where it does
    not tell, or another task's."""
    text = (state.get("task_state") or {}).get("text")
    told = [text.get(key) for key in PAIRS] if isinstance(text, dict) else [None]
    ours = all(isinstance(x, list) and [*map(type, x)] == [str, str] for x in told)
    return text if ours else {}


def other_dictionaries(text: Dict[str, Any], other: Dict[str, Any]) -> bool:
    """Whether two texts, as `described`, are known to have other dictionaries."""
    found = [x.get("dictionaries") for x in (text, other)]
    return None not in found and found[0] != found[1]


def check_dictionaries(state: Dict[str, Any], found: List[str], other: str, path: str) -> None:
    """Raise UserError where the checkpoint *state* of the file *path* was trained with other
    dictionaries than those with the hashes *found*: as many symbols in another order fit it."""
    if other_dictionaries(text_of(state), {"dictionaries": found}):
        raise UserError(
            f"{path} was trained with other dictionaries than these data have: give the data of "
            f"its training, or {other}"
        )


def read_dictionary(folder: str, language: str) -> Dictionary:
    """The dictionary of *language* in *folder*; UserError where there is none to read."""
    path = os.path.join(folder, f"dict.{language}.txt")
    if not os.path.isfile(path):
        raise UserError(f"no such dictionary: {path}")
    try:
        return Dictionary.load(path)
    except Exception as error:  # RuntimeError, ValueError, AssertionError, by what is wrong
        raise UserError(f"{path} is no dictionary of fairseq: {one_line(error)}") from None


def check_pairs(folder: str, split: str, source: str, target: str, kind: Optional[str]) -> None:
    """Raise UserError where *folder* holds no whole pairs of *split* in files of a *kind* of
    fairseq's `--dataset-impl`."""
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        prefix = os.path.join(folder, f"{split}.{pair}.")
        if all(indexed_dataset.dataset_exists(prefix + lang, kind) for lang in (source, target)):
            check_parts(folder, split, source, target)
            return
    raise UserError(
        f"no split {split} of {source} and {target} in {os.path.abspath(folder)}: run "
        "fairseq-preprocess with it, or name another by --train-subset or --valid-subset"
    )


def check_parts(folder: str, split: str, source: str, target: str, combine: bool = False) -> int:
    """Count the parts of *split*: `train`, `train1` and so on if fairseq is to *combine* them, else
    the first alone. Raises UserError for a file that holds nothing or is damaged, and for sides of
    different numbers of sentences."""
    for part in count():
        files = files_of(folder, f"{split}{part or ''}", source, target)
        counts = {path: check_file(path) for path in files}
        if len(set(counts.values()) - {None}) > 1:
            told = ", ".join(f"{path} {n} sentences" for path, n in counts.items())
            raise UserError(f"the sides are not of one text: {told}; {AGAIN}")
        if not files or not combine:
            return part + bool(files)


def files_of(folder: str, part: str, source: str, target: str) -> List[str]:
    """Paths of the indexed files of *part* that fairseq reads, without their endings."""
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        paths = [os.path.join(folder, f"{part}.{pair}.{lang}") for lang in (source, target)]
        if os.path.exists(f"{paths[0]}.idx"):
            return [path for path in paths if os.path.exists(f"{path}.idx")]
    return []


def check_file(path: str) -> Optional[int]:
    """How many sentences PATH.idx and PATH.bin hold; None for files of another kind than
    fairseq-preprocess writes by default. Raises UserError where they hold nothing, less than the
    first promises, or where the first is damaged."""
    index, data = f"{path}.idx", f"{path}.bin"
    try:
        file = open(index, "rb")  # noqa: SIM115  see below
    except OSError as error:
        raise UserError(f"cannot read {index}: {error.strerror}") from None
    with file as f:
        head = f.read(HEAD.size)
        if not MAGIC.startswith(head[: len(MAGIC)]):
            if indexed_dataset.infer_dataset_impl(path) is None:
                raise UserError(f"{index} is no index of binarized text: {AGAIN}")
            return None
        if len(head) < HEAD.size:
            raise UserError(f"{index} is cut off: {AGAIN}")
        _, _, kind, sentences = HEAD.unpack(head)
        pointers = HEAD.size + SIZE.itemsize * sentences
        end = pointers + POINTER.itemsize * sentences
        if os.path.getsize(index) < end:
            raise UserError(f"{index} is cut off: {AGAIN}")
        if sentences == 0:
            raise UserError(f"nothing to read: {data} holds no sentence")
    sizes = np.memmap(index, SIZE, "r", HEAD.size, sentences)
    starts = np.memmap(index, POINTER, "r", pointers, sentences)
    promised, token = 0, np.dtype(indexed_dataset._code_to_dtype.get(kind, "V0")).itemsize
    for first in range(0, sentences, BLOCK):  # each sentence begins where the one before it ends
        block = slice(first, first + BLOCK)
        ends = promised + np.cumsum(token * sizes[block].astype(np.int64))
        begins = np.append(promised, ends[:-1])
        if not token or (sizes[block] < 0).any() or (starts[block] != begins).any():
            raise UserError(f"{index} is damaged: {AGAIN}")
        promised = int(ends[-1])
    there = os.path.getsize(data) if os.path.isfile(data) else 0
    if there < promised:
        raise UserError(f"{data} is cut off: {there:,} of {promised:,} bytes are there; {AGAIN}")
    return sentences
