"""Fold: from a checkpoint of `transformer_admin` to fairseq's own `transformer` that computes the
same.

Where a method scales the shortcut, the norm before a sublayer gives ``x * omega`` instead of ``x``,
and what the sublayer reads of it is divided by omega again::

    LN(x * omega + f(x)) = LN(y + g(y)),  y = x * omega,  g(y) = f(y / omega)

Post-LN and Pre-LN change their name only.
"""

import os
from argparse import Namespace
from typing import Any, Dict, Optional, Set, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.modules import SinusoidalPositionalEmbedding
from torch import Tensor

from fairseq_admin.checkpoints.checkpoint import (
    compact,
    finite,
    model_options,
    read_checkpoint,
    residual_of,
    write_checkpoint,
)
from fairseq_admin.checkpoints.equivalence import Difference, compare
from fairseq_admin.checkpoints.moments import fold_moments
from fairseq_admin.checkpoints.plain import OURS, plain, plain_config, without_ours
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.fit import depths
from fairseq_admin.layers import place_of
from fairseq_admin.methods import by_stack, junctions_of, title
from fairseq_admin.model import DEFAULTS, nested_config
from fairseq_admin.residuals.residual import NORMS

# Of each sublayer, in order of execution: the weights that read its input.
READERS = {
    "self_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "encoder_attn": ("encoder_attn.q_proj",),
    "ffn": ("fc1",),
}
PAD = Dictionary().pad()


def fold_checkpoint(source: str, output: str, keep_training_state: bool = False) -> Difference:
    """Fold the checkpoint *source* into a plain one, write it to *output*, and return how far the
    two models are from each other. Raises UserError for a checkpoint that cannot be folded exactly;
    nothing is written then."""
    if os.path.realpath(source) == os.path.realpath(output):
        raise UserError(f"{output} is an input of this command: give another name")
    state = read_checkpoint(source, optimizer=keep_training_state)
    if "folded_from" in (state.get("extra_state") or {}):
        raise UserError(f"{source} is folded already")
    if residual_of(state) is None:
        raise UserError(f"{source} is no checkpoint of transformer_admin: there is nothing to fold")
    folded, difference = fold(state, keep_training_state)
    folded["extra_state"]["folded_from"] = os.path.basename(source)
    write_checkpoint(folded, output)
    return difference


class Unfoldable(UserError):
    """Of a model that fairseq's `transformer` cannot compute."""


