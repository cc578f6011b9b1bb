"""Admin: a trained vector a sublayer, which a profile sets (Liu et al. 2020)."""

from typing import Callable

import torch
from torch import Tensor, nn

from fairseq_admin.residuals.residual import Place, Residual

HALVES = (torch.float16, torch.bfloat16)


class AdminResidual(Residual):
    """``LN(x * omega + f(x))``.

    Omega scales the shortcut, never the branch, and starts at 1: an ordinary Post-LN junction. It
    has one entry a channel, `(embed_dim,)`.
    """

    profiled = True
    options = ("learn_first_omega",)

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.omega = nn.Parameter(torch.ones(place.embed_dim))

    @property
    def shortcut_scale(self) -> Tensor:
        return self.omega

    def be_first(self) -> None:
        """Omega is a constant of the state dict instead of a trained parameter."""
        if not self.place.options.get("learn_first_omega"):
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

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        return torch.addcmul(branch, x, self.omega.to(x.dtype))
