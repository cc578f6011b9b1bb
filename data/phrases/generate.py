#!/usr/bin/env python3
"""Generates the demo corpus: German-English phrases made by rule.

Usage: python generate.py OUT_DIR [--seed N] [--no-check]

Writes {train,valid,test}.{de,en} into OUT_DIR. With the default seed the files must have the
checksums of SHA256SUMS, and a folder that already holds them is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from frames import FRAMES
from lexicon import Pair

HERE = Path(__file__).resolve().parent
DEFAULT_SEED = 1
SPLIT_SIZES = {"test": 1000, "valid": 500, "train": 24000}  # pairs
LANGUAGES = ("de", "en")
FILE_NAMES = tuple(f"{split}.{lang}" for split in SPLIT_SIZES for lang in LANGUAGES)


class CorpusError(Exception):
    """The corpus could not be made as it should be; the message is for the user."""


def draw_pairs(seed: int, count: int) -> list[Pair]:
    """Draws `count` pairs with different German sides, all frames equally often, shuffled."""
    rng = random.Random(seed)
    english: dict[str, str] = {}
    while len(english) < count:
        pair = FRAMES[len(english) % len(FRAMES)](rng)
        if english.setdefault(pair.de, pair.en) != pair.en:
            raise CorpusError(f"two English sides for one German sentence: {pair.de}")
    pairs = [Pair(de, en) for de, en in english.items()]
    rng.shuffle(pairs)
    return pairs


def write_splits(pairs: list[Pair], folder: Path) -> None:
    """Cuts the pairs into the splits and writes one file a split and language, UTF-8, LF."""
    start = 0
    for split, size in SPLIT_SIZES.items():
        for lang in LANGUAGES:
            lines = [getattr(pair, lang) + "\n" for pair in pairs[start : start + size]]
            (folder / f"{split}.{lang}").write_bytes("".join(lines).encode("utf-8"))
        start += size


def read_sums() -> dict[str, str]:
    """The committed checksums, file name to sha256."""
    lines = (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def first_mismatch(folder: Path) -> str | None:
    """The first file of the folder that is missing or has another sum than the committed one."""
    sums = read_sums()
    for name in FILE_NAMES:
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sums.get(name):
            return name
    return None


def version_report() -> str:
    """Pinned and found versions of the libraries that determine the text."""
    pins = (HERE / "requirements.txt").read_text(encoding="utf-8")
    found = [
        f"{name} pinned {pin}, found {metadata.version(name)}"
        for name, pin in re.findall(r"^(\w+)==(\S+)$", pins, flags=re.MULTILINE)
    ]
    return "; ".join(found)


def generate(out_dir: Path, seed: int = DEFAULT_SEED, checked: bool = True) -> str:
    """Makes the corpus in `out_dir` and returns one line that says what was done.

    The sums are compared only when `checked`, and only for the default seed.

    Raises:
        CorpusError: a sum differs from the committed one, or `out_dir` holds foreign files.
    """
    checked = checked and seed == DEFAULT_SEED
    if checked and first_mismatch(out_dir) is None:
        return f"{out_dir}: already complete"
    if out_dir.exists():
        foreign = sorted({path.name for path in out_dir.iterdir()} - set(FILE_NAMES))
        if foreign:
            raise CorpusError(f"{out_dir} holds {foreign[0]}, not ours: name another folder")
    staging = out_dir.with_name(out_dir.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write_splits(draw_pairs(seed, sum(SPLIT_SIZES.values())), staging)
        wrong = first_mismatch(staging) if checked else None
        if wrong:
            raise CorpusError(
                f"{wrong} differs from SHA256SUMS; likely other libraries than pinned "
                f"({version_report()}; see requirements.txt) or edited rules"
            )
        shutil.rmtree(out_dir, ignore_errors=True)
        staging.rename(out_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return f"{out_dir}: " + ", ".join(f"{size} {split}" for split, size in SPLIT_SIZES.items())


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="folder to write; made if missing")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="default: %(default)s")
    parser.add_argument("--no-check", action="store_true", help="take whatever text comes out")
    args = parser.parse_args()
    try:
        print(generate(args.out_dir.resolve(), args.seed, not args.no_check))
    except CorpusError as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
