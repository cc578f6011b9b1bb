"""What commands share: mistakes that are told before `fairseq_admin` is imported, and options."""

import argparse
import importlib.util
import os
import re
import sys

# names that fairseq gives
TRAINED = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last|\.best_\w+_[\d.]+)(-shard\d+)?\.pt")


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


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how translations and references are read."""
    parser.add_argument(
        "--reference", metavar="FILE", help="raw text, one line a sentence (default: T- lines)"
    )
    parser.add_argument(
        "--moses",
        action="store_true",
        help="what is given (T- lines too) is Moses-tokenized text; else raw",
    )
    parser.add_argument(
        "--target-lang",
        metavar="LANG",
        required=True,
        help="language of the translations, as de or zh: it decides how they are cut into words",
    )
    parser.add_argument(
        "--tokenize",
        metavar="NAME",
        help="sacreBLEU's tokenizer (default: its own for zh, ja and ko, else 13a)",
    )
