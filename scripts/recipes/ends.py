"""How a training came to its end, by its log and the text that it was trained on."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Optional

from fairseq.data import data_utils

from fairseq_admin.analysis.course import Curves
from fairseq_admin.data_files import check_file
from fairseq_admin.outcome import KNOWN, Outcome, stuck, text_entropy


@lru_cache(maxsize=None)  # it reads the text
def target_entropy(data: Path, source: str, target: str) -> Optional[float]:
    """Entropy of the unigrams of the target's side of what *data*, of fairseq-preprocess, has to
    train on, sentences' ends among them, in bits a token; None where it has nothing. UserError for
    a damaged file."""
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        path = str(data / f"train.{pair}.{target}")
        if os.path.exists(f"{path}.idx"):
            check_file(path)
        text = data_utils.load_indexed_dataset(path, None)
        if text is not None:
            return text_entropy(text)
    return None


def outcome_of(
    curves: Curves, entropy: Optional[float], updates: Optional[int], stopped: bool = False
) -> Outcome:
    """What became of a training of so many *updates* (None: of as many as it made).

    A crash or a loss that is nan or inf is told before what the loss itself shows, and that it
    never left the unigrams' before that it rose.

    Args:
        stopped: it is stopped where it is known to be stuck: the first point after a third of the
            updates decides, and what comes later, until it was stopped, changes nothing.
    """
    last = curves.train[-1][0] if curves.train else 0
    points, third = curves.train, KNOWN * (updates or last)
    if not stopped and last < third:  # it ended before, by epochs say
        third = KNOWN * last
    if stopped:
        points = next(([point] for point in points if point[0] >= third), [])
    known = entropy and stuck(points, entropy, third)
    if curves.diverged is not None and not (known and (stopped or curves.rose)):
        return Outcome("diverged", curves.diverged)
    return Outcome("stuck", known) if known else Outcome("trained", last)
