"""From what a probe measures to a verdict: a logistic rule of two numbers."""

import math
from typing import Dict, List

from fairseq_admin.doctor.probe import FLOOR, Measured

# Fitted by scripts/evidence.py on the trainings of studies/trainable.yaml whose part is `fitted`,
# tested on the others; see results/doctor/README.md.
INTERCEPT = 11.55
COEFFICIENTS = {"dependence": 1.86, "reach": 5.41}  # of the logarithm to base 10
HELD_OUT = {"right": 268, "of": 294}
# of nine in ten of the fitted trainings that learn
HEALTHY = {"dependence": 0.00016, "reach": 0.62}
SURE, LOST = 0.9, 0.1  # probabilities from and up to which a verdict is no risk
VERDICTS = ("will not learn", "at risk", "will learn")


def numbers(measured: Measured) -> Dict[str, float]:
    """What the rule rests on; what is no number counts as FLOOR, the worst."""
    found = {"dependence": measured.after.dependence, "reach": measured.before.reach}
    return {name: max(x, FLOOR) if math.isfinite(x) else FLOOR for name, x in found.items()}


def features(found: Dict[str, float]) -> List[float]:
    """What COEFFICIENTS multiply."""
    return [math.log10(found[name]) for name in COEFFICIENTS]


def probability(found: Dict[str, float]) -> float:
    """That a training whose probe found these numbers learns more than its target's unigrams."""
    logit = INTERCEPT + sum(c * x for c, x in zip(COEFFICIENTS.values(), features(found)))
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))


def verdict(chance: float) -> str:
    """The verdict in words, by the *chance* that the training learns."""
    if chance >= SURE:
        return VERDICTS[2]
    return VERDICTS[0] if chance <= LOST else VERDICTS[1]
