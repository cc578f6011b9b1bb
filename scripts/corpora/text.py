"""Raw pairs to Moses tokens: the part of the preparation that runs in many processes."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

from corpora.corpus import Corpus
from corpora.reading import Line
from fairseq_admin.scoring.moses import Detokenizer, TextSteps, single_spaced

CURLED = "’"


@dataclass
class Batch:
    """A batch of pairs of one split after :class:`Treatment`."""

    kept: List[int] = field(default_factory=list)  # indices into the batch
    tokens: List[Tuple[str, str]] = field(default_factory=list)  # of the kept pairs
    raw: List[Tuple[str, str]] = field(default_factory=list)  # of the kept pairs, if asked for
    dropped: Counter = field(default_factory=Counter)  # pairs by reason
    unreadable: Optional[Tuple[int, int]] = None  # side and number of the first line not UTF-8


class Treatment:
    """Turns raw pairs into tokens.

    Args:
        training: pairs may be left out.
        raw: also give the raw text of the pairs that stay, detokenized where it is tokens already.
        test: punctuation stays, since a published test set is not to be changed.
        form: of the text, a name of reading.FORMATS. Tokens of `segments` have U+2019 straight, as
            in fairseq's prepare-iwslt14.sh and prepare-wmt14en2de.sh; the raw text as it was.
    """

    def __init__(
        self, corpus: Corpus, training: bool, raw: bool, test: bool = False, form: str = "plain"
    ) -> None:
        self.corpus, self.training, self.raw, self.test = corpus, training, raw, test
        self.apostrophe = "'" if form == "segments" else CURLED
        self.detokenize = [Detokenizer(lang) for lang in corpus.languages if corpus.tokenized]
        self.sides = [self.side(lang) for lang in corpus.languages]

    def side(self, lang: str) -> TextSteps:
        """The function from raw text to tokens of one language."""
        c = self.corpus
        normalize = c.normalize and not self.test
        return TextSteps(lang, normalize, c.moses and not c.tokenized, c.aggressive, c.lowercase)

    def __call__(self, pairs: List[Tuple[Line, Line]]) -> Batch:
        batch = Batch()
        for index, pair in enumerate(pairs):
            texts = []
            for side, (number, line) in enumerate(pair):
                try:
                    texts.append(line.decode("utf-8"))
                except UnicodeDecodeError:
                    batch.unreadable = batch.unreadable or (side, number)
            if len(texts) < len(pair):
                batch.dropped["no UTF-8"] += 1
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
            batch.kept.append(index)
            batch.tokens.append(tokens)
            if self.raw:
                raw = list(map(single_spaced, texts))
                raw = [step(text) for step, text in zip(self.detokenize, raw)] or raw
                batch.raw.append(tuple(map(str.lower, raw) if self.corpus.lowercase else raw))
        return batch


class TargetTreatment(Treatment):
    """Turns raw training lines of the target language alone into tokens; lines that are empty or no
    UTF-8 are left out."""

    def __init__(self, corpus: Corpus) -> None:
        super().__init__(corpus, training=True, raw=False)

    def __call__(self, lines: List[Line]) -> List[str]:
        kept = []
        for _, line in lines:
            with suppress(UnicodeDecodeError):
                kept.append(self.sides[1](line.decode("utf-8")))
        return list(filter(None, kept))
