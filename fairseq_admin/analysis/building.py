"""Models to look at: of a checkpoint, or of an architecture at initialization."""

import copy
import os
from argparse import Namespace
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Dict, List, Optional, Tuple

from torch import nn

from fairseq_admin.analysis.sublayers import named_sublayers
from fairseq_admin.arguments import training_config
from fairseq_admin.checkpoints.checkpoint import (
    finite,
    method,
    model_options,
    read_checkpoint,
    task_options,
)
from fairseq_admin.checkpoints.equivalence import build_model, types
from fairseq_admin.checkpoints.facts import training_facts
from fairseq_admin.checkpoints.random_text import dictionary
from fairseq_admin.data_files import text_of
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.layers import init_feed_forward_
from fairseq_admin.methods import METHODS, by_stack, method_of
from fairseq_admin.options import as_dict
from fairseq_admin.profiling import seeded

# activation checkpointing runs layers twice and takes no torch.autograd.grad
RECOMPUTE_NOTHING = {"checkpoint_activations": False, "offload_activations": False}
TYPES = 1000  # of the random tokens that an architecture without data reads


@dataclass
class Subject:
    """A model to look at, with what is needed to read with it."""

    label: str
    method: str  # as `methods.method_of` has it
    model: nn.Module
    types: Tuple[int, int]  # of the two vocabularies
    pad: int
    source_lang: Optional[str] = None  # None: of the data's folder
    target_lang: Optional[str] = None
    updates: Optional[int] = None
    profile: Optional[Dict[str, Any]] = None
    folder: Optional[str] = None  # of the checkpoint
    text: Dict[str, Any] = field(default_factory=dict)  # of its training, as data_files.described
    seed: int = 1

    def about(self) -> Dict[str, Any]:
        """What a figure tells of it."""
        stacks = named_sublayers(self.model)
        layers = [len(getattr(self.model, stack).layers._modules) for stack in stacks]
        return {
            "label": self.label,
            "method": self.method,
            "layers": "-".join(map(str, layers)),
            "seed": self.seed,
            "updates": self.updates,
        }


def checkpoint(path: str, label: str) -> Subject:
    """The model of a checkpoint. Raises UserError where it cannot be read, holds NaN, or is of a
    model that fairseq cannot build."""
    state = read_checkpoint(path)
    weights, options = state["model"], model_options(state)
    for name, weight in weights.items():
        if weight.is_floating_point() and not finite(weight):
            raise UserError(
                f"{path} holds NaN or infinite weights ({name}): the training had "
                "diverged; give an earlier checkpoint"
            )
    try:
        model = build_model({**options, **RECOMPUTE_NOTHING}, weights)
        model.load_state_dict(weights, strict=True)
        pad = model.encoder.padding_idx
    except Exception as error:  # fairseq raises whatever a foreign model makes it stumble over
        raise UserError(
            f"{path} ({options['_name']}) holds no encoder-decoder that fairseq can build here "
            f"({one_line(error)}); a model of your own needs --user-dir"
        ) from None
    task = task_options(state)
    languages = task.get("source_lang"), task.get("target_lang")
    told = {
        "updates": training_facts(state)[0]["updates"],
        "profile": (state.get("task_state") or {}).get("profile"),
        "folder": os.path.dirname(os.path.realpath(path)),
        "text": text_of(state),
    }
    return Subject(label, method(state), model, types(weights), pad, *languages, **told)


def is_method(name: str) -> bool:
    """Whether *name* stands for `transformer_admin --residual NAME`."""
    return set(name.split("/")) <= METHODS.keys()


def check_architecture(name: str) -> None:
    """Raise UserError unless *name* is an architecture or a method."""
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY

    if is_method(name):
        by_stack(name)  # refuses three
        return
    if name in ARCH_MODEL_REGISTRY or name in MODEL_REGISTRY:
        return
    if os.path.isdir(name):
        raise UserError(f"{name} is a folder: give a checkpoint in it")
    if name.endswith(".pt") or os.sep in name:
        raise UserError(f"no such checkpoint: {name}")
    raise UserError(
        f"{name} is neither a checkpoint nor an architecture: give {', '.join(METHODS)} or a name "
        "that --arch of fairseq-train knows, before all options"
    )


@lru_cache(maxsize=None)  # it takes fairseq seconds, and seeds do not change it
def config_of(arguments: Tuple[str, ...]):
    """The configuration of `fairseq-train` with *arguments*."""
    return training_config(list(arguments))


@lru_cache(maxsize=None)
def data_task(data: str, source: Optional[str], target: Optional[str]):
    """The translation task of binarized text; languages that are None are those of the folder."""
    from fairseq.tasks import setup_task

    languages = [("--source-lang", source), ("--target-lang", target)]
    named = [word for option, lang in languages if lang for word in (option, lang)]
    return setup_task(config_of((data, "--arch", "transformer", *named)).task)


def architecture(
    name: str, depth: Optional[int], seed: int, options: Namespace, rest: List[str]
) -> Subject:
    """A new model of an architecture or a method, of *depth* layers a stack if that is given, else
    as *rest* says. Raises UserError for options that give no such model."""
    own = ["transformer_admin", "--residual", name] if is_method(name) else [name]
    arguments = [options.data or ".", "--arch", *own, *rest]
    if depth:
        arguments += ["--encoder-layers", str(depth), "--decoder-layers", str(depth)]
    try:
        config = config_of(tuple(arguments))
        languages = config.task.source_lang, config.task.target_lang
        if options.data:
            task = data_task(options.data, *languages)
        else:
            words = dictionary(TYPES)
            task = Namespace(source_dictionary=words, target_dictionary=words)
        model = new_model(config.model, task, seed, options.parameter_init)
    except Exception as error:  # as above
        raise UserError(
            f"{name} with these options is no encoder-decoder that can be built here "
            f"({one_line(error)})"
        ) from None
    sizes = len(task.source_dictionary), len(task.target_dictionary)
    pad = task.source_dictionary.pad()
    found = method_of(as_dict(config.model))
    return Subject(name, found, model, sizes, pad, *languages, seed=seed)


def new_model(config: Any, task: Any, seed: int, parameter_init: Optional[str]) -> nn.Module:
    """The model of a configuration, drawn with *seed*."""
    from fairseq.models import build_model as build_new

    config = copy.deepcopy(config)  # fairseq writes into it
    for option, off in RECOMPUTE_NOTHING.items():
        if option in config:
            setattr(config, option, off)
    ours = "parameter_init" in config
    if ours and parameter_init:
        config.parameter_init = parameter_init
    with seeded(seed):
        model = build_new(config, task)
        if not ours and parameter_init == "paper":
            for sublayers in named_sublayers(model).values():
                for sublayer in sublayers:
                    if sublayer.kind == "ffn":
                        init_feed_forward_(sublayer.layer)
    return model
