"""Gradient norms by sublayer and kind of parameter (Xiong et al. 2020, figure 3; Liu et al. 2020,
section 3: gradients vanish in Post-LN decoders only)."""

from collections import defaultdict
from functools import partial
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from fairseq_admin.analysis.subjects import Batch, measure_models
from fairseq_admin.analysis.sublayers import Passage, Sublayer, at_rest, attached
from fairseq_admin.errors import UserError


def mean_loss(model: nn.Module, batch: Batch, pad: int) -> Tensor:
    """Cross-entropy a target token, in nats; UserError for a model with an adaptive softmax."""
    if getattr(model.decoder, "adaptive_softmax", None) is not None:
        raise UserError("gradients are not known here of a model with an adaptive softmax")
    logits = model(**batch["net_input"])[0]  # (batch, tgt_len, types)
    target = batch["target"].flatten()
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), target, ignore_index=pad)


def weight_gradients(
    model: nn.Module, batch: Batch, pad: int, stacks: Dict[str, List[Sublayer]]
) -> List[Dict[str, Tensor]]:
    """The loss's gradient of each matrix of the sublayers of *stacks*, which must be called within
    :func:`at_rest`; the parameters' own ``grad`` stays what it was."""
    sublayers = [sublayer for found in stacks.values() for sublayer in found]
    weights = [weight for sublayer in sublayers for weight in sublayer.weights.values()]
    with torch.enable_grad():
        loss = mean_loss(model, batch, pad)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    # none where the loss does not depend on it: an encoder whose output nobody reads
    found = iter(torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients))
    return [{name: next(found) for name in sublayer.weights} for sublayer in sublayers]


def gradient_norms(model: nn.Module, batch: Batch, pad: int) -> Dict[str, List[Dict[str, Any]]]:
    """By stack, in order of execution: of each sublayer the norm of the loss's gradient of its
    output (over all non-padding tokens), of all its matrices together, and of each."""
    outputs: Dict[str, float] = defaultdict(float)

    def observe(stack: str, passage: Passage) -> None:
        passage.tell_gradient(partial(outputs.__setitem__, passage.sublayer.name))

    with at_rest(model), attached(model, batch["net_input"], pad, observe) as stacks:
        gradients = iter(weight_gradients(model, batch, pad, stacks))
    return {
        stack: [
            {"name": s.name, "kind": s.kind, "output": outputs[s.name], **norms_of(next(gradients))}
            for s in sublayers
        ]
        for stack, sublayers in stacks.items()
    }


def norms_of(gradients: Dict[str, Tensor]) -> Dict[str, Any]:
    """Norms of a sublayer's gradients: of all together, and of each."""
    norms = {name.replace(".weight", ""): g.float().norm().item() for name, g in gradients.items()}
    return {"weights": sum(norm**2 for norm in norms.values()) ** 0.5, "parameters": norms}


measure = partial(measure_models, "gradients", gradient_norms)
