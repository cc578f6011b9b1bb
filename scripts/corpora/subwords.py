"""Joint SentencePiece BPE of the two sides."""

import io
import re
from array import array
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np
import sentencepiece
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset, best_fitting_int_dtype

from corpora.corpus import Clean
from corpora.parallel import batches, in_order, progress
from corpora.splits import read_lines
from fairseq_admin.errors import UserError

SAMPLE = 1_000_000  # lines a side to train on, evenly spread: bounds the memory
LONGEST = 16384  # bytes of a line to train on
MODEL = "spm.model"
OR = " (`subwords` of a corpus.yaml)"
MULTIPLE = 8  # of types, for tensor cores: as fairseq-preprocess pads


def train(
    paths: Sequence[Path],
    lines: int,
    model: Path,
    types: int,
    coverage: float,
    symbols: Sequence[str] = (),
) -> None:
    """Train a BPE model on the files *paths*, of *lines* lines each, and write it to *model*:
    *types*, of which each of *symbols* is one that no other holds.

    The text is taken as it is (no Unicode normalization), so that joined pieces give it back.
    No sampling by chance, and one thread: the model's file names their number, and the same text
    is to give the same bytes. More would find the same pieces, hardly sooner: BPE merges on one.

    Raises:
        UserError: where the text is too small for so many *types*, or has more characters.
    """
    step = max(1, -(-lines // SAMPLE))
    sample = (line for p in paths for (line,) in islice(read_lines([p]), 0, None, step))
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sample,
            model_writer=buffer,
            model_type="bpe",
            vocab_size=types,
            character_coverage=coverage,
            user_defined_symbols=list(symbols),
            normalization_rule_name="identity",
            max_sentence_length=LONGEST,
            num_threads=1,
            minloglevel=2,  # errors only
        )
    except (RuntimeError, OSError) as error:
        names = f"{paths[0].name} and {paths[1].name}"
        raise UserError(f"no {types} subwords from {names}: {reason(error)}") from None
    model.write_bytes(buffer.getvalue())


def reason(error: Exception) -> str:
    """What SentencePiece's *error* says is wrong with the number of types, and what to do."""
    said = " ".join(str(error).split())
    if m := re.search(r"too high .* <= (\d+)", said):
        return f"there are no more than {m[1]}: give --subwords {m[1]} or a smaller number{OR}"
    if m := re.search(r"smaller than required_chars\. \d+ vs (\d+)", said):
        return f"characters alone take {m[1]}: give --subwords {m[1]} or a larger number{OR}"
    if "insert_id" in said:  # of <unk>, <s> and </s>
        return f"too few: give --subwords with a larger number{OR}"
    return said


def dictionary(model: Path) -> Dictionary:
    """fairseq's dictionary of the pieces of *model*. A character that is in none of them, which
    SentencePiece gives as it is, is <unk> then, and no entry for each word of such characters."""
    processor, made = sentencepiece.SentencePieceProcessor(model_file=str(model)), Dictionary()
    for i in range(processor.get_piece_size()):
        if not (processor.is_control(i) or processor.is_unknown(i)):
            made.add_symbol(processor.id_to_piece(i))
    made.pad_to_multiple_(MULTIPLE)
    return made


class Encoder:
    """Cuts pairs of lines (or single lines, as tuples of one) by *model*; *clean* says which stay,
    None: all."""

    def __init__(self, model: Path, clean: Optional[Clean]) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        self.clean = clean

    def __call__(self, pairs: List[Tuple[str, ...]]) -> Tuple[List[Any], Tuple[int, int]]:
        """*pairs* in pieces separated by spaces, None for those that cleaning leaves out; and of
        the longest line the number of pieces and the index."""
        sides = [self.processor.encode(list(side), out_type=str) for side in zip(*pairs)]
        encoded, longest = [], (0, 0)
        for index, pieces in enumerate(zip(*sides)):
            longest = max(longest, (max(map(len, pieces)), index))
            keep = self.clean is None or self.clean.keeps(len(pieces[0]), len(pieces[-1]))
            encoded.append(tuple(map(" ".join, pieces)) if keep else None)
        return encoded, longest


def ids(model: Path) -> Callable[[List[str]], Tuple[bytes, List[int]]]:
    """The function from lines of pieces to fairseq's binarized data: the types, each line's
    followed by </s>; and how many each line has."""
    words = dictionary(model)
    find, unknown, end = words.indices.get, words.unk(), words.eos()
    dtype = best_fitting_int_dtype(len(words))

    def ids_of(lines: List[str]) -> Tuple[bytes, List[int]]:
        numbers = [[*(find(piece, unknown) for piece in line.split()), end] for line in lines]
        flat = np.fromiter((number for line in numbers for number in line), dtype)
        return flat.tobytes(), list(map(len, numbers))

    return ids_of


def binarize(pieces: Path, total: int, model: Path, prefix: Path, processes: int) -> None:
    """Write the *total* lines of a file of pieces as PREFIX.bin and PREFIX.idx, fairseq's own."""
    sizes = array("i")
    with ExitStack() as stack:
        text = stack.enter_context(open(pieces, encoding="utf-8", newline="\n"))
        data = stack.enter_context(open(f"{prefix}.bin", "wb"))
        show = stack.enter_context(progress(f"bin: {pieces.name}"))
        for types, lengths in in_order(partial(ids, model), batches(text), processes):
            data.write(types)
            sizes.extend(lengths)
            show(len(sizes) / total)
    dtype = best_fitting_int_dtype(len(dictionary(model)))
    with MMapIndexedDataset.Index.writer(f"{prefix}.idx", dtype) as index:
        index.write(sizes)
