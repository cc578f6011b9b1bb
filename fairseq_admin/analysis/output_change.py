"""How far a stack's output moves when its parameters do: E|F(x,W) - F(x,W*)|^2 against depth.

Liu et al. 2020, section 4: O(N) of N sublayers in Post-LN, O(log N) in Pre-LN and
Admin, where it is the sum of beta_ii^2. Wang et al. 2022 (DeepNorm): O(1).
"""

from argparse import Namespace
from collections import defaultdict
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_admin.analysis.gradients import weight_gradients
from fairseq_admin.analysis.subjects import Batch, subjects
from fairseq_admin.analysis.sublayers import Passage, at_rest, attached, named_sublayers

NOISE = 0.01  # standard deviation of the perturbation, in that of the matrix
STEP = 1e-4  # length of the gradient step, in the mean norm of the matrices
KINDS = ("random", "gradient")


@contextmanager
def moved(weights: List[nn.Parameter], steps: Iterator[Tensor]) -> Iterator[None]:
    """Within the block each of *weights* is further by its step; after it, as before."""
    saved = [weight.detach().clone() for weight in weights]
    try:
        for weight, step in zip(weights, steps):
            weight.data.add_(step)
        yield
    finally:
        for weight, before in zip(weights, saved):
            weight.data.copy_(before)


def random_steps(weights: List[nn.Parameter], seed: int) -> Iterator[Tensor]:
    """Gaussian noise, of NOISE times each matrix's standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        yield NOISE * weight.std() * torch.randn(weight.shape, generator=generator)


def gradient_steps(weights: List[nn.Parameter], gradients: List[Tensor]) -> Iterator[Tensor]:
    """One step down the gradient, of STEP times the mean norm of a matrix, whatever the depth."""
    length = STEP * sum(weight.norm() for weight in weights) / len(weights)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    for gradient in gradients:
        yield gradient * (-length / norm if norm else 0)


@torch.no_grad()
def output_changes(
    model: nn.Module, batch: Batch, pad: int, seed: int
) -> Dict[str, Dict[str, List[float]]]:
    """By stack and kind of step: the mean over non-padding tokens and channels of the squared
    change of each sublayer's normalized sum (of the last: of the stack's output, without gain and
    bias), when the matrices of that stack's sublayers are moved. 2 is as far as from another
    output altogether."""
    net_input = batch["net_input"]

    def outputs(*stacks: str) -> Dict[str, List[Tensor]]:
        found: Dict[str, List[Tensor]] = {stack: [] for stack in stacks}

        def observe(stack: str, passage: Passage) -> None:
            if stack in found:
                x = passage.total[passage.valid].float()
                found[stack].append(nn.functional.layer_norm(x, x.shape[-1:]))

        with attached(model, net_input, pad, observe):
            model(**net_input)
        return found

    changes: Dict[str, Dict[str, List[float]]] = defaultdict(dict)
    with at_rest(model):
        stacks = named_sublayers(model)
        gradients = iter(weight_gradients(model, batch, pad, stacks))
        before = outputs(*stacks)
        for stack, sublayers in stacks.items():
            weights = [weight for sublayer in sublayers for weight in sublayer.weights.values()]
            found = [gradient for _ in sublayers for gradient in next(gradients).values()]
            steps = {
                "random": random_steps(weights, seed),
                "gradient": gradient_steps(weights, found),
            }
            for kind in KINDS:
                with moved(weights, steps[kind]):
                    after = outputs(stack)[stack]
                changes[stack][kind] = [
                    (x - y).square().mean().item() for x, y in zip(after, before[stack])
                ]
    return changes


def fit(x: Sequence[float], y: Sequence[float]) -> Dict[str, float]:
    """Least squares ``y = intercept + slope * x`` and its R^2."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.asarray(y) - (intercept + slope * np.asarray(x))
    r2 = 1 - residual @ residual / max(np.var(y) * len(y), np.finfo(float).tiny)
    return {"slope": float(slope), "intercept": float(intercept), "r2": float(r2)}


def against_depth(models: List[Dict[str, Any]], stack: str, kind: str) -> Dict[str, Tuple]:
    """By label: numbers of sublayers, and mean and standard deviation over seeds of the change
    there. Of a model at several depths each depth's last sublayer, else each sublayer of it."""
    rows: Dict[str, Dict[int, List[List[float]]]] = defaultdict(lambda: defaultdict(list))
    for model in models:
        changes = model["stacks"][stack][kind]
        rows[model["label"]][len(changes)].append(changes)
    points = {}
    for label, depths in rows.items():
        if len(depths) > 1:
            x = sorted(depths)
            values = [np.array(depths[n])[:, -1] for n in x]
        else:
            (changes,) = depths.values()
            x, values = list(range(1, len(changes[0]) + 1)), list(np.array(changes).T)
        points[label] = x, [v.mean() for v in values], [v.std() for v in values]
    return points


def fits(models: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Of each stack, kind of step and label the fits against N and against log N, and the
    ``exponent`` p of the N^p that fits best on log axes. A constant has no R^2: its p is 0, that of
    N is 1, of log N 0.4 (encoder) and 0.3 (decoder) over depths 1 to 100. What does not move has no
    fit: new ReZero models, whose branches are 0 whatever their matrices are."""
    found = []
    for stack in models[0]["stacks"]:
        for kind in KINDS:
            for label, (x, y, _) in against_depth(models, stack, kind).items():
                if len(x) > 2 and min(y) > 0:
                    row = {"stack": stack, "step": kind, "label": label, "points": len(x)}
                    row.update({"N": fit(x, y), "log N": fit(np.log(x), y)})
                    found.append({**row, "exponent": fit(np.log(x), np.log(y))["slope"]})
    return found


def measure(options: Namespace, rest: List[str]) -> Dict[str, Any]:
    """The changes of every model, depth and seed, and how they grow with depth."""
    models = []
    for subject, batch in subjects(options, rest):
        changes = output_changes(subject.model, batch, subject.pad, subject.seed)
        models.append({**subject.about(), "stacks": changes})
    found = {"analysis": "output-change", "noise": NOISE, "step": STEP}
    return {**found, "models": models, "fits": fits(models)}