def fold(
    state: Dict[str, Any], keep_training_state: bool = False
) -> Tuple[Dict[str, Any], Difference]:
    """The plain checkpoint of a *state* of `transformer_admin`, and how far their models are apart.

    With *keep_training_state* it goes on where the training stood, the optimizer's moments
    included; else it holds the model alone. Raises UserError for a model that cannot be folded
    exactly: `Unfoldable` where that is due to its options.
    """
    residual = residual_of(state)
    if why_not := unfoldable(residual):
        raise Unfoldable(why_not)
    options = {**DEFAULTS, **model_options(state), "residual": residual}
    options["_name"] = "transformer_admin"
    weights = state["model"]
    check_weights(weights)
    try:
        weights, plain_options, factors, trained = fold_weights(weights, options)
        if options.get("cross_self_attention") and factors:
            raise Unfoldable(
                "--cross-self-attention cannot be folded: its keys are those of the encoder too"
            )
        dtype = state["model"]["decoder.layers.0.fc1.weight"].dtype
        written = {
            key: tensor.to(dtype) if key in factors else tensor for key, tensor in weights.items()
        }
        for key in factors:
            if not finite(written[key]):
                raise UserError(f"folded, {key} is larger than a number of {dtype}")
        plain_options = {name: value for name, value in plain_options.items() if name not in OURS}
        plain_options.update(_name="transformer", encoder_embed_path=None, decoder_embed_path=None)
        difference = compare((options, state["model"]), (plain_options, weights), written)
    except Exception as error:  # whatever fairseq makes of options that no training had
        told = one_line(error)
        raise UserError(f"the weights are not those of the configuration: {told}") from error
    folded = {
        "args": None,
        "cfg": plain_config(state, plain_options),
        "model": compact(written),
        "criterion": state.get("criterion"),
        "optimizer_history": plain(state.get("optimizer_history") or [{"num_updates": 0}]),
        "task_state": without_ours(state.get("task_state") or {}),
        # where a training that starts from here begins
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    if keep_training_state:
        folded["last_optimizer_state"] = fold_moments(
            plain(state.get("last_optimizer_state")), state["model"], options, factors, trained
        )
        folded["extra_state"].update(without_ours(state.get("extra_state") or {}))
    return folded, difference


def unfoldable(residual: str) -> Optional[str]:
    """Why fairseq's `transformer` cannot compute what the method does; None where it can."""
    for method, kind in zip(by_stack(residual).values(), junctions_of(residual).values()):
        if kind.unfoldable:
            return (
                f"{title(method)} does not fold into fairseq's transformer: {kind.unfoldable}; "
                "decode with --user-dir fairseq_admin"
            )
    return None


def fold_weights(
    weights: Dict[str, Tensor], options: Dict[str, Any]
) -> Tuple[Dict[str, Tensor], Dict[str, Any], Dict[str, Tensor], Set[str]]:
    """Weights of the plain model, options that it needs, the factor of each weight that changed,
    and the weights of junctions that are trained. Weights that change are fp64, tensors that were
    one and stay so still are."""
    options, factors, trained = dict(options), {}, set()
    cfg = nested_config(Namespace(**options))
    weights = {key: tensor for key, tensor in weights.items() if not key.endswith("_float_tensor")}
    for stack, kind in junctions_of(options["residual"]).items():
        options[f"{stack}_normalize_before"] = kind.pre_ln
        norm = None  # the one whose output the next sublayer reads
        for layer in range(depths(weights)[stack]):
            prefix = f"{stack}.layers.{layer}."
            for name, readers in READERS.items():
                if f"{prefix}{NORMS[name]}.weight" not in weights:
                    continue  # no cross-attention in this layer
                junction = kind(place_of(cfg, stack))
                if norm is None:
                    junction.be_first()
                own = {key: f"{prefix}{name}_residual.{key}" for key in junction.state_dict()}
                trained |= {own[key] for key, _ in junction.named_parameters()}
                junction.double().load_state_dict({k: weights.pop(own[k]) for k in own})
                omega = torch.as_tensor(junction.shortcut_scale, dtype=torch.float64).detach()
                omega = omega.expand(getattr(cfg, stack).embed_dim)
                if not torch.all(omega == 1):
                    if norm is not None:
                        factors.update({f"{norm}.weight": omega, f"{norm}.bias": omega})
                    else:
                        factors.update(scale_input(weights, options, stack, omega))
                    factors.update({f"{prefix}{reader}.weight": 1 / omega for reader in readers})
                norm = prefix + NORMS[name]
    for key, factor in factors.items():
        weights[key] = weights[key].double() * factor
    return weights, options, factors, trained


def scale_input(
    weights: Dict[str, Tensor], options: Dict[str, Any], stack: str, omega: Tensor
) -> Dict[str, Tensor]:
    """Factors that give a stack ``x_0 * omega`` for ``x_0``, where its first omega is not 1.

    Without a norm behind the embeddings they are scaled themselves: positions become learned ones
    and tied embeddings untied, in *weights* and *options*.
    """
    norm = f"{stack}.layernorm_embedding"
    if f"{norm}.weight" in weights:
        return {f"{norm}.weight": omega, f"{norm}.bias": omega}
    factors = {}
    if not options.get("no_token_positional_embeddings"):
        positions = f"{stack}.embed_positions.weight"
        if not options.get(f"{stack}_learned_pos"):
            side = "source" if stack == "encoder" else "target"
            rows = options[f"max_{side}_positions"] + PAD + 1
            table = SinusoidalPositionalEmbedding.get_embedding(rows, len(omega), PAD)
            weights[positions] = table.to(omega.dtype)
            options[f"{stack}_learned_pos"] = True
        factors[positions] = omega
    if f"{stack}.project_in_dim.weight" in weights:
        return {**factors, f"{stack}.project_in_dim.weight": omega[:, None]}
    if options.get("merge_src_tgt_embed"):
        raise Unfoldable("--merge-src-tgt-embed with a first omega that is not 1 cannot be folded")
    if options.get("share_all_embeddings"):
        options.update(share_all_embeddings=False, share_decoder_input_output_embed=True)
    if stack == "decoder":
        options["share_decoder_input_output_embed"] = False
    return {**factors, f"{stack}.embed_tokens.weight": omega}


def check_weights(weights: Dict[str, Tensor]) -> None:
    """Raise UserError where a weight is no finite number, or an omega cannot be divided by."""
    for key, tensor in weights.items():
        if not finite(tensor):
            raise UserError(f"{key} holds NaN or infinity: the training had diverged")
        if key.endswith("_residual.omega") and (tensor == 0).any():
            raise UserError(f"{key} is 0 in some channel, and a fold divides by it")
