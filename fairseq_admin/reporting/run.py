"""What is known of a run, and the commands that make what is not."""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fairseq_admin.omega_file import Profile

EVALUATE = "scripts/evaluate.sh"


@dataclass
class Run:
    """One training and its evaluation; what is not known is None or empty.

    ``config`` is flat, "section.option" to value; ``curves`` as `analysis.curves` gives them;
    ``scores`` score and signature by metric; ``translations`` source, reference and hypothesis by
    sentence; ``missing`` what is not there and the command that makes it; ``inputs`` files read.
    """

    folder: str
    label: str = ""
    facts: Dict[str, Any] = field(default_factory=dict)
    config: Dict[str, Any] = field(default_factory=dict)
    paths: Dict[str, str] = field(default_factory=dict)  # whole, of which config has the names
    scores: Dict[str, Tuple[float, str]] = field(default_factory=dict)
    profile: Optional[Profile] = None
    curves: Dict[str, Any] = field(default_factory=dict)
    translations: Dict[int, Tuple[str, str, str]] = field(default_factory=dict)
    figures: List[Path] = field(default_factory=list)
    missing: List[Tuple[str, str]] = field(default_factory=list)
    inputs: List[Path] = field(default_factory=list)


def command(*words: object) -> str:
    """The command of *words* as a shell takes it."""
    return " ".join(shlex.quote(str(word)) for word in words)


def checkpoints(run: Run) -> List[Path]:
    """The run's checkpoints, the newest last."""

    def age(path: Path) -> tuple:
        try:
            time = path.stat().st_mtime_ns
        except OSError:  # deleted since it was listed
            time = 0
        return path.name == "checkpoint_last.pt", time, len(path.name), path.name

    return sorted(filter(os.path.isfile, Path(run.folder).glob("checkpoint*.pt")), key=age)


def evaluation(run: Run) -> str:
    """The command that evaluates *run*, nothing where no checkpoint is left to evaluate."""
    return command("bash", EVALUATE, run.folder) if checkpoints(run) else ""


def by_hand(run: Run) -> List[str]:
    """What makes scores and translations of *run* without the repository's scripts, where they are
    missing."""
    if not any(EVALUATE in words for _, words in run.missing):
        return []
    generated = Path(run.folder, "eval", "generate.txt")
    flags = "--beam 5 --required-batch-size-multiple 1"
    decode = command("fairseq-generate", "DATA", "--user-dir", "fairseq_admin", "--path")
    folder, output = command("mkdir", "-p", generated.parent), command(generated)
    return [
        f"{folder} && {decode} {command(checkpoints(run)[-1])} {flags} > {output}",
        scoring(run, "LANG"),
    ]


def scoring(run: Run, lang: str) -> str:
    """The command that scores what *run* translated."""
    generated = Path(run.folder, "eval", "generate.txt")
    options = ("--target-lang", lang, "--output", generated.with_name("score.json"))
    return command("fairseq-admin", "score", generated, *options)
