"""The junction of branch and shortcut: Post-LN's, and what other methods change of it. Knows torch,
not fairseq."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple, Union

import torch
from torch import Tensor, nn

# name of each sublayer's norm in fairseq's layers
NORMS = {
    "self_attn": "self_attn_layer_norm",
    "encoder_attn": "encoder_attn_layer_norm",
    "ffn": "final_layer_norm",
}


@dataclass(frozen=True)
class Place:
    """What a junction knows of the stack that it stands in; ``options`` are the model's own."""

    embed_dim: int
    stack: str = "encoder"
    layers: Dict[str, int] = field(default_factory=lambda: {"encoder": 1, "decoder": 1})
    sublayers: int = 2  # of the stack
    options: Dict[str, Any] = field(default_factory=dict)


class Residual(nn.Module):
    """``LN(x + f(x))`` (Vaswani et al. 2017), and the base of every other method.

    A layer asks it for what enters a branch, and calls it for what leaves with the shortcut. The
    norm is the layer's own, which it lends. All tensors are `(seq_len, batch, embed_dim)`. What a
    method adds to a checkpoint tells it from others: a constant is a buffer without dimensions.

    Attributes:
        profiled: a profile sets its omegas before training.
        pre_ln: fairseq's ``normalize_before``: each stack ends with a norm.
        options: names of the model's options that mean something to it.
        unfoldable: why fairseq's own `transformer` cannot compute it; None where it can.
    """

    profiled = False
    pre_ln = False
    options: Tuple[str, ...] = ()
    unfoldable: Optional[str] = None
    shortcut_scale: Union[float, Tensor] = 1.0  # what multiplies x; a tensor is `(embed_dim,)`

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @classmethod
    def prepare_(cls, layer: nn.Module, junctions: Dict[str, "Residual"], place: Place) -> None:
        """Change what a new *layer* starts from; *junctions* are its own by sublayer. Raises
        ValueError for a model that the method is not made for."""

    def be_first(self) -> None:
        """What changes where this junction is the first of its stack."""

    def enter(self, x: Tensor, norm: nn.Module) -> Tensor:
        """What the branch reads."""
        return x

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """The residual sum of the shortcut *x* and what the branch gave."""
        return torch.add(branch, x, alpha=self.shortcut_scale)

    def forward(self, x: Tensor, branch: Tensor, norm: nn.Module) -> Tensor:
        """What the next sublayer reads."""
        return norm(self.add(x, branch))
