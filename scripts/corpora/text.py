"""Raw pairs to Moses tokens: the part of the preparation that runs in many processes."""

import html
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

from corpora.corpus import Corpus
from corpora.reading import Line
from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import Detokenizer, TextSteps, single_spaced

CURLED = "’"
UNREADABLE = "no UTF-8"  # or a NUL byte in the line: why it is left out


@dataclass
class Batch:
    """A batch of pairs of one split (or of single lines, as tuples of one) after `Treatment`."""

    tokens: List[Tuple[str, ...]] = field(default_factory=list)  # of the pairs that stay
    raw: List[Tuple[str, ...]] = field(default_factory=list)  # of these, if asked for
    dropped: Counter = field(default_factory=Counter)  # pairs by reason
    unreadable: Optional[Tuple[int, int]] = None  # side and number of the first such line


class Treatment:
    """Turns raw pairs into tokens.

    Args:
        training: pairs may be left out.
        raw: also give the raw text of the pairs that stay, detokenized where it is tokens already.
        test: punctuation stays where the corpus is a published one, whose test set is not to be
            changed.
        form: of the text, a name of reading.FORMATS. Tokens of `segments` have U+2019 straight, as
            in fairseq's prepare-iwslt14.sh and prepare-wmt14en2de.sh; the raw text as it was. Those
            leave entities of XML as they are; here that is of published corpora alone.
    """

    def __init__(
        self, corpus: Corpus, training: bool, raw: bool, test: bool = False, form: str = "plain"
    ) -> None:
        self.corpus, self.training, self.raw, self.test = corpus, training, raw, test
        self.apostrophe = "'" if form == "segments" else CURLED
        self.entities = form == "segments" and not corpus.sources
        self.detokenize = [Detokenizer(lang) for lang in corpus.languages if corpus.tokenized]
        self.sides = [self.side(lang) for lang in corpus.languages]

    def side(self, lang: str) -> TextSteps:
        """The function from raw text to tokens of one language."""
        c = self.corpus
        normalize = c.normalize and not (self.test and c.sources)
        return TextSteps(lang, normalize, c.moses and not c.tokenized, c.aggressive, c.lowercase)

    def __call__(self, pairs: List[Tuple[Line, ...]]) -> Batch:
        batch = Batch()
        for pair in pairs:
            texts = []
            for side, (number, line) in enumerate(pair):
                try:
                    text = decoded(line)
                    texts.append(html.unescape(text) if self.entities else text)
                except UnicodeDecodeError:
                    batch.unreadable = batch.unreadable or (side, number)
            if len(texts) < len(pair):
                batch.dropped[UNREADABLE] += 1
                continue
            straight = (text.replace(CURLED, self.apostrophe) for text in texts)
            tokens = tuple(step(text) for step, text in zip(self.sides, straight))
            counts = [len(side.split()) for side in tokens]
            if self.training:
                if not all(counts):
                    batch.dropped["empty"] += 1
                    continue
                if self.corpus.clean and not self.corpus.clean.keeps(*counts):
                    batch.dropped["length or ratio"] += 1
                    continue
            batch.tokens.append(tokens)
            if self.raw:
                raw = list(map(single_spaced, texts))
                raw = [step(text) for step, text in zip(self.detokenize, raw)] or raw
                batch.raw.append(tuple(map(str.lower, raw) if self.corpus.lowercase else raw))
        return batch


def decoded(line: bytes) -> str:
    """The text of a line. Raises UnicodeDecodeError where it is none: no UTF-8, or with NUL."""
    if b"\0" in line:
        raise UnicodeDecodeError("utf-8", line, line.index(b"\0"), len(line), "NUL")
    return line.decode("utf-8")


def readable(
    batches: Iterable[Batch], paths: Sequence[Path], corpus: Corpus, training: bool = True
) -> Iterator[Batch]:
    """*batches*, which the lines of *paths* became.

    Raises:
        UserError: after the last one, where more lines were unreadable than `corpus.unreadable`;
            where the text is not for *training*, any.
    """
    first, bad, lines = (0, 0), 0, 0
    for batch in batches:
        if batch.unreadable and not bad:
            first = batch.unreadable
        bad += batch.dropped[UNREADABLE]
        lines += len(batch.tokens) + batch.dropped.total()
        yield batch
    if bad > (corpus.unreadable if training else 0) * lines:
        side, number = first
        more = ", or leave out so many of its lines by --unreadable SHARE" if training else ""
        raise UserError(
            f"{paths[side]}, line {number}: no UTF-8, or a NUL byte; {bad:,} of {lines:,} lines "
            f"are such: convert the file, for example by iconv -f ISO-8859-1 -t UTF-8{more}"
        )


def share(given: str) -> float:
    """An option's number of 0 to 1. Raises ValueError, which argparse tells, for what is none."""
    number = float(given)
    if not 0 <= number <= 1:
        raise ValueError(given)
    return number
