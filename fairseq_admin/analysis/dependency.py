"""Residual dependency beta_ij: how much of sublayer i's normalized output is branch j's.

Liu et al. 2020, section 4: x_i = sum_j beta_ij * a_j with a_j the normalized branch outputs.
"""

from functools import partial
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from fairseq_admin.analysis.subjects import Batch, measure_models
from fairseq_admin.analysis.sublayers import Passage, at_rest, attached
from fairseq_admin.errors import UserError
from fairseq_admin.residual import masked_var, omegas_from_variances

SUMMARY = "residual dependency of each sublayer on each branch (Liu et al.), as heat maps"
EPS = 1e-5  # of fairseq's layer norms
UNEXPLAINED = 1e-2  # largest error of a sum, relative to its largest entry, that is rounding


class Shares:
    """Follows what each branch has given to the stream of one stack, token by token."""

    def __init__(self) -> None:
        self.parts: List[Tensor] = []  # x_0, then each branch's, `(tokens, embed_dim)`
        self.bias = torch.zeros(1)  # of the norms passed so far, `(tokens, embed_dim)`
        self.variances: List[float] = []  # of x_0 and the branches
        self.rows: List[Dict[str, Any]] = []

    def add(self, passage: Passage) -> None:
        """Measure the row of a sublayer, and carry all shares through its norm."""
        valid = passage.valid
        if not self.parts:
            self.parts.append(passage.shortcut[valid].float())
            self.variances.append(masked_var(passage.shortcut, valid))
        omega = passage.sublayer.omega
        if omega is not None:
            self.parts = [part * omega for part in self.parts]
            self.bias = self.bias * omega
        self.parts.append(passage.branch[valid].float())
        self.variances.append(masked_var(passage.branch, valid))
        total = passage.total[valid].float()
        std = (total.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()  # `(tokens, 1)`
        beta = [self.normal(part, std).square().mean().sqrt().item() for part in self.parts]
        bias = self.normal(self.bias.expand_as(total), std).square().mean().sqrt().item()
        error = (sum(self.parts) + self.bias - total).abs().max() / total.abs().max()
        if error > UNEXPLAINED:
            raise UserError(f"{passage.sublayer.name}: its sum is not what its branches give")
        self.rows.append(
            {
                "name": passage.sublayer.name,
                "kind": passage.sublayer.kind,
                "beta": beta,  # of x_0 and of each branch so far
                "bias": bias,  # of the norms' biases
                "remainder": 1 - sum(b * b for b in beta) - bias * bias,
                "unexplained": error.item(),
            }
        )
        if not passage.sublayer.pre_ln:
            norm = passage.sublayer.norm
            self.parts = [self.normal(part, std) * norm.weight for part in self.parts]
            self.bias = self.normal(self.bias.expand_as(total), std) * norm.weight + norm.bias

    @staticmethod
    def normal(part: Tensor, std: Tensor) -> Tensor:
        """A share after a layer norm whose input has the standard deviation *std*."""
        return (part - part.mean(-1, keepdim=True)) / std


def expected_diagonal(input_var: float, branch_vars: List[float], post_ln: bool) -> List[float]:
    """beta_ii that follows from the variances at initialization, where branches are independent:
    of Pre-LN and Admin beta_ii^2 = Var(f_i) / (Var(x_0) + sum_{j<=i} Var(f_j)), of Post-LN
    Var(f_i) / (1 + Var(f_i)), its first shortcut being x_0 instead."""
    if not post_ln:
        after = omegas_from_variances(input_var, [*branch_vars, 0.0])[1:]  # omega_{i+1}
        return [var**0.5 / omega for var, omega in zip(branch_vars, after)]
    shortcuts = [input_var] + [1.0] * (len(branch_vars) - 1)
    return [(var / (before + var)) ** 0.5 for var, before in zip(branch_vars, shortcuts)]


@torch.no_grad()
def dependencies(model: nn.Module, batch: Batch, pad: int) -> Dict[str, Dict[str, Any]]:
    """By stack: a row a sublayer, with ``beta`` `(i + 1,)` for x_0 and branches 1 to i, each the
    root mean square over tokens and channels of that share of the normalized sum; squares,
    ``bias`` squared and ``remainder``, twice the shares' covariances, sum to 1; the ``variances``
    of x_0 and of the branches; ``expected``, :func:`expected_diagonal` of these; the ``omegas``,
    means over channels (1 where there are none)."""
    stacks = {"encoder": Shares(), "decoder": Shares()}
    with at_rest(model), attached(
        model, batch["net_input"], pad, lambda stack, passage: stacks[stack].add(passage)
    ) as sublayers:
        model(**batch["net_input"])
    return {
        stack: {
            "rows": shares.rows,
            "variances": [shares.variances[0], shares.variances[1:]],
            "omegas": [1.0 if s.omega is None else s.omega.mean().item() for s in sublayers[stack]],
            "expected": expected_diagonal(
                shares.variances[0],
                shares.variances[1:],
                not sublayers[stack][0].pre_ln and sublayers[stack][0].junction is None,
            ),
        }
        for stack, shares in stacks.items()
    }


measure = partial(measure_models, "dependency", dependencies)
