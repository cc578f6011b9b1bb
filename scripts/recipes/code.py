"""The code that decides a result: where it has changed, what was made before is of another code."""

import ast
import hashlib
from pathlib import Path
from typing import Iterable

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fairseq_admin"
# the modules that the plugin is made of decide what a training comes to
TRAINED_BY = [
    PACKAGE / f"{name}.py"
    for name in ("residual", "layers", "model", "architectures", "profiling", "omega_file", "batch")
    + ("task", "optim")
]
# and those after training what an evaluation does
EVALUATED_BY = [
    *TRAINED_BY,
    *sorted(
        p for room in ("checkpoints", "scoring", "serving") for p in (PACKAGE / room).glob("*.py")
    ),
    *sorted((ROOT / "scripts" / "records").glob("[er]*.py")),
]


def code_of(paths: Iterable[Path]) -> str:
    """Hash of what the modules *paths* do: comments and layout are no part of it."""
    parsed = (ast.dump(ast.parse(path.read_text(encoding="utf-8"))) for path in paths)
    return hashlib.sha256("\n".join(parsed).encode()).hexdigest()
