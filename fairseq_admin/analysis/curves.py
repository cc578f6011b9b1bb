"""Perplexity of trainings over updates, train and valid, and which of them diverged."""

import argparse
import os
from typing import Any, Dict

from fairseq_admin.analysis.labels import labelled
from fairseq_admin.analysis.logs import read_curves
from fairseq_admin.checkpoints.checkpoint import method, read_checkpoint
from fairseq_admin.errors import UserError

LOGS = ("train.log", "hydra_train.log")  # are called as their folder is
LAST = "checkpoint_last.pt"


def run_name(path: str) -> str:
    """What a run without a label is called: as its folder, or as its log without `.log`."""
    path = os.path.abspath(path)
    if os.path.basename(path) in LOGS:
        path = os.path.dirname(path)
    name = os.path.basename(path)
    return name[: -len(".log")] if name.endswith(".log") else name


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
