"""Joint SentencePiece BPE of the two sides' tokens."""

import io
import itertools
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import sentencepiece

from corpora.corpus import Clean
from fairseq_admin.errors import UserError

SAMPLE = 1_000_000  # lines a side to train on, evenly spread: bounds the memory
LONGEST = 16384  # bytes of a line to train on
MODEL = "spm.model"


def every(path: Path, step: int) -> Iterator[str]:
    """Every *step*-th line of a file."""
    with open(path, encoding="utf-8", newline="\n") as f:
        for line in itertools.islice(f, 0, None, step):
            yield line.rstrip("\n")


def train(paths: Sequence[Path], lines: int, types: int, coverage: float, model: Path) -> None:
    """Train a BPE model on the files *paths*, of *lines* lines each, and write it to *model*.

    The text is taken as it is (no Unicode normalization), so that joined pieces give it back.
    One thread and no sampling by chance: the same text gives the same model.

    Raises:
        UserError: where the text is too small for so many *types*.
    """
    step = max(1, -(-lines // SAMPLE))
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain(*(every(path, step) for path in paths)),
            model_writer=buffer,
            model_type="bpe",
            vocab_size=types,
            character_coverage=coverage,
            normalization_rule_name="identity",
            max_sentence_length=LONGEST,
            num_threads=1,
            minloglevel=2,  # errors only
        )
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"no {types} subwords from {paths[0].name} and {paths[1].name}: {error}; for a small "
            "text give --subwords with a smaller number"
        ) from None
    model.write_bytes(buffer.getvalue())


_processor: Optional[sentencepiece.SentencePieceProcessor] = None  # of this process
_clean: Optional[Clean] = None


def prepare(model: str, clean: Optional[Clean]) -> None:
    """Load the model of this process."""
    global _processor, _clean
    _processor, _clean = sentencepiece.SentencePieceProcessor(model_file=model), clean


def encode(pairs: List[Tuple[str, ...]]) -> Tuple[List[Optional[Tuple[str, ...]]], int]:
    """*pairs* (or single lines, as tuples of one) in pieces separated by spaces, None for those
    that cleaning leaves out; and the number of pieces of the longest line."""
    sides = [_processor.encode(list(side), out_type=str) for side in zip(*pairs)]
    encoded = []
    for pieces in zip(*sides):
        keep = _clean is None or _clean.keeps(len(pieces[0]), len(pieces[-1]))
        encoded.append(tuple(map(" ".join, pieces)) if keep else None)
    return encoded, max((len(pieces) for side in sides for pieces in side), default=0)
