"""Optimizer `radam`: torch.optim.RAdam for fairseq."""

import ast
from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II


@dataclass
class RAdamConfig(FairseqDataclass):
    """Options of `radam`."""

    radam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "betas for RAdam"})
    radam_eps: float = field(default=1e-8, metadata={"help": "epsilon for RAdam"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay"})
    decoupled_weight_decay: bool = field(
        default=False,
        metadata={
            "help": "shrink the weights by lr * weight-decay an update, as AdamW and the original "
            "RAdam code do, instead of adding weight-decay * weight to the gradient"
        },
    )
    lr: List[float] = II("optimization.lr")


@register_optimizer("radam", dataclass=RAdamConfig)
class FairseqRAdam(FairseqOptimizer):
    """Rectified Adam (Liu et al. 2019, "On the Variance of the Adaptive Learning Rate and
    Beyond"), as torch has it."""

    def __init__(self, cfg: RAdamConfig, params) -> None:
        super().__init__(cfg)
        self._optimizer = torch.optim.RAdam(params, **self.optimizer_config)

    @property
    def supports_flat_params(self) -> bool:
        """--fp16 keeps one flat fp32 copy of all parameters: RAdam works element by element."""
        return True

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """Arguments of torch.optim.RAdam; they also override those of a checkpoint."""
        betas = self.cfg.radam_betas
        if isinstance(betas, str):
            betas = ast.literal_eval(betas)
        lr = self.cfg.lr
        return {
            "lr": lr if isinstance(lr, float) else lr[0],
            "betas": tuple(betas),
            "eps": self.cfg.radam_eps,
            "weight_decay": self.cfg.weight_decay,
            "decoupled_weight_decay": self.cfg.decoupled_weight_decay,
        }
