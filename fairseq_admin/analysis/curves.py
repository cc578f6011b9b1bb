"""Perplexity of trainings over updates, train and valid, and which of them diverged."""

import argparse
import os
from pathlib import Path
from typing import Any, Dict

from fairseq_admin.analysis.labels import labelled
from fairseq_admin.analysis.logs import read_curves
from fairseq_admin.checkpoints.checkpoint import method, read_checkpoint
from fairseq_admin.errors import UserError

LOGS = ("train.log", "hydra_train.log")  # are called as their folder is
LAST = "checkpoint_last.pt"


def run_name(path: str) -> str:
    """What a run without a label is called: as its folder, or as its log without `.log`."""
    whole = Path(os.path.abspath(path))
    name = whole.parent.name if whole.name in LOGS else whole.name
    return name.removesuffix(".log")


def run_method(path: str, label: str) -> str:
    """The method by the last checkpoint in the folder of a run or log; *label* where none can be
    read, as in a run that crashed before or while it wrote one."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    try:
        return method(read_checkpoint(os.path.join(folder, LAST)))
    except UserError:
        return label


def measure(options: argparse.Namespace) -> Dict[str, Any]:
    """The curves of `options.runs` in JSON's types, which `plotting.plot_curves` draws. Raises
    UserError for a run without curves, and for two of one label."""
    runs = [
        {"label": label, "method": run_method(path, label), **vars(read_curves(path))}
        for label, path in labelled(options.runs, run_name).items()
    ]
    return {"analysis": "curves", "runs": runs}
