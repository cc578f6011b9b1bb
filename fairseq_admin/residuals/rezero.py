"""ReZero: no norm, and branches that begin at nothing (Bachlechner et al. 2020,
arXiv:2003.04887)."""

from typing import Dict

import torch
from torch import Tensor, nn

from fairseq_admin.residuals.residual import NORMS, Place, Residual


class ReZeroResidual(Residual):
    """``x + a * f(x)``: a is one trained number a layer, 0 at the start; layers have no norm."""

    unfoldable = "its layers have no norm"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.resweight = nn.Parameter(torch.zeros(1))
        self.owner = (self,)  # of the layer's a; a tuple, so that no other keeps it too

    @classmethod
    def prepare_(cls, layer: nn.Module, junctions: Dict[str, Residual], place: Place) -> None:
        for name, junction in junctions.items():
            setattr(layer, NORMS[name], None)
            if name != "ffn":
                del junction.resweight
                junction.owner = (junctions["ffn"],)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        return torch.addcmul(x, branch, self.owner[0].resweight)

    def forward(self, x: Tensor, branch: Tensor, norm: None) -> Tensor:
        return self.add(x, branch)
