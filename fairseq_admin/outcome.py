"""How a training ended: whether it learned anything, by its loss against that of a model that
knows only how frequent each word is."""

import math
import re
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

Points = List[Tuple[int, float]]  # (update, perplexity)

ALARM = "THIS MODEL DOES NOT LEARN"  # begins the line of a log that tells it
NAN = "gradients are Nan/Inf"  # stands in fairseq's error on one GPU
RANK = re.compile(r"rank +\d+ = -?(?:nan|inf)")  # on several, whose gradients are compared
STUCK = 0.03  # share of the unigrams' entropy within which a loss is no better
SAMPLE = 100_000  # sentences of a longer text that are counted
KNOWN = 1 / 3  # share of the updates after which that tells


class Outcome(NamedTuple):
    """`trained`, `stuck` or `diverged`, and the update at which it was known."""

    kind: str
    update: int


def unigram_entropy(counts: Sequence[float]) -> float:
    """Entropy in bits a token of a text whose types occur *counts* times; ValueError where no token
    is counted."""
    total = math.fsum(counts)
    if not total:
        raise ValueError("no token is counted")
    return -math.fsum(n / total * math.log2(n / total) for n in counts if n)


def text_entropy(text: Any) -> float:
    """Entropy in bits a token of the unigrams of *text*, a dataset of fairseq whose items are
    tensors of token ids; of one that is longer than SAMPLE sentences, of so many, evenly spread."""
    step = -(-len(text) // SAMPLE)
    tokens = np.concatenate([text[i].numpy() for i in range(0, len(text), step)])
    return unigram_entropy(np.bincount(tokens))


def is_near(ppl: float, entropy: float) -> bool:
    """Whether a perplexity is no better than that of *entropy*, in bits:
    log2(ppl) >= (1 - STUCK) * entropy."""
    return ppl >= 2 ** ((1 - STUCK) * entropy)


def stuck(points: Points, entropy: float, after: float) -> Optional[int]:
    """The first update of *points* from *after* on, where none of these has left the neighbourhood
    of *entropy*, in bits; else None."""
    later = [point for point in points if point[0] >= after]
    return later[0][0] if later and all(is_near(ppl, entropy) for _, ppl in later) else None
