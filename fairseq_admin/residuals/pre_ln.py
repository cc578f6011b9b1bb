"""Pre-LN: the norm stands before the branch (Xiong et al. 2020, arXiv:2002.04745)."""

from torch import Tensor, nn

from fairseq_admin.residuals.residual import Residual


class PreLNResidual(Residual):
    """``x + f(LN(x))``; each stack ends with a norm."""

    pre_ln = True

    def enter(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x)

    def forward(self, x: Tensor, branch: Tensor, norm: nn.Module) -> Tensor:
        return self.add(x, branch)
