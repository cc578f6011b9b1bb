"""Whether the weights of a checkpoint are those of a model."""

import re
from typing import Any, Dict, FrozenSet, List

from fairseq_admin.errors import UserError
from fairseq_admin.methods import METHODS, STACKS, by_stack, junctions_of, title
from fairseq_admin.residuals.residual import Place

ROUNDED = 0.01  # of a constant that bf16 has rounded, relative
# weights of residual methods of other code: Transformer-Clinic, fairseq-rezero, admin-torch
SCALED = re.compile(r"\.layers\.\d+\.(\w+_ratio_change|rezero_weight|[\w.]*(?<!_residual)\.omega)$")
INIT_TYPES = ("init_type", "admin_init_type")  # options by which "deepnet" is a constant, no weight
# options that change what a model computes and leave no trace in its parameters' shapes
COMPUTED_BY = (
    "activation_fn",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "no_scale_embedding",
    "no_token_positional_embeddings",
    "cross_self_attention",
)
DROPPED = ("embed_positions.weights", "._float_tensor")  # of sinusoids, which fairseq recomputes


def scaled(options: Dict[str, Any], weights: Dict[str, Any]) -> bool:
    """Whether such *options* and *weights*, of an architecture that is called as one of fairseq's,
    are of other code that scales shortcuts or branches."""
    inits = [options.get(option) for option in INIT_TYPES]
    return "deepnet" in inits or any(map(SCALED.search, weights))


def check_fork(options: Dict[str, Any], weights: Dict[str, Any], path: str) -> None:
    """Raise UserError where the checkpoint *path* is `scaled`."""
    if scaled(options, weights):
        raise UserError(
            f"{path} is of a fork of fairseq that scales shortcuts or branches: go on with that "
            "fork, or give another checkpoint"
        )


def depths(state_dict: Dict[str, Any]) -> Dict[str, int]:
    """Number of layers of each stack in a state dict."""
    layers: Dict[str, set] = {stack: set() for stack in STACKS}
    for key in state_dict:
        stack, _, rest = key.partition(".layers.")
        if rest and stack in layers:
            layers[stack].add(rest.split(".")[0])
    return {stack: len(found) for stack, found in layers.items()}


def own_keys(state_dict: Dict[str, Any], stack: str) -> FrozenSet[str]:
    """What the junctions of a *stack* keep in a state dict, and whether a norm ends the stack."""
    keys = (key for key in state_dict if key.startswith(f"{stack}.layers."))
    own = {key.partition("_residual.")[2] for key in keys} - {""}
    return frozenset(own | ({"pre_ln"} if f"{stack}.layer_norm.weight" in state_dict else set()))


def methods_like(state_dict: Dict[str, Any], stack: str, final_norm: bool = True) -> List[str]:
    """The methods whose models have such weights in a *stack*; Post-LN and Pre-LN are fairseq's own
    `transformer` too. Without a *final_norm* (--no-decoder-final-norm) the two look alike."""
    found = []
    for name in METHODS:
        kind = junctions_of(name)[stack]
        norm = ["pre_ln"] if kind.pre_ln and final_norm else []
        own = {*kind(Place(1, stack)).state_dict(), *norm}
        if own == own_keys(state_dict, stack):
            found.append(name)
    return found


def check_fit(own: Dict[str, Any], given: Dict[str, Any], residual: str) -> None:
    """Raise UserError where the state dict *given* is of another depth, width or method than the
    model's *own*, whose method is *residual*, or of a fork."""
    check_fork({}, given, "the checkpoint")
    if depths(own) != depths(given):
        theirs, ours = ("-".join(map(str, depths(x).values())) for x in (given, own))
        raise UserError(
            f"the checkpoint is of another depth: it has {theirs} layers, the model has {ours}; "
            "build the model with the depth of the checkpoint, or give another --save-dir or "
            "checkpoint"
        )
    for stack, method in by_stack(residual).items():
        if own_keys(own, stack) != own_keys(given, stack):
            found = " or ".join(map(title, methods_like(given, stack))) or "none that is known"
            raise UserError(
                f"the checkpoint is of another residual method: its {stack} is of {found}, the "
                f"model's of {title(method)}; give its own --residual, or another --save-dir "
                "or checkpoint"
            )
    for key in own:
        if key in given and own[key].shape != given[key].shape:
            raise UserError(
                f"the checkpoint is of another size: {key} is {tuple(given[key].shape)} there and "
                f"{tuple(own[key].shape)} in the model; give the checkpoint's sizes and dictionary"
            )
        if key in given and "_residual." in key and own[key].dim() == 0:
            ours, theirs = own[key].item(), given[key].item()
            if abs(theirs - ours) > ROUNDED * abs(ours):
                raise UserError(
                    f"the checkpoint is of another depth: {key} is {theirs:.4g} there and "
                    f"{ours:.4g} in the model"
                )


def check_keys(own: Dict[str, Any], given: Dict[str, Any]) -> None:
    """Raise UserError where the state dict *given* has other keys than the model's *own*."""
    for key in [*own, *given]:
        if not (key in own and key in given) and not key.endswith(DROPPED):
            without = "model" if key in given else "checkpoint"
            raise UserError(f"the {without} has no {key}: give the options of its training")
