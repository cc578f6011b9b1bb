"""The models that are looked at, and the sentences that they read."""

import inspect
import os
import random
from argparse import Namespace
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Tuple

from fairseq.utils import import_user_module
from torch import nn

from fairseq_admin.analysis.building import (
    Subject,
    architecture,
    check_architecture,
    checkpoint,
    data_task,
    is_method,
)
from fairseq_admin.analysis.labels import shortest
from fairseq_admin.arguments import given
from fairseq_admin.batch import TOKEN_LIMIT, draw_batch
from fairseq_admin.checkpoints.random_text import random_batch
from fairseq_admin.data_files import described, other_dictionaries
from fairseq_admin.errors import UserError
from fairseq_admin.profiling import profile_model, profiled

LAYERS = ("--encoder-layers", "--decoder-layers")
WITHOUT_EFFECT = ("--seed", "--omega-file", "--profile-tokens", "--profile-seed")
LENGTHS = (5, 30)  # tokens of a random sentence
Batch = Dict[str, Any]


def check_options(options: Namespace, rest: List[str]) -> None:
    """Raise UserError for what contradicts itself or would have no effect."""
    depths = options.depths
    if options.user_dir and not os.path.isdir(options.user_dir):
        raise UserError(f"no such folder: {options.user_dir} (--user-dir)")
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: give 1 or more")
    if depths and min(depths) < 1:
        raise UserError("--depths: give 1 or more layers")
    if options.split and not options.data:
        raise UserError(f"--split {options.split} is of --data: give that too")
    for option in WITHOUT_EFFECT:
        if given(rest, option):
            raise UserError(f"{option} has no effect here: see --seeds and --tokens")
    if given(rest, "--arch") or given(rest, "-a"):
        raise UserError("give architectures by name, as MODEL, instead of --arch")
    if depths and any(given(rest, option) for option in LAYERS):
        raise UserError("give either --depths or --encoder-layers and --decoder-layers")
    if all(map(os.path.isfile, options.models)):
        of_new = {"--depths": depths, "--parameter-init": options.parameter_init}
        for option in (*rest[:1], *filter(of_new.get, of_new)):
            raise UserError(f"{option} is for architectures; these are checkpoints")
    for name in filter(is_method, options.models):
        if any("-normalize-before" in option for option in rest):
            raise UserError(f"{name} says where its norms are: give transformer and that option")
        if given(rest, "--residual"):
            raise UserError(f"{name} is a residual method: give transformer_admin and --residual")


def subjects(options: Namespace, rest: List[str]) -> Iterator[Tuple[Subject, Batch]]:
    """Each model with each seed, an architecture at each depth too, and the batch it reads, one
    after another: one at a time is in memory unless the caller keeps it. A new model of a
    method with a profile is profiled on its batch.

    Args:
        options: of `fairseq-admin analyze` with an analysis that runs models.
        rest: the options of `fairseq-train` for architectures.

    Raises:
        UserError: for a checkpoint, architecture or data that cannot be looked at.
    """
    check_options(options, rest)
    if options.user_dir:
        import_user_module(options)
    real = {os.path.realpath(x) if os.path.isfile(x) else x for x in options.models}
    if len(real) < len(options.models):
        raise UserError("a model is given twice")
    for name in options.models:
        if not os.path.isfile(name):
            check_architecture(name)
    files = [name for name in options.models if os.path.isfile(name)]
    labels = {}
    for path, label in zip(files, shortest(files)):
        name = label.replace(".pt", "")
        labels[path] = label if name in options.models else name  # it may be an architecture's
    depths = options.depths
    if not depths and not any(given(rest, option) for option in LAYERS):
        depths = options.default_depths
    for name in options.models:
        built = checkpoint(name, labels[name]) if name in labels else None
        for depth in [None] if built else depths or [None]:
            for seed in range(1, options.seeds + 1):
                if built:
                    subject = replace(built, seed=seed)
                else:
                    subject = architecture(name, depth, seed, options, rest)
                batch = batch_of(subject, options)
                if not built and profiled(subject.model):
                    profile_model(subject.model, [batch["net_input"]], subject.pad, seed)
                yield subject, batch


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


def measure_models(
    analysis: str,
    probe: Callable[[nn.Module, Batch, int], Dict[str, Any]],
    options: Namespace,
    rest: List[str],
) -> Dict[str, Any]:
    """The result of an *analysis* that runs *probe*, on model, batch and padding index, for every
    model, depth and seed."""
    models = [
        {**subject.about(), "stacks": probe(subject.model, batch, subject.pad)}
        for subject, batch in subjects(options, rest)
    ]
    return {"analysis": analysis, "models": models}
