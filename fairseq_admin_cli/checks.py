"""Mistakes that are told before anything of `fairseq_admin` is imported."""

import importlib.util
import os
import re
import sys

TRAINED = re.compile(r"checkpoint(\d+|_\d+_\d+|[._]best\S*|_last)(-shard\d+)?\.pt")  # by fairseq


def refuse(message: str) -> None:
    """End with one line, as a `fairseq_admin.errors.UserError` does."""
    sys.exit(f"fairseq_admin: {message}")


def check_there(kind: str, *paths: str) -> None:
    """Refuse a path where nothing is; *kind* says what should be there."""
    for path in paths:
        if not os.path.exists(path):
            refuse(f"no such {kind}: {path}")


def check_output(path: str, *inputs: object) -> None:
    """Refuse a file to write that has no folder, is one of *inputs*, or would take the place of a
    training's checkpoint."""
    folder = os.path.dirname(path.rstrip(os.sep))
    if not os.path.isdir(folder or "."):
        refuse(f"no such folder: {folder}")
    there = filter(os.path.exists, inputs)
    if os.path.exists(path) and any(os.path.samefile(path, other) for other in there):
        refuse(f"{path} is an input of this command: give another name")
    if os.path.exists(path) and TRAINED.fullmatch(os.path.basename(path)):
        refuse(f"{path} is a checkpoint of a training: give another name")


def check_installed(extra: str, *packages: str) -> None:
    """Refuse to go on without *packages*, which the *extra* of `fairseq_admin` brings."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            refuse(f"{package} is not installed: pip install 'fairseq_admin[{extra}]'")
