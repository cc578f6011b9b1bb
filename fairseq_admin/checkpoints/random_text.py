"""Sentence pairs of random tokens, for measuring models without data."""

from typing import Any, Dict, Sequence, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate


def dictionary(types: int) -> Dictionary:
    """fairseq's symbols and as many others as make *types*."""
    made = Dictionary()
    for i in range(types - len(made)):
        made.add_symbol(f"w{i}")
    return made


def random_batch(
    lengths: Sequence[Tuple[int, int]], types: Tuple[int, int], seed: int = 1
) -> Dict[str, Any]:
    """A batch as fairseq collates and pads it, of random sentences that end with `</s>`.

    Args:
        lengths: source and target tokens of each pair, the end counted.
        types: sizes of the two dictionaries.
        seed: of the tokens; torch's global generator is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    symbols = Dictionary()

    def sentence(count: int, length: int) -> torch.Tensor:
        tokens = torch.randint(count, (length,), generator=generator)
        tokens[tokens == symbols.pad()] = symbols.unk()
        tokens[-1] = symbols.eos()
        return tokens

    samples = [
        {"id": i, "source": sentence(types[0], source), "target": sentence(types[1], target)}
        for i, (source, target) in enumerate(lengths)
    ]
    return collate(samples, symbols.pad(), symbols.eos())
