"""Residual dependency beta_ij: how much of sublayer i's normalized sum is branch j's.

Liu et al. 2020, section 4: x_i = sum_j beta_ij * a_j with a_j the normalized branch outputs.
"""

from functools import partial
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from fairseq_admin.analysis.subjects import Batch, measure_models
from fairseq_admin.analysis.sublayers import Passage, at_rest, attached
from fairseq_admin.errors import UserError
from fairseq_admin.profiling import moments

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
        """Scale all shares as the sublayer does its shortcut, measure its row, and carry them
        through the norm behind its sum."""
        valid = passage.valid
        if not self.parts:
            self.parts.append(passage.shortcut[valid].float())
            self.variances.append(moments(passage.shortcut, valid)[2])
        scale, norm = passage.sublayer.scale, passage.sublayer.post_norm
        self.parts = [part * scale for part in self.parts]
        self.bias = self.bias * scale
        self.parts.append(passage.added[valid].float())
        self.variances.append(moments(passage.added, valid)[2])
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
        if norm is not None:
            self.parts = [self.normal(part, std) * norm.weight for part in self.parts]
            self.bias = self.normal(self.bias.expand_as(total), std) * norm.weight + norm.bias

    @staticmethod
    def normal(part: Tensor, std: Tensor) -> Tensor:
        """A share after a layer norm whose input has the standard deviation *std*."""
        return (part - part.mean(-1, keepdim=True)) / std


def expected_diagonal(
    input_var: float, branch_vars: List[float], scales: List[float], post_norm: bool
) -> List[float]:
    """beta_ii that follows from the variances at initialization, where branches are independent:
    beta_ii^2 = Var(f_i) / (s_i^2 Var(x_{i-1}) + Var(f_i)). The shortcut x_{i-1}, which s_i scales,
    has the variance 1 where a norm stands behind each sum, and Var(x_0) + sum_{j<i} Var(f_j) where
    none does; x_0's is *input_var*."""
    expected, shortcut_var = [], input_var
    for var, scale in zip(branch_vars, scales):
        total = scale**2 * shortcut_var + var
        expected.append((var / total) ** 0.5)
        shortcut_var = 1.0 if post_norm else total
    return expected


@torch.no_grad()
def dependencies(model: nn.Module, batch: Batch, pad: int) -> Dict[str, Dict[str, Any]]:
    """By stack: a row a sublayer, with ``beta`` `(i + 1,)` for x_0 and branches 1 to i, each the
    root mean square over tokens and channels of that share of the normalized sum; squares,
    ``bias`` squared and ``remainder``, twice the shares' covariances, sum to 1; the ``variances``
    of x_0 and of what the branches add; the ``scales`` of the shortcuts, means over channels;
    ``expected``, :func:`expected_diagonal` of these."""
    stacks = {"encoder": Shares(), "decoder": Shares()}
    with at_rest(model), attached(
        model, batch["net_input"], pad, lambda stack, passage: stacks[stack].add(passage)
    ) as sublayers:
        model(**batch["net_input"])
    found = {}
    for stack, shares in stacks.items():
        input_var, *branch_vars = shares.variances
        scales = [torch.as_tensor(s.scale).mean().item() for s in sublayers[stack]]
        post_norm = sublayers[stack][0].post_norm is not None
        found[stack] = {
            "rows": shares.rows,
            "variances": [input_var, branch_vars],
            "scales": scales,
            "expected": expected_diagonal(input_var, branch_vars, scales, post_norm),
        }
    return found


measure = partial(measure_models, "dependency", dependencies)
