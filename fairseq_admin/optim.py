"""Optimizers of torch for fairseq: `radam`, and `adam_fused`, fairseq's own `adam` in one call."""

import ast
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from omegaconf import II

from fairseq_admin.errors import UserError, one_line


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


class OfTheSameParameters:
    """Before fairseq's class among the bases: the state of other parameters is one line."""

    def load_state_dict(self, state_dict, optimizer_overrides=None) -> None:
        try:
            super().load_state_dict(state_dict, optimizer_overrides)
        except ValueError as error:
            raise UserError(
                f"the checkpoint's optimizer had other parameters ({one_line(error)}): give the "
                "options of its training, or --reset-optimizer"
            ) from None


@register_optimizer("radam", dataclass=RAdamConfig)
class FairseqRAdam(OfTheSameParameters, FairseqOptimizer):
    """Rectified Adam (Liu et al. 2019, "On the Variance of the Adaptive Learning Rate and
    Beyond"), as torch has it."""

    def __init__(self, cfg: RAdamConfig, params) -> None:
        super().__init__(cfg)
        self._optimizer = torch.optim.RAdam(params, **self.optimizer_config)

    def load_state_dict(self, state_dict, optimizer_overrides=None) -> None:
        """As fairseq's; a checkpoint's own way over the parameters gives way to ours."""
        super().load_state_dict(state_dict, {"foreach": True, **(optimizer_overrides or {})})

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
            "foreach": True,  # all parameters by a call an operation, on CPUs too
        }


class Adam(torch.optim.AdamW):
    """The update of fairseq's Adam, which adds eps before the correction of the second moment where
    torch adds it after."""

    supports_flat_params = True  # as there: it works element by element

    def step(self, closure=None):
        for group in self.param_groups:
            if "updates" not in group:  # at the start, or from a checkpoint of fairseq's
                states = (self.state[p] for p in group["params"] if p in self.state)
                group["updates"] = int(next(states, {"step": 0})["step"])
            group["updates"] += 1
            correction = 1 - group["betas"][1] ** group["updates"]
            eps = group.setdefault("uncorrected_eps", group["eps"])
            group["eps"] = eps / math.sqrt(correction)
        return super().step(closure)

    def state_dict(self) -> Dict[str, Any]:
        """As fairseq's Adam has it."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group.pop("updates", None)
            group["eps"] = group.pop("uncorrected_eps", group["eps"])
        return state


@register_optimizer("adam_fused", dataclass=FairseqAdamConfig)
class FairseqFusedAdam(OfTheSameParameters, FairseqAdam):
    """fairseq's `adam` with its options and its checkpoints, all parameters in one call."""

    def __init__(self, cfg: FairseqAdamConfig, params) -> None:
        FairseqOptimizer.__init__(self, cfg)
        if cfg.fp16_adam_stats:
            raise UserError("--fp16-adam-stats means nothing to adam_fused: leave it out")
        self._optimizer = Adam(params, fused=True, **self.optimizer_config)

    def load_state_dict(self, state_dict, optimizer_overrides=None) -> None:
        """As fairseq's, also of a checkpoint of `adam`."""
        groups = [{**group, "fused": True} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups}, optimizer_overrides)


FairseqFusedAdam.__name__ = FairseqAdam.__name__  # which a trainer compares when it resumes
