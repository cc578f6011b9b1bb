"""How far a model is from the one it was made from, measured on a random batch."""

import warnings
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, Dict, Tuple

import torch
from fairseq import models
from torch import Tensor, nn

from fairseq_admin.checkpoints.random_text import dictionary, random_batch
from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS

EXACT = 1e-10  # largest difference of logits in fp64 that is rounding
# the same where the second model's weights were rounded to a dtype
ROUNDED = {torch.float64: EXACT, torch.float32: 1e-3, torch.float16: 5e-3, torch.bfloat16: 5e-2}
LENGTHS = ((12, 9), (3, 14), (7, 1), (1, 5))  # source and target tokens of the batch's sentences

Weights = Dict[str, Tensor]
Options = Dict[str, Any]


@dataclass
class Difference:
    """Largest absolute differences between the logits of two models, computed in fp64: ``exact``
    with the second one's weights in fp64, ``written`` with them as a file holds them, in ``dtype``.
    ``largest`` is the largest absolute logit; bounds are relative to it where it is over 1."""

    exact: float
    written: float
    dtype: torch.dtype
    largest: float

    def __str__(self) -> str:
        dtype = str(self.dtype).replace("torch.", "")
        return (
            f"largest difference of logits (up to {self.largest:.1f}): {self.exact:.1e} in fp64, "
            f"{self.written:.1e} with weights in {dtype}"
        )


def compare(
    original: Tuple[Options, Weights], made: Tuple[Options, Weights], written: Weights
) -> Difference:
    """Forward a random batch through two models in fp64.

    Args:
        original: flat options and weights of the first model.
        made: flat options and weights, in fp64, of the second.
        written: the second one's weights as they are to be written.

    Raises:
        UserError: where the models differ by more than rounding.
    """
    limits = [original[0].get(f"max_{side}_positions") for side in ("source", "target")]
    lengths = [tuple(min(n, limit or n) for n, limit in zip(pair, limits)) for pair in LENGTHS]
    batch = random_batch(lengths, types(original[1]))["net_input"]
    expected = logits(build(*original), original[1], batch)
    second = build(*made)
    exact, rounded = (
        (logits(second, weights, batch) - expected).abs().max().item()
        for weights in (made[1], written)
    )
    dtype = written["decoder.layers.0.fc1.weight"].dtype
    found = Difference(exact, rounded, dtype, expected.abs().max().item())
    scale = max(1.0, found.largest)
    # `not <=`: a NaN is no small difference either
    if not exact <= EXACT * scale:
        raise UserError(f"this model cannot be folded exactly: {found}")
    if not rounded <= ROUNDED[dtype] * scale:
        raise UserError(f"this model's fold does not fit into its precision: {found}")
    return found


def build(options: Options, weights: Weights) -> nn.Module:
    """The model of *options* in fp64, for vocabularies of the sizes that *weights* have."""
    model = build_model(options, weights).double().eval()
    for module in model.modules():
        if getattr(module, "encoder_decoder_attention", False):
            # static_kv takes a path whose softmax is always fp32, and serves incremental decoding
            module.register_forward_pre_hook(
                lambda _, args, kwargs: (args, {**kwargs, "static_kv": False}), with_kwargs=True
            )
    return model


def build_model(options: Options, weights: Weights) -> nn.Module:
    """A new model of the flat *options* of a checkpoint, for the vocabularies of its *weights*."""
    source, target = map(dictionary, types(weights))
    task = Namespace(source_dictionary=source, target_dictionary=target)
    options = {**options, "encoder_embed_path": None, "decoder_embed_path": None}
    return models.build_model(Namespace(**options), task)


def types(weights: Weights) -> Tuple[int, int]:
    """Sizes of the source's and the target's vocabulary."""
    source, target = (len(weights[f"{stack}.embed_tokens.weight"]) for stack in STACKS)
    return source, target


def logits(model: nn.Module, weights: Weights, batch: Dict[str, Tensor]) -> Tensor:
    """What *model* with *weights* says of *batch* at its target's positions, fp64."""
    model.load_state_dict(weights, strict=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: a float and a bool mask together are deprecated
        output = model(**batch)[0]
    return output[batch["prev_output_tokens"] != model.decoder.padding_idx]
