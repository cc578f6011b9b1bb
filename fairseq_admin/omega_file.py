"""Profiles, and the files that hold one: our JSON, those of Transformer-Clinic and deepnmt."""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file
from fairseq_admin.methods import STACKS
from fairseq_admin.residuals.omegas import analytic_omega

LARGEST = 1e4  # far above any omega (11 at 100-100 layers); it and its inverse are numbers in fp16

NO_OMEGA = f"holds an omega that is not between {1 / LARGEST:g} and {LARGEST:g}"
FORMAT = "fairseq_admin profile 1"
HEAD = ("sublayer", "branch variance", "omega", "analytic")


@dataclass
class SublayerProfile:
    """One residual junction; ``branch_var`` is None where only the omega is known, ``omega`` where
    its method has none."""

    name: str
    omega: Optional[float]
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
        sublayers = [s for stack in STACKS for s in self.stacks[stack].sublayers]
        return [s.omega for s in sublayers if s.omega is not None]

    def to_dict(self) -> Dict[str, Any]:
        """Plain containers, for JSON and for checkpoints."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Profile":
        """The inverse of :meth:`to_dict`; ValueError, KeyError, TypeError or AttributeError for
        other data."""
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r} instead of {FORMAT!r}")
        stacks = {}
        for name in STACKS:
            stack = data["stacks"][name]
            sublayers = [
                SublayerProfile(str(s["name"]), *map(optional_float, (s["omega"], s["branch_var"])))
                for s in stack["sublayers"]
            ]
            stacks[name] = StackProfile(optional_float(stack["input_var"]), sublayers)
        return cls(stacks, dict(data["meta"]))

    def save(self, path: str) -> None:
        """Write the JSON file *path*, whole or not at all."""
        with whole_file(path) as f:
            json.dump(self.to_dict(), f, indent=1)
            f.write("\n")

    def rows(self) -> List[Tuple[str, ...]]:
        """What HEAD says of each sublayer; before each stack the variance of its input. Omegas, and
        what the method `analytic` has instead, are left out where the method has none."""
        rows: List[Tuple[str, ...]] = []
        for name in STACKS:
            stack = self.stacks[name]
            if stack.input_var is not None:
                rows.append((f"{name} input", f"{stack.input_var:.4f}", "", ""))
            analytic = f"{analytic_omega(len(stack.sublayers)):.4f}" if stack.sublayers else ""
            for s in stack.sublayers:
                var = "" if s.branch_var is None else f"{s.branch_var:.4f}"
                omegas = ("", "") if s.omega is None else (f"{s.omega:.4f}", analytic)
                rows.append((s.name, var, *omegas))
        return [row[: len(self.head)] for row in rows]

    @property
    def head(self) -> Tuple[str, ...]:
        """Titles of the columns of the rows."""
        return HEAD if self.omegas else HEAD[:2]

    def table(self) -> str:
        """A text table of the rows."""
        rows = [self.head, *self.rows()]
        return "\n".join(
            f"{name:<34} {var:>15}{''.join(f'{omega:>9}' for omega in omegas)}".rstrip()
            for name, var, *omegas in rows
        )


def optional_float(value: Any) -> Optional[float]:
    """*value* as a float; None stays None."""
    return None if value is None else float(value)


def read_profile(path: str, names: Dict[str, List[str]]) -> Profile:
    """A saved profile of a model's sublayers: our JSON, a Transformer-Clinic file ("index omega" a
    line, encoder then decoder) or a deepnmt file (one omega a line, in the same order). *names* are
    those of the sublayers that a profile sets, by stack. Raises UserError for a file that is none
    of these, or has other sublayers than the model."""
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
        for name, stack in profile.stacks.items():
            if not names[name]:
                stack.sublayers = []  # of another method than the one that is profiled
            elif any(s.omega is None for s in stack.sublayers):
                told = f"{path} holds no omega of the {name}: it is of another residual method"
                raise UserError(told)
        check_json(profile, names, text, path)
    else:
        profile = split_omegas(parse_lines(text, path), names, path)
    profile.meta = {**profile.meta, "omega_file": path}
    return profile


def check_json(profile: Profile, names: Dict[str, List[str]], text: str, path: str) -> None:
    """Raise UserError where *profile*, read from *text*, is of other sublayers than *names*, or
    holds a number that no model has."""
    found = {name: [s.name for s in stack.sublayers] for name, stack in profile.stacks.items()}
    if count(found) != count(names):
        raise UserError(f"{path} has {count(found)}, the model has {count(names)}")

    def refuse(key: str, what: str) -> None:
        before, _, after = text.partition(f'"{key}"')
        line = f'"{key}"' + after.partition("\n")[0]
        raise refused(path, before.count("\n") + 1, line, what)

    for stack in STACKS:
        for theirs, ours in zip(found[stack], names[stack]):
            if theirs != ours:
                refuse(theirs, f"has a sublayer {theirs} where the model has {ours}")
        if not is_variance(profile.stacks[stack].input_var):
            refuse(stack, f"has input_var {profile.stacks[stack].input_var}, which is no variance")
        for s in profile.stacks[stack].sublayers:
            if not is_variance(s.branch_var):
                refuse(s.name, f"has branch_var {s.branch_var}, which is no variance")
            if not is_omega(s.omega):
                refuse(s.name, f"{NO_OMEGA} ({s.omega})")


def is_variance(var: Optional[float]) -> bool:
    """Whether *var* can have been measured; None says that it was not."""
    return var is None or (math.isfinite(var) and var > 0)


def is_omega(omega: float) -> bool:
    """Whether *omega* can scale a shortcut."""
    return 1 / LARGEST <= omega < LARGEST


def count(names: Dict[str, List[str]]) -> str:
    """Numbers of sublayers, for a message."""
    per_stack = " + ".join(f"{len(names[stack])} {stack}" for stack in STACKS)
    return f"{sum(map(len, names.values()))} sublayers ({per_stack})"


def refused(path: str, number: int, line: str, what: str) -> UserError:
    """The error that says *what* is wrong with a *line* of the file *path*, by its *number*."""
    return UserError(f"{path}, line {number} {what}: {line.strip()[:60]!r}")


class OmegaLine(NamedTuple):
    """A line of a Transformer-Clinic or deepnmt file."""

    number: int  # in the file, from 1
    text: str
    index: Optional[float]  # of the sublayer in its stack; None in a deepnmt file
    omega: float


def parse_lines(text: str, path: str) -> List[OmegaLine]:
    """The lines of a Transformer-Clinic or deepnmt file, without blank ones."""
    found: List[OmegaLine] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            *index, omega = map(float, line.split())
        except ValueError:
            raise refused(path, number, line, "holds no omega") from None
        last = found[-1].index if found else None
        mixed = found and (last is None) == bool(index)
        if len(index) > 1 or mixed or (index and index[0] not in (0, 1, (last or 0) + 1)):
            raise refused(path, number, line, "is out of order")
        if not is_omega(omega):
            raise refused(path, number, line, NO_OMEGA)
        found.append(OmegaLine(number, line, index[0] if index else None, omega))
    return found


def split_omegas(lines: List[OmegaLine], names: Dict[str, List[str]], path: str) -> Profile:
    """Give unnamed omegas, encoder first, the names of the model's sublayers."""
    if len(lines) != sum(map(len, names.values())):
        raise UserError(f"{path} has {len(lines)} sublayers, the model has {count(names)}")
    begins = [
        i
        for i, (last, line) in enumerate(zip(lines, lines[1:]), start=1)
        if line.index is not None and line.index != last.index + 1
    ]
    decoder = len(names["encoder"])
    if begins and begins != [decoder]:
        wrong = lines[next(i for i in begins if i != decoder)]
        told = f"begins a stack, but the model has {count(names)}"
        raise refused(path, wrong.number, wrong.text, told)
    rest = (line.omega for line in lines)
    stacks = {
        stack: StackProfile(None, [SublayerProfile(name, next(rest)) for name in names[stack]])
        for stack in STACKS
    }
    return Profile(stacks)
