"""The models that are looked at, checkpoints or architectures at initialization, and the batch."""

import argparse
import copy
import os
import random
from argparse import Namespace
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Optional, Tuple

from torch import nn

from fairseq_admin.analysis.sublayers import named_sublayers
from fairseq_admin.arguments import training_config
from fairseq_admin.batch import TOKEN_LIMIT, check_not_empty, draw_batch
from fairseq_admin.checkpoint import finite, model_options, read_checkpoint
from fairseq_admin.equivalence import build_model, types
from fairseq_admin.errors import UserError
from fairseq_admin.layers import init_feed_forward_
from fairseq_admin.profiling import named_junctions, profile_model, seeded
from fairseq_admin.random_text import dictionary, random_batch

SHORT = {  # what stands for an architecture and its options
    "post-ln": ["transformer"],
    "pre-ln": ["transformer", "--encoder-normalize-before", "--decoder-normalize-before"],
    "admin": ["transformer_admin"],
}
# activation checkpointing runs layers twice and takes no torch.autograd.grad
RECOMPUTE_NOTHING = {"checkpoint_activations": False, "offload_activations": False}
TYPES = 1000  # of the random tokens that an architecture without data reads
LENGTHS = (5, 30)  # tokens of a random sentence
Batch = Dict[str, Any]


@dataclass
class Subject:
    """A model to look at, and where it comes from."""

    label: str
    model: nn.Module
    seed: int
    pad: int
    updates: Optional[int] = None  # of the training that a checkpoint comes from
    folder: Optional[str] = None  # of the checkpoint
    profile: Optional[Dict[str, Any]] = None  # which the checkpoint keeps

    def about(self) -> Dict[str, Any]:
        """What a figure tells of it."""
        stacks = named_sublayers(self.model)
        kinds = ["pre-ln" if sublayers[0].pre_ln else "post-ln" for sublayers in stacks.values()]
        method = "/".join(dict.fromkeys(kinds))
        if any(named_junctions(self.model).values()):
            method = "admin"
        layers = [len(getattr(self.model, stack).layers) for stack in stacks]
        return {
            "label": self.label,
            "method": method,
            "layers": "-".join(map(str, layers)),
            "seed": self.seed,
            "updates": self.updates,
        }


