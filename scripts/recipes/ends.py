"""How a training came to its end, by its log and the text that it was trained on."""

from functools import lru_cache
from pathlib import Path
from typing import Optional

import numpy as np
from fairseq.data import data_utils

from fairseq_admin.analysis.logs import Curves
from fairseq_admin.outcome import KNOWN, Outcome, stuck, unigram_entropy


@lru_cache(maxsize=None)  # it reads the whole text
def target_entropy(data: Path, source: str, target: str) -> Optional[float]:
    """Entropy of the unigrams of the target's side of what *data*, of fairseq-preprocess, has to
    train on, sentences' ends among them, in bits a token; None where it has nothing."""
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        text = data_utils.load_indexed_dataset(str(data / f"train.{pair}.{target}"), None)
        if text is not None:
            counts = np.zeros(1, dtype=np.int64)
            for i in range(len(text)):
                found = np.bincount(text[i].numpy(), minlength=len(counts))
                found[: len(counts)] += counts
                counts = found
            return unigram_entropy(counts)
    return None


def outcome_of(curves: Curves, entropy: Optional[float], updates: Optional[int]) -> Outcome:
    """What became of a training of so many *updates* (None: of as many as it made).

    A crash or a loss that is nan or inf is told before what the loss itself shows, and that it
    never left the unigrams' before that it rose. What comes after the update at which a training
    was known to be stuck changes nothing: it may have been stopped there, or some time later.
    """
    last = curves.train[-1][0] if curves.train else 0
    known = entropy and stuck(curves.train, entropy, KNOWN * (updates or last))
    if curves.diverged is not None and not (known and curves.rose):
        return Outcome("diverged", curves.diverged)
    return Outcome("stuck", known) if known else Outcome("trained", last)
