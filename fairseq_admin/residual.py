"""The method: omega from variances, and the junction that applies it. Knows torch, not fairseq."""

import math
from typing import Callable, List, Sequence

import torch
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)


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


def omegas_from_variances(input_var: float, branch_vars: Sequence[float]) -> List[float]:
    """One omega a sublayer of a stack, by :func:`next_omega`; same length as *branch_vars*."""
    return [next_omega(input_var, branch_vars[:i]) for i in range(len(branch_vars))]


def masked_var(x: Tensor, valid: Tensor) -> float:
    """Biased variance (ddof 0) in fp32 over all channels of the non-padding positions.

    Args:
        x: activations, `(seq_len, batch, embed_dim)`.
        valid: true where a token stands, false at padding, `(seq_len, batch)`.
    """
    return x[valid].float().var(unbiased=False).item()


class AdminResidual(nn.Module):
    """The residual junction ``x * omega + f(x)``; the layer normalizes what comes out.

    Omega scales the shortcut, never the branch, and starts at 1: an ordinary Post-LN junction.

    Args:
        embed_dim: number of channels; omega has one entry a channel, `(embed_dim,)`.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.ones(embed_dim))

    def freeze(self) -> None:
        """Make omega a constant of the state dict instead of a trained parameter."""
        omega = self.omega.detach()
        del self.omega
        self.register_buffer("omega", omega)

    def fill(self, omega: float) -> None:
        """Set every channel to the scalar *omega*."""
        with torch.no_grad():
            self.omega.fill_(omega)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """As torch's, but a model that is cast to 16 bits keeps its omegas in fp32: above 2 an
        update is less than half of fp16's spacing, and would be rounded away."""

        def kept(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return tensor.to(new.device) if new.dtype in HALVES else new

        return super()._apply(kept, recurse)

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Both arguments and the result are `(seq_len, batch, embed_dim)`."""
        return torch.addcmul(branch, shortcut, self.omega.to(shortcut.dtype))
