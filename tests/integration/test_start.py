"""The start of `fairseq-admin`, whose help and mistakes are told before what takes seconds is
imported, of the plugin, which one import registers, and of the scripts that take no option."""

import pytest

import fairseq_admin
from fairseq_admin.methods import METHODS
from fairseq_admin_cli.main import COMMANDS
from recipes.code import ROOT

LOOK = """
import sys
from fairseq_admin_cli.main import main

try:
    main(sys.argv[1:])
finally:
    print("imported:", *{"fairseq", "fairseq_admin", "numpy", "torch"} & sys.modules.keys())
"""
REGISTERED = """
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.tasks import TASK_REGISTRY

assert "transformer_admin" in ARCH_MODEL_REGISTRY
assert "radam" in OPTIMIZER_REGISTRY
assert "translation_admin" in TASK_REGISTRY
"""
TOLD = {
    "--help": "translate standard input with an exported folder",
    "--version": fairseq_admin.__version__,
    "fly": "fairseq-admin: error: argument COMMAND: invalid choice: 'fly'",
    "fold in.pt": "fairseq-admin fold: error: the following arguments are required: OUT",
    "fold in.pt out.pt --keep": "fairseq-admin: error: unrecognized arguments: --keep",
    "fold missing.pt out.pt": "fairseq_admin: no such checkpoint: missing.pt",
    "fold in.pt ./in.pt": "fairseq_admin: ./in.pt is an input of this command",
    "fold in.pt missing/out.pt": "fairseq_admin: no such folder: missing",
    "average missing.pt --output out.pt": "fairseq_admin: no such checkpoint: missing.pt",
    "average . --output out.pt": "fairseq_admin: . is a folder: say how many",
    "score missing --target-lang de": "fairseq_admin: no such file: missing",
    "score in.pt --reference missing --target-lang de": "fairseq_admin: no such file: missing",
    "export missing.pt --data . --output out": "fairseq_admin: no such checkpoint: missing.pt",
    "export in.pt --data missing --output out/": "fairseq_admin: no such folder: missing",
    "translate missing": "fairseq_admin: no such folder: missing",
    "profile data": "fairseq-admin profile: error: the following arguments are required: -a/--arch",
    "analyze norms missing.pt": "fairseq_admin: no such checkpoint: missing.pt",
    "analyze curves . --tokens 3": "fairseq_admin: unknown option: --tokens 3",
    "analyze norms --help": ", ".join(METHODS),
    "report missing": "fairseq_admin: no such folder: missing",
    **{f"{name} --help": f"usage: fairseq-admin {name} " for name in COMMANDS},
}


@pytest.mark.parametrize("words", TOLD)
def test_what_needs_no_import_imports_nothing(lab, tmp_path, words):
    (tmp_path / "in.pt").touch()
    run = lab.run([lab.real / "python", "-c", LOOK, *words.split()], cwd=tmp_path)
    assert TOLD[words] in " ".join(run.output.split())
    assert "imported:\n" in run.output and "Traceback" not in run.output


def test_one_import_registers_the_plugin(lab, tmp_path):
    """Before fairseq's; commands import it after."""
    code = f"import fairseq_admin, fairseq{REGISTERED}"
    lab.run([lab.real / "python", "-W", "ignore", "-c", code], cwd=tmp_path).ok()


@pytest.mark.parametrize("script", ["demo.sh", "figures.sh"])
@pytest.mark.parametrize("word, code", [("--help", 0), ("--seed", 2)])
def test_a_script_without_options_says_what_it_does(lab, script, word, code):
    """And does not do it."""
    run = lab.run(["bash", ROOT / "scripts" / script, word])
    assert run.code == code and run.output.startswith(
        "The demo:" if script == "demo.sh" else "Makes every figure"
    )
    assert f"Usage:   bash scripts/{script}" in run.output
