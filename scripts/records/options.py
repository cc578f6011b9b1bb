"""The options of scripts/evaluate.sh."""

import argparse
import os
from pathlib import Path
from typing import List, Sequence

from fairseq_admin.errors import UserError

DECODING = "--beam 5 --max-len-a 1.2 --max-len-b 10 --batch-size 100"


def existing(path: str) -> Path:
    """*path* from anywhere; UserError where nothing is there."""
    if not os.path.exists(path):
        raise UserError(f"no such file or folder: {path}")
    return Path(path).resolve()


OPTIONS = {  # kind of the value, default, what it is
    "--data": (existing, None, "binarized text (default: that of the training)"),
    "--subset": (str, "test", "split to translate (default: %(default)s)"),
    "--num-epoch-checkpoints": (int, None, "translate a mean, as fairseq-admin average"),
    "--num-update-checkpoints": (int, None, "makes it (default: checkpoint_best.pt)"),
    "--checkpoint-upper-bound": (int, None, "of that mean"),
    "--reference": (existing, None, "raw text of the target side (default: the binarized)"),
    "--source-lang": (str, None, "where the data's side is not called by its language, which"),
    "--target-lang": (str, None, "scores and what is exported need"),
    "--tokenize": (str, None, "for BLEU, as fairseq-admin score (default: by the language)"),
    "--decoding": (str, DECODING, "flags of fairseq-generate (default: %(default)s)"),
    "--sentencepiece": (existing, None, "also export, with this model"),
    "--quantization": (str, None, "of what is exported, int8 say (default: float32)"),
    "--output": (Path, None, "folder (default: RUN_DIR/eval)"),
}


def parsed(
    arguments: List[str], description: str, steps: Sequence[str], kinds: Sequence[str]
) -> argparse.Namespace:
    """The options, of *steps* the last one to take, of *kinds* the number that is exported.
    UserError for what is not there."""
    parser = argparse.ArgumentParser(
        prog="evaluate.sh",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", nargs="?", type=existing, metavar="RUN_DIR")
    for option, (kind, default, told) in OPTIONS.items():
        parser.add_argument(option, type=kind, default=default, help=told)
    parser.add_argument(
        "--moses", action="store_true", help="the data is Moses-tokenized; prepare.sh's says so"
    )
    parser.add_argument("--to", choices=steps, default=steps[-1], help="the last step")
    if "--decoding" in arguments[:-1]:  # flags are its value, which argparse takes for options
        at = arguments.index("--decoding")
        arguments[at : at + 2] = [f"--decoding={arguments[at + 1]}"]
    options, rest = parser.parse_known_args(arguments)
    if rest:
        raise UserError(f"unknown option {rest[0]}, see --help")
    if options.run is None:
        raise UserError("which run? give the folder of its checkpoints, see --help")
    if options.data and not any(options.data.glob("dict.*.txt")):
        raise UserError(f"no binarized data in {options.data}")
    if options.quantization and not options.sentencepiece:
        raise UserError("--quantization is of what is exported: give --sentencepiece too")
    if options.quantization not in (None, *kinds):
        raise UserError(f"--quantization {options.quantization}: one of {', '.join(kinds)}")
    options.output = (options.output or options.run / "eval").resolve()
    return options
