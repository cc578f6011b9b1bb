"""Fold: from an Admin checkpoint to the plain Post-LN `transformer` that computes the same.

The norm before a sublayer gives ``x * omega`` instead of ``x``, and what the sublayer reads of it
is divided by omega again::

    LN(x * omega + f(x)) = LN(y + g(y)),  y = x * omega,  g(y) = f(y / omega)
"""

import os
from argparse import Namespace
from collections import OrderedDict
from dataclasses import fields
from typing import Any, Dict, Tuple

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.modules import SinusoidalPositionalEmbedding
from fairseq.tasks.translation import TranslationConfig
from torch import Tensor

from fairseq_admin.checkpoints.average import EMA
from fairseq_admin.checkpoints.checkpoint import (
    compact,
    finite,
    is_admin,
    model_options,
    read_checkpoint,
    write_checkpoint,
)
from fairseq_admin.checkpoints.equivalence import Difference, compare
from fairseq_admin.checkpoints.moments import fold_moments
from fairseq_admin.errors import UserError
from fairseq_admin.files import check_no_input
from fairseq_admin.model import OWN_OPTIONS, depths
from fairseq_admin.omega_file import STACKS

# Of each sublayer, in order of execution: the weights that read its input, and the norm behind it.
SUBLAYERS = {
    "self_attn": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn_layer_norm",
    ),
    "encoder_attn": (("encoder_attn.q_proj",), "encoder_attn_layer_norm"),
    "ffn": (("fc1",), "final_layer_norm"),
}
PAD = Dictionary().pad()
OURS = (*(name for name, _, _ in OWN_OPTIONS), "TranslationAdminTask", "profile", "user_dir", *EMA)


def fold_checkpoint(source: str, output: str, keep_training_state: bool = False) -> Difference:
    """Fold the Admin checkpoint *source* into a plain one and write it to *output*.

    Returns:
        how far the two models are from each other, measured before anything is written.

    Raises:
        UserError: for a checkpoint that cannot be folded exactly; nothing is written then.
    """
    check_no_input(output, [source])
    state = read_checkpoint(source, optimizer=keep_training_state)
    if "folded_from" in (state.get("extra_state") or {}):
        raise UserError(f"{source} is folded already")
    if not is_admin(state):
        raise UserError(f"{source} holds no omega: it is no checkpoint of transformer_admin")
    folded, difference = fold(state, keep_training_state)
    folded["extra_state"]["folded_from"] = os.path.basename(source)
    write_checkpoint(folded, output)
    return difference


def fold(
    state: Dict[str, Any], keep_training_state: bool = False
) -> Tuple[Dict[str, Any], Difference]:
    """The plain checkpoint of the Admin checkpoint *state*, and how far their models are apart.

    With *keep_training_state* it goes on where the training stood, the optimizer's moments
    included; else it holds the model alone.

    Raises:
        UserError: for a model that cannot be folded exactly.
    """
    options = {**model_options(state), "_name": "transformer_admin"}
    weights = state["model"]
    if options.get("cross_self_attention"):
        raise UserError(
            "--cross-self-attention cannot be folded: its keys are those of the encoder too"
        )
    check_weights(weights)
    try:
        weights, plain_options, factors = fold_weights(weights, options)
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
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
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
            plain(state.get("last_optimizer_state")), state["model"], options, factors
        )
        folded["extra_state"].update(without_ours(state.get("extra_state") or {}))
    return folded, difference


def fold_weights(
    weights: Dict[str, Tensor], options: Dict[str, Any]
) -> Tuple[Dict[str, Tensor], Dict[str, Any], Dict[str, Tensor]]:
    """Weights of the plain model, options that it needs, and the factor of each weight that
    changed. Weights that change are fp64, tensors that were one and stay so still are."""
    options, factors = dict(options), {}
    weights = {key: tensor for key, tensor in weights.items() if not key.endswith("_float_tensor")}
    for stack in STACKS:
        norm = None  # the one whose output the next sublayer reads
        for layer in range(depths(weights)[stack]):
            prefix = f"{stack}.layers.{layer}."
            for name, (readers, norm_behind) in SUBLAYERS.items():
                omega = weights.pop(f"{prefix}{name}_residual.omega", None)
                if omega is None:
                    continue  # no cross-attention in this layer
                omega = omega.double()
                if norm is not None:
                    factors.update({f"{norm}.weight": omega, f"{norm}.bias": omega})
                elif not torch.all(omega == 1):
                    factors.update(scale_input(weights, options, stack, omega))
                if norm is not None or not torch.all(omega == 1):
                    factors.update({f"{prefix}{reader}.weight": 1 / omega for reader in readers})
                norm = prefix + norm_behind
    for key, factor in factors.items():
        weights[key] = weights[key].double() * factor
    return weights, options, factors


def scale_input(
    weights: Dict[str, Tensor], options: Dict[str, Any], stack: str, omega: Tensor
) -> Dict[str, Tensor]:
    """Factors that give a stack ``x_0 * omega`` for ``x_0``, where its first omega was learned.

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
        raise UserError("--merge-src-tgt-embed with a learned first omega cannot be folded")
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


def plain_config(state: Dict[str, Any], options: Dict[str, Any]) -> Dict[str, Any]:
    """The configuration of *state* for fairseq's own model and task, in plain containers.

    ``cfg["model"]`` is what fairseq writes for its `transformer`, a namespace of the model's and
    the task's options, as an OrderedDict whose items are attributes too: fairseq and CTranslate2's
    converter ask for the attributes, and torch loads it under its protection.
    """
    cfg = plain(state.get("cfg") or {})
    # a file of the time before hydra has the task's options among the model's
    task = cfg.get("task") or {**plain(options), "_name": options.get("task")}
    if task["_name"] in ("translation_admin", "translation", None):
        known = {field.name for field in fields(TranslationConfig)}
        task = {name: value for name, value in task.items() if name in known}
        task["_name"] = "translation"
    model = OrderedDict({**task, **plain(options), "arch": "transformer", "task": task["_name"]})
    model.__dict__.update(model)
    common = {**cfg.get("common", {}), "user_dir": None}
    return {**cfg, "common": common, "task": task, "model": model}


def plain(value: Any) -> Any:
    """*value* in tensors, plain containers and Python's numbers."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value


def without_ours(state: Dict[str, Any]) -> Dict[str, Any]:
    """*state* without what the plugin put there, in plain containers."""
    return {name: plain(value) for name, value in state.items() if name not in OURS}
