"""The profile: what one forward pass measures, and the omegas that follow."""

import logging
import math
import random
from contextlib import contextmanager
from functools import partial
from typing import Any, Dict, Iterator, List

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import STACKS, Profile, StackProfile, SublayerProfile
from fairseq_admin.residuals.omegas import next_omega
from fairseq_admin.residuals.residual import Residual

logger = logging.getLogger(__name__)


def masked_var(x: Tensor, valid: Tensor) -> float:
    """Biased variance (ddof 0) in fp32 over all channels of the non-padding positions.

    Args:
        x: activations, `(seq_len, batch, embed_dim)`.
        valid: true where a token stands, false at padding, `(seq_len, batch)`.
    """
    return x[valid].float().var(unbiased=False).item()


def named_junctions(model: nn.Module) -> Dict[str, Dict[str, Residual]]:
    """The model's junctions by stack and sublayer name, in order of execution."""
    return {
        stack: {
            f"{stack}.{name}"[: -len("_residual")]: module
            for name, module in getattr(model, stack).named_modules()
            if isinstance(module, Residual)
        }
        for stack in STACKS
        if hasattr(model, stack)
    }


def profiled(model: nn.Module) -> Dict[str, List[str]]:
    """Names of the sublayers whose omegas a profile sets, by stack; empty for other methods."""
    found = {
        stack: [name for name, junction in junctions.items() if junction.profiled]
        for stack, junctions in named_junctions(model).items()
    }
    return found if any(found.values()) else {}


def apply_profile(model: nn.Module, profile: Profile) -> None:
    """Set the omega of every profiled junction from *profile*, which names the same sublayers."""
    junctions = named_junctions(model)
    for name, stack in profile.stacks.items():
        for sublayer in stack.sublayers:
            if junctions[name][sublayer.name].profiled:
                junctions[name][sublayer.name].fill(sublayer.omega)


def warn_of_differences(profile: Profile, options: Dict[str, Any]) -> None:
    """Warn of each option that the file's profile was made with otherwise."""
    for name, value in options.items():
        if name in profile.meta and profile.meta[name] != value:
            logger.warning(
                "the omega file was made with %s %s, this model has %s; its omegas are used as "
                "they are",
                name,
                profile.meta[name],
                value,
            )


def keep_first_at_1(profile: Profile, model: nn.Module) -> None:
    """A first omega that *model* does not train stays 1, whatever a file says."""
    junctions = named_junctions(model)
    for name, stack in profile.stacks.items():
        first = stack.sublayers[0] if stack.sublayers else None
        if first and first.omega != 1 and not list(junctions[name][first.name].parameters()):
            logger.warning(
                "the omega file gives %s omega %s; it is kept at 1 (see --learn-first-omega)",
                first.name,
                first.omega,
            )
            first.omega = 1.0


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch's CPU generator, and give them their states back after."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy takes 32 bits
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def all_layers_training(model: nn.Module) -> Iterator[None]:
    """Training mode, but without LayerDrop: every sublayer is measured."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    for name in STACKS:
        getattr(model, name).layers.training = False  # LayerDropModuleList drops when training
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def measure(stack: StackProfile, name: str, valid: Tensor, junction: Residual, inputs) -> None:
    """Forward pre-hook of a junction: measure its branch, then set its omega before it sums.

    So the next branch is measured on the network that starts to train. A method without profile
    keeps what it has.
    """
    shortcut, branch, _ = inputs
    if stack.input_var is None:
        stack.input_var = checked(masked_var(shortcut, valid), f"the input of {name}")
    var = checked(masked_var(branch, valid), f"the branch of {name}")
    omega = None
    if junction.profiled:
        omega = next_omega(stack.input_var, [s.branch_var for s in stack.sublayers])
        junction.fill(omega)
    elif hasattr(junction, "omega"):
        omega = junction.omega.mean().item()
    stack.sublayers.append(SublayerProfile(name, omega, var))


def checked(var: float, what: str) -> float:
    """*var*, or UserError where no omega can follow from it."""
    if math.isfinite(var) and var > 0:
        return var
    raise UserError(
        f"{what} has variance {var}, so no omega follows from it: look for a dropout of 1, "
        "or weights or embeddings that are zero, infinite or NaN"
    )


@torch.no_grad()
def profile_model(model: nn.Module, net_input: Dict[str, Tensor], pad: int, seed: int) -> Profile:
    """Measure every branch of *model* in one forward pass, and set Admin's omegas on the way.

    Args:
        model: an encoder-decoder with :class:`Residual` junctions, on the CPU.
        net_input: ``src_tokens`` `(batch, src_len)`, ``src_lengths`` `(batch,)`,
            ``prev_output_tokens`` `(batch, tgt_len)`.
        pad: index of the padding symbol in both dictionaries.
        seed: of the dropout masks.

    Raises:
        UserError: where a variance is 0, infinite or NaN.
    """
    tokens = {"encoder": net_input["src_tokens"], "decoder": net_input["prev_output_tokens"]}
    stacks = {name: StackProfile() for name in STACKS}
    handles = [
        junction.register_forward_pre_hook(
            partial(measure, stacks[stack], name, tokens[stack].ne(pad).t())
        )
        for stack, junctions in named_junctions(model).items()
        for name, junction in junctions.items()
    ]
    weights = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        with seeded(seed), all_layers_training(model):
            model(**net_input, features_only=True, return_all_hiddens=False)
    finally:
        for parameter, data in weights:
            parameter.data = data  # quant-noise puts other tensors there
        for handle in handles:
            handle.remove()
    return Profile(stacks)
