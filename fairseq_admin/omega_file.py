"""Saved profiles: our JSON, and the files of Transformer-Clinic and deepnmt."""

import json
import os
from typing import Dict, List

from torch import nn

from fairseq_admin.errors import UserError
from fairseq_admin.profiling import STACKS, Profile, Stack, Sublayer, named_junctions

LARGEST = 1e4  # far above any omega (11 at 100-100 layers), and a number in fp16 too


def read_profile(path: str, model: nn.Module) -> Profile:
    """A saved profile for *model*: our JSON, a Transformer-Clinic file ("index omega" a line,
    encoder then decoder) or a deepnmt file (one omega a line, in the same order).

    Raises:
        UserError: for a file that is none of these, or has other sublayers than the model.
    """
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8-sig") as f:
            text = f.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the omega file {path}: {error}") from error
    names = {stack: list(junctions) for stack, junctions in named_junctions(model).items()}
    if text.lstrip().startswith("{"):
        profile = parse_json(text, path)
    else:
        profile = split_omegas(parse_lines(text, path), names, path)
    found = {name: [s.name for s in stack.sublayers] for name, stack in profile.stacks.items()}
    if count(found) != count(names):
        raise UserError(f"{path} has {count(found)}, the model has {count(names)}")
    for stack in STACKS:
        for theirs, ours in zip(found[stack], names[stack]):
            if theirs != ours:
                raise UserError(f"{path} has a sublayer {theirs} where the model has {ours}")
    for omega in profile.omegas:
        if not 0 < omega < LARGEST:
            raise UserError(f"{path} holds an omega that is not between 0 and {LARGEST:g}: {omega}")
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is JSON, but not a profile of fairseq-admin: {error!r}") from error


def parse_lines(text: str, path: str) -> List[float]:
    """Omegas of a Transformer-Clinic file, whose lines are numbered anew in each stack, or of a
    deepnmt file."""
    omegas: List[float] = []
    last = 0
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            *index, omega = (float(f) for f in fields)
        except ValueError:
            raise UserError(f"{path}, line {number} holds no omega: {line[:60]!r}") from None
        if len(index) > 1 or (index and index[0] not in (0, 1, last + 1)):
            raise UserError(f"{path}, line {number} is out of order: {line[:60]!r}")
        last = index[0] if index else 0
        omegas.append(omega)
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
