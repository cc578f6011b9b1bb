"""Profiles, and the files that hold one: our JSON, those of Transformer-Clinic and deepnmt."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file

LARGEST = 1e4  # far above any omega (11 at 100-100 layers), and a number in fp16 too


FORMAT = "fairseq_admin profile 1"
STACKS = ("encoder", "decoder")


@dataclass
class SublayerProfile:
    """One residual junction; ``branch_var`` is None where only the omega is known."""

    name: str
    omega: float
    branch_var: Optional[float] = None


@dataclass
class StackProfile:
    """The sublayers of one stack in order of execution; ``input_var`` is ``Var(x_0)``."""

    input_var: Optional[float] = None
    sublayers: List[SublayerProfile] = field(default_factory=list)


@dataclass
class Profile:
    """Omegas of a model by stack and sublayer, and how they were made."""

    stacks: Dict[str, StackProfile]
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
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: for other data.
        """
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r} instead of {FORMAT!r}")
        stacks = {}
        for name in STACKS:
            stack = data["stacks"][name]
            sublayers = [
                SublayerProfile(str(s["name"]), float(s["omega"]), optional_float(s["branch_var"]))
                for s in stack["sublayers"]
            ]
            stacks[name] = StackProfile(optional_float(stack["input_var"]), sublayers)
        return cls(stacks, dict(data["meta"]))

    def save(self, path: str) -> None:
        """Write the JSON file *path*, whole or not at all."""
        with whole_file(path) as f:
            json.dump(self.to_dict(), f, indent=1)
            f.write("\n")

    def rows(self) -> List[Tuple[str, str, str]]:
        """Sublayer, branch variance and omega; before each stack the variance of its input."""
        rows = []
        for name in STACKS:
            stack = self.stacks[name]
            if stack.input_var is not None:
                rows.append((f"{name} input", f"{stack.input_var:.4f}", ""))
            for s in stack.sublayers:
                var = "" if s.branch_var is None else f"{s.branch_var:.4f}"
                rows.append((s.name, var, f"{s.omega:.4f}"))
        return rows

    def table(self) -> str:
        """A text table of the rows."""
        rows = [("sublayer", "branch variance", "omega"), *self.rows()]
        return "\n".join(f"{x:<34} {var:>15} {omega:>8}".rstrip() for x, var, omega in rows)


def optional_float(value: Any) -> Optional[float]:
    """*value* as a float; None stays None."""
    return None if value is None else float(value)


def read_profile(path: str, names: Dict[str, List[str]]) -> Profile:
    """A saved profile of a model's sublayers: our JSON, a Transformer-Clinic file ("index omega" a
    line, encoder then decoder) or a deepnmt file (one omega a line, in the same order).

    Args:
        names: of the model's sublayers, by stack.

    Raises:
        UserError: for a file that is none of these, or has other sublayers than the model.
    """
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8-sig") as f:
            text = f.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the omega file {path}: {error}") from error
    if text.lstrip().startswith("{"):
        try:
            profile = Profile.from_dict(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            told = f"{path} is JSON, but not a profile of fairseq-admin: {error!r}"
            raise UserError(told) from error
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
        stack: StackProfile(None, [SublayerProfile(name, next(rest)) for name in names[stack]])
        for stack in STACKS
    }
    return Profile(stacks)
