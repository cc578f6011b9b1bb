"""Keel: a norm before the branch and one behind the sum, which weighs the shortcut by depth (Chen
and Wei 2026, arXiv:2601.19895)."""

from torch import Tensor, nn

from fairseq_admin.residuals.residual import Place, Residual


class KeelResidual(Residual):
    """``LN(L * x + f(LN(x)))`` with L the sublayers of the stack, the same in all of them; the
    inner norm is the junction's own."""

    unfoldable = "it has two norms a sublayer"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.shortcut_scale = float(place.sublayers)
        self.norm = nn.LayerNorm(place.embed_dim)

    def enter(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self.norm(x)
