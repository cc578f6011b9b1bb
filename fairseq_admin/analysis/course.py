"""The course of a training: train and valid perplexity over updates, and whether it diverged."""

import math
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from fairseq_admin.outcome import NAN, Points

DIVERGED = 2.0  # times the best train perplexity before; noise of a stuck run is below 1.5
PATIENCE = 3  # last points above that: fewer may be noise
RISE = f"train perplexity rose above {DIVERGED:g} times its best"
CRASHES = {
    NAN: "gradients are nan or inf",
    "Minimum loss scale reached": "loss scale at its minimum",
}


@dataclass
class Curves:
    """Train and valid perplexity over updates, finite points only.

    A run diverged where its train perplexity rose above DIVERGED times its best before and stayed
    there to the end: for PATIENCE points, or becoming nan or inf, or until fairseq gave up. It also
    diverged where fairseq gave up for nan or inf gradients or for the loss scale, or where the last
    valid perplexity is nan or inf. A run that never learned, or recovered, did not diverge.

    Attributes:
        diverged: the first update of the rise, else the last one logged; None if it did not.
        reason: why it counts as diverged, in a few words.
        stuck: the update at which `translation_admin` told that the model does not learn.
    """

    train: Points
    valid: Points
    diverged: Optional[int] = None
    reason: Optional[str] = None
    stuck: Optional[int] = None

    def __bool__(self) -> bool:
        """Whether anything is known of the training."""
        return bool(self.train or self.valid or self.reason)

    @property
    def crashed(self) -> bool:
        """Whether fairseq gave up."""
        return self.reason in CRASHES.values()

    @property
    def rose(self) -> bool:
        """Whether it diverged by the rise of its perplexity alone, and went on."""
        return self.reason == RISE


def add(curves: Dict[str, Points], name: str, update: int, ppl: float) -> None:
    """Append a point to the curve *name*. What a resumed run does again takes the place of what was
    there, and so does a new one of all that came after."""
    points = curves.setdefault(name, [])
    for some in curves.values():
        while some and (some[-1][0] > update or (some is points and some[-1][0] == update)):
            some.pop()
    points.append((update, ppl))


def assemble(curves: Dict[str, Points], crash: Optional[str] = None, twice: bool = False) -> Curves:
    """Curves of what was logged by name: train_inner else train, valid else the first subset. Where
    the loss was counted *twice*, by R-Drop, what was logged is the square of the perplexity."""
    if twice:
        curves = {k: [(n, max(ppl, 0) ** 0.5) for n, ppl in x] for k, x in curves.items()}
    train = curves.get("train_inner", [])
    begin = train[0][0] if train else math.inf  # before it a start may have logged by epochs alone
    train = [point for point in curves.get("train", []) if point[0] < begin] + train
    subsets = [name for name in curves if name not in ("train_inner", "train")]
    valid = curves["valid" if "valid" in subsets else subsets[0]] if subsets else []
    diverged, reason = divergence(train, valid, crash)
    finite = ([point for point in points if math.isfinite(point[1])] for points in (train, valid))
    return Curves(*finite, diverged, reason)


def divergence(
    train: Points, valid: Points, crash: Optional[str]
) -> Tuple[Optional[int], Optional[str]]:
    """When and why a run diverged, as Curves says; *crash* is why fairseq gave up, if it did."""
    best, high = math.inf, []
    for update, ppl in train:
        if math.isfinite(ppl) and ppl <= DIVERGED * best:
            best, high = min(best, ppl), []
        else:
            high.append((update, ppl))
    infinite = any(not math.isfinite(ppl) for _, ppl in high)
    if high and (crash or infinite or len(high) >= PATIENCE):
        return high[0][0], crash or ("train perplexity is nan or inf" if infinite else RISE)
    if crash:
        return max((points[-1][0] for points in (train, valid) if points), default=0), crash
    if valid and not math.isfinite(valid[-1][1]):
        return valid[-1][0], "valid perplexity is nan or inf"
    return None, None
