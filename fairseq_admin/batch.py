"""Text to measure on: a seeded random draw of sentences within a budget of tokens."""

import math
from typing import Any, Dict, List

import numpy as np

from fairseq_admin.errors import UserError

TOKEN_LIMIT = 8192  # tokens; "fewer than 8192" in the paper's appendix, and enough for 1 % in omega
PADDED = 1.25  # positions a token at most, over both sides of a batch
PADDED_LIMIT = 8  # times the budget; bounds memory where one sentence is far longer than the rest


def draw_batches(dataset, budget: int, limits, seed: int) -> List[Dict[str, Any]]:
    """The pairs that :func:`draw` chooses, collated: those of about the same length in one batch,
    so that little is padding."""
    chosen = draw(dataset, budget, limits, seed)
    groups = grouped(np.asarray(dataset.sizes)[chosen])
    return [dataset.collater([dataset[chosen[i]] for i in group]) for group in groups]


def draw_batch(dataset, budget: int, limits, seed: int) -> Dict[str, Any]:
    """As :func:`draw_batches`, but in one batch, of at most PADDED_LIMIT times the budget."""
    chosen = draw(dataset, budget, limits, seed, PADDED_LIMIT)
    return dataset.collater([dataset[i] for i in chosen])


def check_symbols(net_inputs: List[Dict[str, Any]], model: Any) -> None:
    """Raise UserError where the text *net_inputs* of *model* holds what its dictionary does not."""
    stacks = {"src_tokens": model.encoder, "prev_output_tokens": model.decoder}
    for name, stack in stacks.items():
        largest, known = max(int(x[name].max()) for x in net_inputs), len(stack.dictionary)
        if largest >= known:
            raise UserError(
                f"the binarized text holds symbol {largest}, its dictionary has {known}: it is "
                "that of other data, or damaged; run fairseq-preprocess again"
            )


def draw(dataset, budget: int, limits, seed: int, padded: float = math.inf) -> List[int]:
    """Indices of pairs of *dataset* in a random order, as many as the budget takes.

    Args:
        dataset: of sentence pairs, a `LanguagePairDataset` or several that are sampled.
        budget: most tokens on either side, fewer than TOKEN_LIMIT.
        limits: longest source and target, as `resolve_max_positions` of fairseq gives them.
        seed: of the draw.
        padded: times the budget that all of them may take in one batch.

    Raises:
        UserError: for a budget or seed out of range, and where no pair fits.
    """
    if seed < 0:
        raise UserError(f"--profile-seed {seed}: give 0 or more")
    if not 0 < budget < TOKEN_LIMIT:
        raise UserError(f"--profile-tokens {budget}: give 1 or more and fewer than {TOKEN_LIMIT}")
    sizes = np.asarray(dataset.sizes) if len(dataset) else np.empty(0)  # (pairs, 2) in tokens
    if sizes.ndim < 2:
        raise UserError("nothing to measure: the data has no sentence pair")
    allowed, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), limits)
    chosen = choose(sizes, allowed, budget, np.random.default_rng(seed), padded)
    if not chosen:
        raise UserError(
            f"nothing to measure: of {len(dataset)} pairs none has at most {budget} "
            f"tokens a side (--profile-tokens, --tokens of an analysis) and fits the length limits "
            f"{limits}"
        )
    return chosen


def choose(
    sizes: np.ndarray, allowed, budget: int, rng: np.random.Generator, padded: float = math.inf
) -> List[int]:
    """Indices of pairs in random order until the next one would exceed the budget; those that would
    need more than *padded* times the budget in one batch are passed over.

    Args:
        sizes: tokens of the source and of the target of each pair, `(pairs, 2)`.
        allowed: indices to draw from.
        budget: most tokens on either side.
        rng: a NumPy generator.
    """
    allowed = np.asarray(allowed)
    allowed = allowed[(sizes[allowed] <= budget).all(axis=1)]
    total, longest, chosen = np.zeros(2, int), np.zeros(2, int), []
    # a pair has a token at least, so no more than `budget` pairs fit
    for i in rng.choice(allowed, min(len(allowed), budget), replace=False):
        if (total + sizes[i] > budget).any():
            break
        wider = np.maximum(longest, sizes[i])
        if (wider * (len(chosen) + 1) <= padded * budget).all():
            total, longest = total + sizes[i], wider
            chosen.append(int(i))
    return chosen


def grouped(sizes: np.ndarray, padded: float = PADDED) -> List[List[int]]:
    """Pairs of the given *sizes*, `(pairs, 2)` in tokens, by length: groups that are at most
    *padded* positions a token once each side is padded to its longest."""
    groups: List[List[int]] = []
    tokens, longest = 0, np.zeros(2, int)
    for i in np.lexsort((sizes[:, 1], sizes.sum(axis=1)))[::-1]:
        count = len(groups[-1]) + 1 if groups else 1
        wider = np.maximum(longest, sizes[i])
        if not groups or wider.sum() * count > padded * (tokens + sizes[i].sum()):
            groups.append([])
            tokens, wider = 0, sizes[i]
        groups[-1].append(int(i))
        tokens, longest = tokens + sizes[i].sum(), wider
    return groups
