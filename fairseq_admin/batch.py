"""The batch to profile: a seeded random draw of training sentences within a budget of tokens."""

from typing import Any, Dict, List

import numpy as np

from fairseq_admin.errors import UserError

TOKEN_LIMIT = 8192  # tokens; "fewer than 8192" in the paper's appendix, and enough for 1 % in omega
PADDED_LIMIT = 8  # times the budget; bounds memory where one sentence is far longer than the rest


def draw_batch(dataset, budget: int, limits, seed: int) -> Dict[str, Any]:
    """Pairs of *dataset* in a random order, as many as the budget takes, collated.

    Args:
        dataset: of sentence pairs, a `LanguagePairDataset` or several that are sampled.
        budget: most tokens on either side, fewer than TOKEN_LIMIT.
        limits: longest source and target, as `resolve_max_positions` of fairseq gives them.
        seed: of the draw.

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
    chosen = choose(sizes, allowed, budget, np.random.default_rng(seed))
    if not chosen:
        raise UserError(
            f"nothing to measure: of {len(dataset)} pairs none has at most {budget} "
            f"tokens a side (--profile-tokens, --tokens of an analysis) and fits the length limits "
            f"{limits}"
        )
    return dataset.collater([dataset[i] for i in chosen])


def choose(sizes: np.ndarray, allowed, budget: int, rng: np.random.Generator) -> List[int]:
    """Indices of pairs in random order until the next one would exceed the budget.

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
        if (wider * (len(chosen) + 1) <= PADDED_LIMIT * budget).all():
            total, longest = total + sizes[i], wider
            chosen.append(int(i))
    return chosen
