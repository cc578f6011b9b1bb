#!/usr/bin/env python3
"""Trains a joint SentencePiece BPE on the training split and encodes every split.

Usage: python subwords.py RAW_DIR OUT_DIR

Reads {train,valid,test}.{de,en} of RAW_DIR; writes spm.model and the encoded files into
OUT_DIR, which must exist. Deterministic: one thread, no sampling.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import sentencepiece as spm

VOCAB_SIZE = 2000  # pieces, both languages together
SPLITS = ("train", "valid", "test")
LANGUAGES = ("de", "en")


def train(raw_dir: Path, model: Path) -> None:
    """Trains the joint model on train.de and train.en; no path gets into the file `model`."""
    texts = [(raw_dir / f"train.{lang}").read_text(encoding="utf-8") for lang in LANGUAGES]
    buffer = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter("".join(texts).splitlines()),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        character_coverage=1.0,
        user_defined_symbols=[".", ",", ":"],  # never part of a number's piece: so "17." holds "17"
        num_threads=1,
        minloglevel=1,  # warnings and errors only
    )
    model.write_bytes(buffer.getvalue())


def encode(model: Path, source: Path, target: Path) -> None:
    """Encodes a text file line by line into pieces set apart by spaces."""
    processor = spm.SentencePieceProcessor(model_file=str(model))
    lines = source.read_text(encoding="utf-8").splitlines()
    pieces = processor.encode(lines, out_type=str)
    text = "".join(" ".join(line) + "\n" for line in pieces)
    target.write_bytes(text.encode("utf-8"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    args = parser.parse_args()
    train(args.raw_dir, args.out_dir / "spm.model")
    for split in SPLITS:
        for lang in LANGUAGES:
            name = f"{split}.{lang}"
            encode(args.out_dir / "spm.model", args.raw_dir / name, args.out_dir / name)


if __name__ == "__main__":
    main()
