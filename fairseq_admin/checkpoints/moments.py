"""An optimizer's state, for parameters that were multiplied by constants."""

from typing import Any, Dict, List, Set

import torch
from torch import Tensor

from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS

# A parameter times c has its gradient divided by c; the power of the gradient in each moment.
POWERS = {"exp_avg": 1, "momentum_buffer": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}


def fold_moments(
    state: Dict[str, Any],
    weights: Dict[str, Tensor],
    options: Dict[str, Any],
    factors: Dict[str, Tensor],
    junctions: Set[str],
) -> Dict[str, Any]:
    """The optimizer's *state* of a checkpoint with these *weights*, for its fold: without the
    moments of its *junctions*, and those of a weight that was multiplied divided by its factor.

    Takes the state of Adam, RAdam, AdamW and SGD with momentum, by parameter or, as ``--fp16``
    keeps it, as one flat vector. Raises UserError for that of another optimizer, and for none.
    """
    if not isinstance(state, dict) or not state:
        raise UserError(
            "the checkpoint holds no optimizer state, as a mean or a run with "
            "--no-save-optimizer-state: fold without the training state"
        )
    names = trained(weights, options, junctions)
    if any(f"{stack}.embed_tokens.weight" in factors for stack in STACKS):
        raise UserError(
            "a first omega that is not 1 makes new parameters, which no optimizer has seen: fold "
            "without the training state"
        )
    try:
        moments = state["state"]
        group = state["param_groups"][0]
        if len(group["params"]) == len(names):
            kept = [i for i, name in enumerate(names) if name not in junctions]
            folded = {
                new: scaled(moments[old], names[old : old + 1], weights, factors, junctions)
                for new, old in enumerate(kept)
                if old in moments
            }
            count = len(kept)
        else:
            (flat,) = moments.values()
            folded, count = {0: scaled(flat, names, weights, factors, junctions)}, 1
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(
            "the state is of an optimizer that a fold cannot carry over: fold without the training "
            "state"
        ) from None
    groups = [{**group, "params": list(range(count))}]
    return {**state, "state": folded, "param_groups": groups}


def trained(weights: Dict[str, Tensor], options: Dict[str, Any], junctions: Set[str]) -> List[str]:
    """Names of the trained parameters, in the order in which the trainer hands them on."""
    constant = {name for name in weights if name.endswith((".version", "_float_tensor"))}
    constant |= {name for name in weights if "_residual." in name} - junctions
    if options.get("share_all_embeddings") or options.get("merge_src_tgt_embed"):
        constant |= {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    if options.get("share_decoder_input_output_embed"):
        constant.add("decoder.output_projection.weight")
    return [name for name in weights if name not in constant]


def scaled(
    moments: Dict[str, Any],
    names: List[str],
    weights: Dict[str, Tensor],
    factors: Dict[str, Tensor],
    junctions: Set[str],
) -> Dict[str, Any]:
    """The *moments* of one parameter, or of all of *names* laid end to end, after those in
    *factors* were multiplied and the *junctions* are gone."""
    result = {}
    for name, value in moments.items():
        if isinstance(value, Tensor) and value.dim() > 0:
            parts = []
            for key, part in zip(names, value.flatten().split([weights[n].numel() for n in names])):
                if key in factors:
                    part = part.view_as(weights[key]).double() / factors[key] ** POWERS[name]
                if key not in junctions:
                    parts.append(part.flatten().to(value.dtype))
            shape = weights[names[0]].shape if len(names) == 1 else (-1,)
            value = torch.cat(parts).view(shape)
        result[name] = value
    return result
