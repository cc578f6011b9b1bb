"""The sentences that a model reads while it is looked at: of a data set, or random ones."""

import inspect
import random
from argparse import Namespace
from typing import Any, Dict, List, Tuple

from fairseq_admin.analysis.building import Subject, data_task
from fairseq_admin.batch import TOKEN_LIMIT, draw_batch
from fairseq_admin.checkpoints.random_text import random_batch
from fairseq_admin.data_files import described, other_dictionaries
from fairseq_admin.errors import UserError

LENGTHS = (5, 30)  # tokens of a random sentence
Batch = Dict[str, Any]


def random_lengths(
    budget: int, longest: Tuple[int, int], rng: random.Random
) -> List[Tuple[int, int]]:
    """Source and target tokens of sentences, together at most *budget* on either side; one at
    least."""
    lengths: List[Tuple[int, int]] = []
    totals = [0, 0]
    while True:
        pair = tuple(min(rng.randint(*LENGTHS), limit, budget) for limit in longest)
        totals = [total + length for total, length in zip(totals, pair)]
        if lengths and max(totals) > budget:
            return lengths
        lengths.append((pair[0], pair[1]))


def batch_of(subject: Subject, options: Namespace) -> Batch:
    """Sentences of the data's split, or random ones, that the model can read.

    Args:
        subject: the model; its seed is that of the draw.
        options: with ``data``, ``split`` and ``tokens``.

    Raises:
        UserError: for data that is empty or of another model, and for a model of other inputs.
    """
    if not 0 < options.tokens < TOKEN_LIMIT:
        raise UserError(f"--tokens {options.tokens}: give 1 or more and fewer than {TOKEN_LIMIT}")
    limits = subject.model.max_positions()
    longest = limits[0] or LENGTHS[1], limits[1] or LENGTHS[1]
    if options.data is None:
        lengths = random_lengths(options.tokens, longest, random.Random(subject.seed))
        batch = random_batch(lengths, subject.types, subject.seed)
    else:
        batch = drawn(subject, options, longest)
    try:
        inspect.signature(subject.model.forward).bind(**batch["net_input"])
    except TypeError as error:
        raise UserError(f"{subject.label} reads no source and target: {error}") from None
    return batch


def drawn(subject: Subject, options: Namespace, longest: Tuple[int, int]) -> Batch:
    """Sentences of the data's split."""
    task = data_task(options.data, subject.source_lang, subject.target_lang)
    dictionaries = task.source_dictionary, task.target_dictionary
    if other_dictionaries(subject.text, described((), dictionaries)):
        raise UserError(
            f"{subject.label} was trained with other dictionaries than {options.data} has: give "
            "the model's own data"
        )
    found = tuple(map(len, dictionaries))
    if found != subject.types:
        raise UserError(
            f"{subject.label} has vocabularies of {subject.types[0]} and {subject.types[1]} types, "
            f"{options.data} of {found[0]} and {found[1]}: give the model's own data"
        )
    split = options.split or "valid"
    task.load_dataset(split)
    return draw_batch(task.dataset(split), options.tokens, longest, subject.seed)
