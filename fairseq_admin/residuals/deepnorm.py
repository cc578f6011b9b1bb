"""DeepNorm: a constant on the shortcut, and smaller weights in the branch (Wang et al. 2022,
"DeepNet", arXiv:2203.00555)."""

from typing import Dict, Tuple

import torch
from torch import nn

from fairseq_admin.residuals.residual import Place, Residual


def constants(place: Place) -> Tuple[float, float]:
    """Alpha and beta of a stack of an encoder-decoder (DeepNet, figure 2)."""
    n, m = place.layers["encoder"], place.layers["decoder"]
    if not n or not m:
        raise ValueError("DeepNorm's constants are of an encoder and a decoder: give both layers")
    if place.stack == "decoder":
        return (3 * m) ** 0.25, (12 * m) ** -0.25
    return 0.81 * (n**4 * m) ** 0.0625, 0.87 * (n**4 * m) ** -0.0625


class DeepNormResidual(Residual):
    """``LN(x * alpha + f(x))``; FFN, value and output projections start from xavier_normal with
    gain beta, query and key projections with gain 1."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.shortcut_scale, _ = constants(place)
        # tells a checkpoint from one of Post-LN, whose weights are the same otherwise
        self.register_buffer("alpha", torch.tensor(self.shortcut_scale))

    @classmethod
    def prepare_(cls, layer: nn.Module, junctions: Dict[str, Residual], place: Place) -> None:
        if place.stack == "decoder" and "encoder_attn" not in junctions:
            raise ValueError("DeepNorm's constants are of a decoder with cross-attention")
        _, beta = constants(place)
        attentions = [getattr(layer, name) for name in junctions if name != "ffn"]
        for attention in attentions:
            for projection in (attention.q_proj, attention.k_proj):
                nn.init.xavier_normal_(projection.weight)
        small = [p for a in attentions for p in (a.v_proj, a.out_proj)]
        for projection in (*small, layer.fc1, layer.fc2):
            nn.init.xavier_normal_(projection.weight, gain=beta)
