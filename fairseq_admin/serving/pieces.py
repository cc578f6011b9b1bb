"""Whether a SentencePiece model is the one that cut a text."""

import logging
import os
from typing import List, Sequence

from fairseq.data import Dictionary, indexed_dataset

from fairseq_admin.data_files import check_file, files_of
from fairseq_admin.errors import UserError
from fairseq_admin.serving.served import SERVE
from fairseq_admin.serving.translate import cut

logger = logging.getLogger(__name__)

SPLITS = ("valid", "test", "train")
SAMPLE = 100  # sentences that are cut once more


def check_sentencepiece(
    path: str, dictionary: Dictionary, language: str, data: str, pair: Sequence[str]
) -> None:
    """Raise UserError where *path* is no SentencePiece model, or not that of *dictionary*; warn
    where it cuts the text in *data*, binarized of the *pair* of languages, otherwise than it is."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise UserError(f"SentencePiece is not installed: {SERVE}") from None
    if not os.path.isfile(path):
        raise UserError(f"no such SentencePiece model: {path}")
    try:
        model = SentencePieceProcessor(model_file=path)
    except (OSError, RuntimeError):
        raise UserError(f"{path} is no SentencePiece model") from None
    pieces = {model.id_to_piece(i) for i in range(model.get_piece_size())}
    symbols = dictionary.symbols[dictionary.nspecial :]
    known = sum(symbol in pieces for symbol in symbols)
    if 2 * known < len(symbols):  # a few are not: characters that SentencePiece left out
        raise UserError(
            f"{path} knows {known} of the {len(symbols)} symbols in dict.{language}.txt: "
            "it did not segment this data"
        )
    text = sentences(data, pair, language, dictionary)
    same = sum(cut(model, model.decode(tokens)) == tokens for tokens in text)
    if 10 * same < 9 * len(text):  # a few are not: whitespace in a piece, two ways to cut a word
        logger.warning(
            f"{path} cuts {len(text) - same} of {len(text)} sentences of {language} in {data} "
            "otherwise than they are: unless they were cut by sampling, or begin with tags, it is "
            "another model, and translations will be worse"
        )


def sentences(
    data: str, pair: Sequence[str], language: str, dictionary: Dictionary
) -> List[List[str]]:
    """Tokens of up to SAMPLE sentences of *language* from the first split that is whole; of those
    without an unknown word."""
    for split in SPLITS:
        for path in files_of(data, split, *pair):
            if not path.endswith(f".{language}"):
                continue
            try:
                if check_file(path) is None:
                    continue
            except UserError:
                continue
            text = indexed_dataset.make_dataset(path, "mmap")
            found = [text[i].tolist() for i in range(min(len(text), SAMPLE))]
            known = [tokens for tokens in found if dictionary.unk() not in tokens]
            if known:
                return [[dictionary[t] for t in x if t != dictionary.eos()] for x in known]
    return []
