"""Gradients beside what the optimizer makes of them: relative norms (Liu et al. 2020, figure 5).

Adaptive optimizers even the updates out: relative gradient norms spread over orders of magnitude in
deep Post-LN, relative update norms do not.
"""

from argparse import Namespace
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from fairseq_admin.analysis.gradients import gradient_norms
from fairseq_admin.analysis.subjects import Subject, subjects
from fairseq_admin.analysis.sublayers import named_sublayers
from fairseq_admin.data_files import other_dictionaries
from fairseq_admin.errors import UserError

Norms = Dict[str, float]


def matrices(subject: Subject) -> Dict[str, Any]:
    """The matrices of the model's sublayers, by name."""
    return {
        f"{sublayer.name}.{name.replace('.weight', '')}": weight.detach()
        for sublayers in named_sublayers(subject.model).values()
        for sublayer in sublayers
        for name, weight in sublayer.weights.items()
    }


def gradients(subject: Subject, batch) -> Norms:
    """Norm of the loss's gradient of each matrix."""
    return {
        f"{row['name']}.{name}": norm
        for rows in gradient_norms(subject.model, batch, subject.pad).values()
        for row in rows
        for name, norm in row["parameters"].items()
    }


def relative(norms: Norms) -> Norms:
    """*norms* divided by the largest of them."""
    largest = max(norms.values()) or 1.0
    return {name: norm / largest for name, norm in norms.items()}


def spread(norms: Norms) -> float:
    """Standard deviation of the logarithm to base 10, over those above 0: orders of magnitude."""
    return float(np.std([np.log10(norm) for norm in norms.values() if norm > 0]))


def pairs(options: Namespace, rest: List[str]) -> Iterator[Tuple[Tuple, Tuple]]:
    """Each two checkpoints of one training that are given one after the other, with their batches.
    Raises UserError where there are none, and where the second has no more updates."""
    earlier: Dict[Tuple, Tuple] = {}
    found = False
    for now in subjects(options, rest):
        subject = now[0]
        if subject.folder is None:
            raise UserError(f"{subject.label} is no checkpoint: updates lie between two of them")
        if not subject.updates:
            raise UserError(f"{subject.label} does not say after how many updates it is")
        before = earlier.get((subject.folder, subject.seed))
        if before:
            if before[0].updates >= subject.updates:
                raise UserError(
                    f"{subject.label} is not after {before[0].label}: give checkpoints in the "
                    "order of their updates"
                )
            if other_dictionaries(before[0].text, subject.text):
                raise UserError(
                    f"{subject.label} was trained with other dictionaries than {before[0].label}: "
                    "updates lie between checkpoints of one training"
                )
            found = True
            yield before, now
        earlier[subject.folder, subject.seed] = now
    if not found:
        raise UserError("give two or more checkpoints of one folder, in the order of their updates")


def measure(options: Namespace, rest: List[str]) -> Dict[str, Any]:
    """Of each pair of checkpoints the norms of the earlier one's gradients and of the way to the
    later one, by matrix, relative to the largest, and how far they spread. Files in fp16 or bf16
    hold rounded weights: small updates are steps of rounding there."""
    models = []
    for (before, batch), (after, _) in pairs(options, rest):
        start, end = matrices(before), matrices(after)
        if start.keys() != end.keys() or any(start[n].shape != end[n].shape for n in start):
            raise UserError(f"{before.label} and {after.label} are models of other sizes")
        moved = {name: (end[name] - start[name]).norm().item() for name in start}
        if not any(moved.values()):
            raise UserError(f"nothing moved between {before.label} and {after.label}")
        found = {"gradient": relative(gradients(before, batch)), "update": relative(moved)}
        label = f"{before.label} to {after.updates}"
        spreads = {kind: spread(norms) for kind, norms in found.items()}
        models.append({**before.about(), "label": label, "norms": found, "spread": spreads})
    return {"analysis": "updates", "models": models}
