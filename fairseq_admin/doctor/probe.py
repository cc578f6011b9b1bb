"""What a few steps of the optimizer do to a new model: whether its output still depends on what it
reads.

A deep Post-LN model that is stuck writes the same distribution, that of the unigrams, at every
position: its first steps have made every token's representation the same. A few steps on as many
small batches, at the rates of the training's own schedule, show it.
"""

import copy
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, List

import torch
from fairseq.optim import build_optimizer
from torch import Tensor, nn

from fairseq_admin.analysis.gradients import mean_loss, weight_gradients
from fairseq_admin.analysis.subjects import Batch
from fairseq_admin.analysis.sublayers import Passage, at_rest, attached
from fairseq_admin.doctor.case import Case, stepper
from fairseq_admin.methods import STACKS

FLOOR = 1e-9  # bits; below it is rounding


@dataclass
class State:
    """A model on one batch."""

    dependence: float  # bits, see `dependence`
    sublayers: List[Dict[str, Any]]  # name, spread and gradient of each, in order of execution

    @property
    def reach(self) -> float:
        """Norm of the gradient of what the decoder's first FFN gives, over that of its last one."""
        ends = [
            row["gradient"] for row in self.sublayers if re.match(r"decoder.*ffn$", row["name"])
        ]
        return ends[0] / max(ends[-1], FLOOR)


@dataclass
class Measured:
    """What a probe found."""

    before: State
    after: State

    @property
    def worst(self) -> Dict[str, Any]:
        """The sublayer, after the steps, that keeps least of the spread that it gets."""
        kept = []
        for stack in STACKS:
            rows = [row for row in self.after.sublayers if row["name"].startswith(stack)]
            for row, last in zip(rows[1:], rows):
                kept.append((row["spread"] / max(last["spread"], FLOOR), row))
        return min(kept, key=lambda pair: pair[0])[1]


def dependence(log_probs: Tensor) -> float:
    """Mean over positions of the Kullback-Leibler divergence of their distribution from the mean of
    all, in bits: the information about the position that a token of the output holds. 0 where every
    position gets the same distribution. *log_probs* are natural logarithms, `(tokens, types)`."""
    mean = log_probs.exp().mean(0).clamp_min(torch.finfo(log_probs.dtype).tiny).log()
    return float((log_probs.exp() * (log_probs - mean)).sum(1).mean()) / math.log(2)


def spread(x: Tensor) -> float:
    """Share of the mean square of *x*, `(tokens, channels)`, in which tokens differ: 0 where all
    are the same, about 1 where they have nothing in common."""
    x = x.detach().float()
    return float((x - x.mean(0)).square().mean() / x.square().mean().clamp_min(FLOOR))


def look(model: nn.Module, batch: Batch, pad: int) -> State:
    """The state of *model* on *batch*, without dropout."""
    rows: Dict[str, Dict[str, Any]] = {}
    found: List[Tensor] = []

    def observe(stack: str, passage: Passage) -> None:
        name, share = passage.sublayer.name, spread(passage.output[passage.valid])
        row = {"name": name, "spread": share if math.isfinite(share) else 0.0, "gradient": 0.0}
        passage.tell_gradient(partial(row.__setitem__, "gradient"))
        rows[name] = row

    with at_rest(model), attached(model, batch["net_input"], pad, observe) as stacks:
        handle = model.register_forward_hook(lambda *args: found.append(args[-1][0].detach()))
        weight_gradients(model, batch, pad, stacks)
        handle.remove()
    log_probs = torch.log_softmax(found[0].float(), -1)[batch["target"].ne(pad)]
    return State(dependence(log_probs), list(rows.values()))


def step(model: nn.Module, case: Case) -> None:
    """The steps of *case*, by its own optimizer, without dropout."""
    optimizer = build_optimizer(stepper(case.config.optimizer), list(model.parameters()))
    with at_rest(model):
        for batch, rate in zip(case.batches[1:], case.rates):
            optimizer.set_lr(rate)
            optimizer.zero_grad()
            optimizer.backward(mean_loss(model, batch, case.pad))
            if case.config.optimization.clip_norm > 0:  # fairseq's needs what is on a GPU there is
                nn.utils.clip_grad_norm_(model.parameters(), case.config.optimization.clip_norm)
            optimizer.step()


def probe(case: Case) -> Measured:
    """What the steps of *case* do to a copy of its model; nothing else changes. Raises UserError
    for a model with an adaptive softmax."""
    model = copy.deepcopy(case.model)
    before = look(model, case.batches[0], case.pad)
    step(model, case)
    return Measured(before, look(model, case.batches[0], case.pad))
