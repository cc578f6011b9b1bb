"""The rooms of the code: imports point down, none in a circle, and no module is long."""

import argparse
import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
from graphlib import TopologicalSorter

from recipes import code, training
from recipes.code import EVALUATED_BY, TRAINED_BY
from records import evaluation

ROOT = Path(__file__).resolve().parents[2]
# "" stands for the modules that lie in no folder: the plugin, and the small things that all share
PACKAGE = [
    "residuals",
    "",
    "checkpoints",
    "scoring",
    "serving",
    "analysis",
    "doctor",
    "reporting",
]
COMMAND = ["checks", "", "main"]  # modules; "" stands for those of one command
SCRIPTS = ["corpora", "recipes", "bench", "records", "studies", ""]
LONGEST = 250  # lines


def modules():
    """Path by dotted name of every module of the package and of the scripts' folders."""
    found = {}
    packages = [(ROOT / name, ROOT) for name in ("fairseq_admin", "fairseq_admin_cli")]
    for root, base in (*packages, (ROOT / "scripts", ROOT / "scripts")):
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
    orders = {"fairseq_admin": (PACKAGE, rest), "fairseq_admin_cli": (COMMAND, rest)}
    order, inner = orders.get(package, (SCRIPTS, name))
    first = inner.partition(".")[0]
    return order.index(first if first in order else ""), order


def test_there_is_something_to_look_at():
    some = {"fairseq_admin.residuals.admin", "fairseq_admin_cli.main", "recipes.run"}
    assert some <= MODULES.keys()
    assert "fairseq_admin.residuals.residual" in imports("fairseq_admin.layers")
    assert "fairseq_admin.scoring.score" in imports("fairseq_admin_cli.score")


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    rank, order = room(name)
    for other in imports(name) - {"fairseq_admin"}:
        its_rank, its_order = room(other)
        if order is PACKAGE:
            assert its_order is PACKAGE, f"{name} imports {other}: the package needs no other"
            assert its_rank <= rank, f"{name} imports {other}, which lies above it"
        elif order is COMMAND:
            assert its_order is not SCRIPTS, f"{name} imports {other}: commands need no scripts"
            assert its_order is PACKAGE or its_rank < rank, f"{name} imports {other}, not below it"
        elif its_order is SCRIPTS:
            assert its_rank <= rank, f"{name} imports {other}, which lies above it"


def test_no_imports_in_a_circle():
    TopologicalSorter({name: imports(name) for name in MODULES}).prepare()


def reached(names):
    """The modules *names*, and all of the project that they import, themselves or by others."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        found.add(name)
        todo += imports(name) - found - {"fairseq_admin"}
    return {MODULES[name] for name in found}


def test_a_training_is_decided_by_what_the_plugin_is_made_of():
    methods = {name for name in MODULES if name.startswith("fairseq_admin.residuals.")}
    assert reached(imports("fairseq_admin") | methods) == set(TRAINED_BY)


def test_an_evaluation_is_decided_by_that_and_by_what_comes_after_training():
    own = {n for n in MODULES if n.startswith("fairseq_admin.") and room(n)[0] in (2, 3, 4)}
    own |= {"records.evaluation", "records.record"}
    packages = {path for path in reached(own) if ROOT / "scripts" not in path.parents}
    records = {MODULES[n] for n in ("records.evaluation", "records.record", "recipes.ends")}
    assert packages | records | set(TRAINED_BY) == set(EVALUATED_BY)


CODE = ["layers", "omega_file", "residuals.keel", "checkpoints.average", "scoring.moses"]


@pytest.mark.parametrize("module", CODE)
def test_what_a_module_does_makes_another_run_or_evaluation(module, tmp_path, monkeypatch):
    """Comments do not. *module* is of both, or of evaluations alone."""
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "checkpoint1.pt").write_text("")
    options = argparse.Namespace(data=tmp_path, reference=None, sentencepiece=None, to="fold")
    evaluated = SimpleNamespace(run=tmp_path, options=options)
    original = MODULES[f"fairseq_admin.{module}"]

    def inputs(text):
        path = tmp_path / "module.py"
        path.write_text(text)
        for where, name in ((training, "TRAINED_BY"), (evaluation, "EVALUATED_BY")):
            paths = [path if p == original else p for p in getattr(code, name)]
            monkeypatch.setattr(where, name, paths)
        run = training.Training("demo_admin", tmp_path, tmp_path).inputs()
        return run, evaluation.Evaluation.inputs(evaluated)

    text = original.read_text()
    before, same = inputs(text), inputs(text + "# a comment\n")
    after = inputs(text + "CHANGED = 1\n")
    assert before == same
    assert [a != b for a, b in zip(before, after)] == [original in TRAINED_BY, True]


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in MODULES.values()}
    assert folders <= {*PACKAGE, *SCRIPTS, "fairseq_admin", "fairseq_admin_cli", "scripts"}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST
