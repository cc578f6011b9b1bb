"""The profile: what one forward pass measures, and the omegas that follow."""

import logging
import math
import random
from contextlib import contextmanager
from functools import partial
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import greenlet
import torch
from fairseq.data.data_utils import numpy_seed
from torch import Tensor, nn

from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS
from fairseq_admin.omega_file import Profile, StackProfile, SublayerProfile
from fairseq_admin.residuals.omegas import next_omega
from fairseq_admin.residuals.residual import Residual

logger = logging.getLogger(__name__)
Moments = Tuple[int, float, float]


def moments(x: Tensor, valid: Tensor) -> Moments:
    """Number of entries, mean and biased variance (ddof 0) in fp32 of all channels of the
    non-padding positions.

    Args:
        x: activations, `(seq_len, batch, embed_dim)`.
        valid: true where a token stands, false at padding, `(seq_len, batch)`.
    """
    var, mean = torch.var_mean(x[valid].float(), unbiased=False)
    return int(valid.sum()) * x.size(-1), mean.item(), var.item()


def pooled_var(parts: Sequence[Moments]) -> float:
    """The biased variance of all parts together."""
    total = sum(n for n, _, _ in parts)
    mean = math.fsum(n * mean for n, mean, _ in parts) / total
    return math.fsum(n * (var + (m - mean) ** 2) for n, m, var in parts) / total


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
    state = random.getstate()
    random.seed(seed)
    try:
        with numpy_seed(seed % 2**32), torch.random.fork_rng(devices=[]):  # NumPy takes 32 bits
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
            yield
    finally:
        random.setstate(state)


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode; every module's is as before after it."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def measure(stack: StackProfile, name: str, junction: Residual, arrived: Sequence[tuple]) -> None:
    """Measure the branch of a *junction* by what has *arrived* of each batch (shortcut, branch and
    non-padding positions), then set its omega before it sums.

    So the next branch is measured on the network that starts to train. A method without profile
    keeps what it has.
    """
    if stack.input_var is None:
        var = pooled_var([moments(shortcut, valid) for shortcut, _, valid in arrived])
        stack.input_var = checked(var, f"the input of {name}")
    var = pooled_var([moments(branch, valid) for _, branch, valid in arrived])
    var = checked(var, f"the branch of {name}")
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
def profile_model(
    model: nn.Module, net_inputs: Sequence[Dict[str, Tensor]], pad: int, seed: int
) -> Profile:
    """Measure every branch of *model* in one forward pass, and set Admin's omegas on the way.

    Batches of several lengths pass side by side: each waits at a junction until all have come.

    Args:
        model: an encoder-decoder with :class:`Residual` junctions, on the CPU.
        net_inputs: of each batch ``src_tokens`` `(batch, src_len)`, ``src_lengths`` `(batch,)`,
            ``prev_output_tokens`` `(batch, tgt_len)`.
        pad: index of the padding symbol in both dictionaries.
        seed: of the dropout masks.

    Raises:
        UserError: where a variance is 0, infinite or NaN.
    """
    stacks = {name: StackProfile() for name in STACKS}
    junctions = {
        junction: (stack, name)
        for stack, found in named_junctions(model).items()
        for name, junction in found.items()
    }
    weights = [(parameter, parameter.data) for parameter in model.parameters()]

    def restore() -> None:
        for parameter, data in weights:
            parameter.data = data

    quant_noise = getattr(getattr(model, "cfg", None), "quant_noise", None)
    noisy = bool(getattr(quant_noise, "pq", 0))  # it puts other weights there at each use

    def go_on() -> List[Any]:
        """Run each pass to its next junction."""
        arrived = []
        for one in passes:
            arrived.append(one.switch())
            if noisy:
                restore()
        return arrived

    def arrive(junction: Residual, inputs: tuple) -> None:
        greenlet.getcurrent().parent.switch(junction, *inputs[:2])

    def forward(net_input: Dict[str, Tensor]) -> None:
        model(**net_input, features_only=True, return_all_hiddens=False)

    valid = [
        {"encoder": x["src_tokens"].ne(pad).t(), "decoder": x["prev_output_tokens"].ne(pad).t()}
        for x in net_inputs
    ]
    passes = [greenlet.greenlet(partial(forward, x)) for x in net_inputs]
    handles = [junction.register_forward_pre_hook(arrive) for junction in junctions]
    try:
        with seeded(seed), in_mode(model, training=True):
            for name in STACKS:  # without LayerDrop: every sublayer is measured
                getattr(model, name).layers.training = False
            arrived = go_on()
            while arrived[0] is not None:  # None where a pass has ended
                junction = arrived[0][0]
                stack, name = junctions[junction]
                found = [(x, f, at[stack]) for (_, x, f), at in zip(arrived, valid)]
                measure(stacks[stack], name, junction, found)
                arrived = go_on()
    finally:
        restore()
        for handle in handles:
            handle.remove()
    return Profile(stacks)
