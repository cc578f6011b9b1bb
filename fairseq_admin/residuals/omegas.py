"""Omega as a number: from measured variances, or from depth alone. Needs no torch."""

import math
from typing import Sequence


def next_omega(input_var: float, branch_vars: Sequence[float]) -> float:
    """Omega of the sublayer that follows those measured so far (Liu et al. 2020, "Understanding
    the Difficulty of Training Transformers", section 4.2).

    Args:
        input_var: variance of the stack's input, ``Var(x_0)``.
        branch_vars: ``Var(f_j)`` of the sublayers before this one, in order of execution.

    Returns:
        1 for the first sublayer of a stack, else ``sqrt(Var(x_0) + sum_j Var(f_j))``.
    """
    if not branch_vars:
        return 1.0  # omega_1 = 1
    return math.sqrt(input_var + math.fsum(branch_vars))  # omega_i^2 = Var(x_0) + sum Var(f_j)


def analytic_omega(sublayers: int, output_change: str = "log") -> float:
    """The one omega of a stack's *sublayers* with which its output change is O(log N) or, for
    *output_change* ``constant``, O(1) (admin-torch, the method's authors' own package)."""
    if output_change == "constant":
        return math.sqrt(sublayers)
    return math.sqrt((sublayers + 1) / math.log(sublayers + 1) - 1)
