"""The code that decides a result: where it has changed, what was made before is of another code."""

import ast
import hashlib
from pathlib import Path
from typing import Iterable, List

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fairseq_admin"
# rooms of the package, and scripts, that an evaluation is made of
ROOMS = ("checkpoints", "scoring", "serving")
RECORDS = [
    *sorted((ROOT / "scripts" / "records").glob("[er]*.py")),
    Path(__file__).with_name("ends.py"),
]


def with_imports(paths: Iterable[Path]) -> List[Path]:
    """The modules *paths*, and what they import of the package, themselves or by others."""
    todo, found = list(paths), set()
    while todo:
        path = todo.pop()
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairseq_admin"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = {ROOT / f"{name.replace('.', '/')}.py" for name in names}
                todo += {file for file in files if file.exists()} - found
    return sorted(found)


# what the plugin is made of decides what a training comes to; methods are imported by their name
TRAINED_BY = with_imports([PACKAGE / "__init__.py", *PACKAGE.glob("residuals/[a-z]*.py")])
TRAINED_BY.remove(PACKAGE / "__init__.py")  # it knows the version too
# and that with what comes after training what an evaluation does
EVALUATED_BY = with_imports(
    [*TRAINED_BY, *(p for room in ROOMS for p in (PACKAGE / room).glob("*.py")), *RECORDS]
)


def code_of(paths: Iterable[Path]) -> str:
    """Hash of what the modules *paths* do: comments and layout are no part of it."""
    parsed = (ast.dump(ast.parse(path.read_text(encoding="utf-8"))) for path in paths)
    return hashlib.sha256("\n".join(parsed).encode()).hexdigest()
