"""The rooms of the code: imports point down, none in a circle, and no module is long."""

import ast
from pathlib import Path

import pytest
from graphlib import TopologicalSorter

from recipes.code import TRAINED_BY

ROOT = Path(__file__).resolve().parents[2]
# "" stands for the modules that lie in no folder: the method, and the small things that all share
PACKAGE = ["", "checkpoints", "scoring", "serving", "analysis", "reporting", "commands", "cli"]
SCRIPTS = ["corpora", "recipes", "bench", "records", ""]
LONGEST = 250  # lines


def modules():
    """Path by dotted name of every module of the package and of the scripts' folders."""
    found = {}
    for root, base in ((ROOT / "fairseq_admin", ROOT), (ROOT / "scripts", ROOT / "scripts")):
        for path in root.rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name):
    """The project's modules that the module *name* imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: name the package in imports"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & MODULES.keys()) or {node.module}
    return found & MODULES.keys() - {name}


def room(name):
    """Rank of the module's room, the lowest 0, and the list it is from."""
    package, _, rest = name.partition(".")
    order, inner = (PACKAGE, rest) if package == "fairseq_admin" else (SCRIPTS, name)
    first = inner.partition(".")[0]
    return order.index(first if first in order else ""), order


def test_there_is_something_to_look_at():
    assert {"fairseq_admin.residual", "fairseq_admin.cli", "recipes.run"} <= MODULES.keys()
    assert "fairseq_admin.residual" in imports("fairseq_admin.layers")
    assert "fairseq_admin.scoring.score" in imports("fairseq_admin.commands.score")


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    rank, order = room(name)
    for other in imports(name) - {"fairseq_admin"}:
        its_rank, its_order = room(other)
        if order is PACKAGE:
            assert its_order is PACKAGE, f"{name} imports {other}: the package needs no scripts"
            assert its_rank <= rank, f"{name} imports {other}, which lies above it"
            assert order[its_rank] != "commands" or name == "fairseq_admin.cli"
        elif its_order is SCRIPTS:
            assert its_rank <= rank, f"{name} imports {other}, which lies above it"


def test_no_imports_in_a_circle():
    TopologicalSorter({name: imports(name) for name in MODULES}).prepare()


def test_a_training_is_decided_by_what_the_plugin_is_made_of():
    found, todo = (
        set(),
        ["fairseq_admin.task", "fairseq_admin.architectures", "fairseq_admin.optim"],
    )
    while todo:
        name = todo.pop()
        found.add(name)
        todo += imports(name) - found - {"fairseq_admin"}
    shared = {MODULES[f"fairseq_admin.{name}"] for name in ("errors", "files")}
    assert {MODULES[name] for name in found} - shared == set(TRAINED_BY)


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in MODULES.values()} - {"fairseq_admin", "scripts"}
    assert folders <= {*PACKAGE, *SCRIPTS}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST
