"""The profile: what one forward pass measures, the omegas that follow, and their files."""

import json
import math
import os
import random
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_admin.errors import UserError
from fairseq_admin.residual import AdminResidual, masked_var, next_omega

FORMAT = "fairseq_admin profile 1"
STACKS = ("encoder", "decoder")


@dataclass
class Sublayer:
    """One residual junction; ``branch_var`` is None where only the omega is known."""

    name: str
    omega: float
    branch_var: Optional[float] = None


@dataclass
class Stack:
    """The sublayers of one stack in order of execution; ``input_var`` is ``Var(x_0)``."""

    input_var: Optional[float] = None
    sublayers: List[Sublayer] = field(default_factory=list)


@dataclass
class Profile:
    """Omegas of a model by stack and sublayer, and how they were made."""

    stacks: Dict[str, Stack]
    meta: Dict[str, Any] = field(default_factory=dict)

    @property
    def omegas(self) -> List[float]:
        """All omegas: encoder, then decoder, each in order of execution."""
        return [s.omega for stack in STACKS for s in self.stacks[stack].sublayers]

    def to_dict(self) -> Dict[str, Any]:
        """Plain containers, for JSON and for checkpoints."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Profile":
        """The inverse of :meth:`to_dict`; raises KeyError or TypeError for other data."""
        stacks = {
            name: Stack(stack["input_var"], [Sublayer(**s) for s in stack["sublayers"]])
            for name, stack in data["stacks"].items()
        }
        return cls({name: stacks[name] for name in STACKS}, data["meta"])

    def save(self, path: str) -> None:
        """Write the JSON file *path*, whole or not at all."""
        partial_path = f"{path}.{os.getpid()}.tmp"
        with open(partial_path, "w", encoding="utf-8") as f:
            json.dump(self.to_dict(), f, indent=1)
            f.write("\n")
        os.replace(partial_path, path)

    def table(self) -> str:
        """A text table: sublayer, branch variance, omega."""
        lines = [f"{'sublayer':<34} {'branch variance':>15} {'omega':>8}"]
        for name in STACKS:
            stack = self.stacks[name]
            if stack.input_var is not None:
                lines.append(f"{name + ' input':<34} {stack.input_var:15.4f}")
            for s in stack.sublayers:
                var = "" if s.branch_var is None else f"{s.branch_var:.4f}"
                lines.append(f"{s.name:<34} {var:>15} {s.omega:8.4f}")
        return "\n".join(lines)


def named_junctions(model: nn.Module) -> Dict[str, Dict[str, AdminResidual]]:
    """The model's junctions by stack and sublayer name, in order of execution."""
    return {
        stack: {
            f"{stack}.{name}"[: -len("_residual")]: module
            for name, module in getattr(model, stack).named_modules()
            if isinstance(module, AdminResidual)
        }
        for stack in STACKS
        if hasattr(model, stack)
    }


def apply_profile(model: nn.Module, profile: Profile) -> None:
    """Set every junction's omega from *profile*, which names the same sublayers."""
    junctions = named_junctions(model)
    for name, stack in profile.stacks.items():
        for sublayer in stack.sublayers:
            junctions[name][sublayer.name].fill(sublayer.omega)


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


def measure(stack: Stack, name: str, valid: Tensor, junction: AdminResidual, inputs) -> None:
    """Forward pre-hook of a junction: measure its branch, then set its omega before it sums.

    So the next branch is measured on the network that starts to train.
    """
    shortcut, branch = inputs
    if stack.input_var is None:
        stack.input_var = checked(masked_var(shortcut, valid), f"the input of {name}")
    omega = next_omega(stack.input_var, [s.branch_var for s in stack.sublayers])
    var = checked(masked_var(branch, valid), f"the branch of {name}")
    junction.fill(omega)
    stack.sublayers.append(Sublayer(name, omega, var))


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
    """Measure every branch of *model* in one forward pass, and set its omegas on the way.

    Args:
        model: an encoder-decoder with :class:`AdminResidual` junctions, on the CPU.
        net_input: ``src_tokens`` `(batch, src_len)`, ``src_lengths`` `(batch,)`,
            ``prev_output_tokens`` `(batch, tgt_len)`.
        pad: index of the padding symbol in both dictionaries.
        seed: of the dropout masks.

    Raises:
        UserError: where a variance is 0, infinite or NaN.
    """
    tokens = {"encoder": net_input["src_tokens"], "decoder": net_input["prev_output_tokens"]}
    stacks = {name: Stack() for name in STACKS}
    handles = [
        junction.register_forward_pre_hook(
            partial(measure, stacks[stack], name, tokens[stack].ne(pad).t())
        )
        for stack, junctions in named_junctions(model).items()
        for name, junction in junctions.items()
    ]
    try:
        with seeded(seed), all_layers_training(model):
            model(**net_input, features_only=True, return_all_hiddens=False)
    finally:
        for handle in handles:
            handle.remove()
    return Profile(stacks)


def read_profile(path: str, model: nn.Module) -> Profile:
    """A saved profile for *model*: our JSON, a Transformer-Clinic file ("index omega" a line,
    encoder then decoder) or a deepnmt file (one omega a line, in the same order).

    Raises:
        UserError: for a file that is none of these, or has another number of sublayers.
    """
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the omega file {path}: {error}") from error
    names = {stack: list(junctions) for stack, junctions in named_junctions(model).items()}
    if text.lstrip().startswith("{"):
        profile = parse_json(text, path)
    else:
        profile = split_omegas(parse_lines(text, path), names, path)
    found = {name: [s.name for s in stack.sublayers] for name, stack in profile.stacks.items()}
    if found != names:
        raise UserError(f"{path} has {count(found)}, the model has {count(names)}")
    bad = [omega for omega in profile.omegas if not (math.isfinite(omega) and omega > 0)]
    if bad:
        raise UserError(f"{path} holds an omega that is not a positive number: {bad[0]}")
    profile.meta = {**profile.meta, "omega_file": path}
    return profile


def count(names: Dict[str, List[str]]) -> str:
    """Numbers of sublayers, for a message."""
    per_stack = " + ".join(f"{len(names[stack])} {stack}" for stack in STACKS)
    return f"{sum(map(len, names.values()))} sublayers ({per_stack})"


def parse_json(text: str, path: str) -> Profile:
    """Our own format."""
    try:
        return Profile.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is JSON, but not a profile of fairseq-admin: {error!r}") from error


def parse_lines(text: str, path: str) -> List[float]:
    """Omegas of a Transformer-Clinic or a deepnmt file."""
    omegas = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                omegas.append(float(line.split()[-1]))
            except ValueError:
                raise UserError(f"{path}, line {number} holds no omega: {line[:60]!r}") from None
    return omegas


def split_omegas(omegas: List[float], names: Dict[str, List[str]], path: str) -> Profile:
    """Give unnamed omegas, encoder first, the names of the model's sublayers."""
    total = sum(map(len, names.values()))
    if len(omegas) != total:
        raise UserError(f"{path} has {len(omegas)} sublayers, the model has {count(names)}")
    rest = iter(omegas)
    stacks = {
        stack: Stack(None, [Sublayer(name, next(rest)) for name in names[stack]])
        for stack in STACKS
    }
    return Profile(stacks)