def add_arguments(parser: argparse.ArgumentParser, seeds: int = 1) -> None:
    """The options of an analysis that runs models."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a checkpoint; or an architecture at initialization: post-ln, pre-ln (fairseq's "
        "transformer), admin, or any of fairseq's, sized by the options of fairseq-train that "
        "follow, for example --encoder-layers 18",
    )
    parser.add_argument("--data", metavar="DIR", help="binarized text (default: random tokens)")
    parser.add_argument("--split", default="valid", help="of the data (default: %(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=1000, help="most tokens a side (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=seeds,
        help="number of seeds: of weights, tokens and perturbations (default: %(default)s)",
    )
    parser.add_argument(
        "--parameter-init",
        choices=("paper", "fairseq"),
        help="of the FFN weights of every architecture, as --parameter-init of transformer_admin "
        "(default: each architecture's own)",
    )


def add_depths(parser: argparse.ArgumentParser, default: Tuple[int, ...] = ()) -> None:
    """The option for a figure over depth."""
    told = " ".join(map(str, default)) or "the architecture's own"
    parser.add_argument(
        "--depths",
        type=int,
        nargs="+",
        default=default,
        metavar="LAYERS",
        help=f"layers of each stack, of architectures (default: {told})",
    )


def subjects(options: Namespace, rest: List[str]) -> Iterator[Tuple[Subject, Batch]]:
    """Each model with each seed and the batch it reads, one after another, so that one at a time
    is in memory.

    Args:
        options: of :func:`add_arguments` and, where it has them, :func:`add_depths`.
        rest: the options of `fairseq-train` for architectures.

    Raises:
        UserError: for a checkpoint, architecture or data that cannot be looked at.
    """
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: give 1 or more")
    if min(getattr(options, "depths", ()), default=1) < 1:
        raise UserError("--depths: give 1 or more layers")
    if rest and all(map(os.path.isfile, options.models)):
        raise UserError(f"{rest[0]} is for architectures; these are checkpoints")
    for name in options.models:
        if os.path.isfile(name):
            yield from of_checkpoint(name, options)
        else:
            for depth in getattr(options, "depths", ()) or [None]:
                for seed in range(1, options.seeds + 1):
                    yield of_architecture(name, depth, seed, options, rest)


def of_checkpoint(path: str, options: Namespace) -> Iterator[Tuple[Subject, Batch]]:
    """The model of a checkpoint, once with each seed."""
    state = read_checkpoint(path)
    weights = state["model"]
    for name, weight in weights.items():
        if weight.is_floating_point() and not finite(weight):
            raise UserError(
                f"{path} holds NaN or infinite weights ({name}): the training had "
                "diverged; give an earlier checkpoint"
            )
    arch = model_options(state)["_name"]
    try:
        model = build_model({**model_options(state), **RECOMPUTE_NOTHING}, weights)
        model.load_state_dict(weights, strict=True)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path} ({arch}) is of no encoder-decoder that fairseq can build here: {error}"
        ) from None
    history = state.get("optimizer_history") or [{}]
    updates = history[-1].get("num_updates")
    folder = os.path.dirname(os.path.abspath(path))
    label = f"{os.path.basename(folder)} at {updates}" if updates else os.path.basename(path)
    profile = (state.get("task_state") or {}).get("profile")
    for seed in range(1, options.seeds + 1):
        subject = Subject(label, model, seed, model.encoder.padding_idx, updates, folder, profile)
        yield subject, batch_of(subject, types(weights), options, seed)


def of_architecture(
    name: str, depth: Optional[int], seed: int, options: Namespace, rest: List[str]
) -> Tuple[Subject, Batch]:
    """A new model, which is profiled on its batch where it is of Admin."""
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY, build_model

    arch, *own = SHORT.get(name, [name])
    if arch not in ARCH_MODEL_REGISTRY and arch not in MODEL_REGISTRY:
        raise UserError(f"{name} is neither a checkpoint nor an architecture of fairseq")
    arguments = [options.data or ".", "--arch", arch, *own, *rest]
    if depth:
        arguments += ["--encoder-layers", str(depth), "--decoder-layers", str(depth)]
    if options.parameter_init and arch.startswith("transformer_admin"):
        arguments += ["--parameter-init", options.parameter_init]
    config = copy.deepcopy(config_of(tuple(arguments)).model)  # fairseq writes into it
    for option, off in RECOMPUTE_NOTHING.items():
        setattr(config, option, off)
    if options.data:
        task = data_task(options.data)
    else:
        words = dictionary(TYPES)
        task = Namespace(source_dictionary=words, target_dictionary=words)
    with seeded(seed):
        model = build_model(config, task)
        if options.parameter_init == "paper":
            for sublayers in named_sublayers(model).values():
                for sublayer in sublayers:
                    if sublayer.kind == "ffn":
                        init_feed_forward_(sublayer.layer)
    subject = Subject(name, model, seed, task.source_dictionary.pad())
    sizes = len(task.source_dictionary), len(task.target_dictionary)
    batch = batch_of(subject, sizes, options, seed)
    if any(named_junctions(model).values()):
        profile_model(model, batch["net_input"], subject.pad, seed)
    return subject, batch


@lru_cache(maxsize=None)  # it takes fairseq seconds, and seeds do not change it
def config_of(arguments: Tuple[str, ...]):
    """The configuration of `fairseq-train` with *arguments*."""
    return training_config(list(arguments))


@lru_cache(maxsize=None)
def data_task(data: str):
    """The translation task of binarized text."""
    from fairseq.tasks import setup_task

    return setup_task(config_of((data, "--arch", "transformer")).task)


def batch_of(subject: Subject, sizes: Tuple[int, int], options: Namespace, seed: int) -> Batch:
    """Sentences of the data's split, or random ones.

    Args:
        sizes: of the two vocabularies of the model.
    """
    if not 0 < options.tokens < TOKEN_LIMIT:
        raise UserError(f"--tokens {options.tokens}: give 1 or more and fewer than {TOKEN_LIMIT}")
    longest = [n or LENGTHS[1] for n in subject.model.max_positions()]
    if options.data is None:
        rng = random.Random(seed)
        count = max(1, 2 * options.tokens // sum(LENGTHS))  # a sentence has their mean
        lengths = [tuple(min(rng.randint(*LENGTHS), n) for n in longest) for _ in range(count)]
        return random_batch(lengths, sizes, seed)
    task = data_task(options.data)
    found = len(task.source_dictionary), len(task.target_dictionary)
    if found != sizes:
        raise UserError(
            f"{subject.label} has vocabularies of {sizes[0]} and {sizes[1]} types, "
            f"{options.data} of {found[0]} and {found[1]}: give the model's own data"
        )
    check_not_empty(options.data, options.split, task.cfg.source_lang, task.cfg.target_lang)
    try:
        task.load_dataset(options.split)
    except FileNotFoundError as error:
        raise UserError(f"no split {options.split} in {options.data}: {error}") from None
    return draw_batch(task.dataset(options.split), options.tokens, tuple(longest), seed)
