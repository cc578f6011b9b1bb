"""The options of scripts/evaluate.sh."""

import argparse
import os
from pathlib import Path
from typing import Any, Dict, List, Sequence

from fairseq.data import Dictionary
from fairseq.data.data_utils import load_indexed_dataset

from fairseq_admin.data_files import files_of
from fairseq_admin.errors import UserError
from fairseq_admin.scoring.outputs import check_targets, read_reference, undo_pieces
from fairseq_admin.scoring.score import bleu_metric, check_script
from fairseq_admin.serving.export import language_of
from fairseq_admin.serving.served import prepared

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
    options.output = Path(os.path.abspath(options.output or options.run / "eval"))
    return options


def check_scoring(
    options: argparse.Namespace, data: Path, sides: Sequence[str], target: Dictionary
) -> Dict[str, Any]:
    """What `score_files` is to be given for the split of *data*, whose dictionary is *target*.

    Raises:
        UserError: for options that it does not take, and for a reference of another text.
    """
    steps = prepared(data)
    moses = options.moses if steps is None else "moses" in steps
    if options.moses and not moses:
        raise UserError(f"{data} is raw text by its manifest.json: leave --moses out")
    if options.sentencepiece and (steps or moses):
        language_of(sides[0], options.source_lang, "--source-lang")
    lang = language_of(sides[1], options.target_lang, "--target-lang")
    bleu_metric(lang, options.tokenize)
    if options.reference:
        path = str(options.reference)
        lines = read_reference(path)
        check_script(lines, lang, options.tokenize)
        for file in files_of(str(data), options.subset, *sides)[1:]:  # the target's
            text = undo_pieces([target.string(x) for x in load_indexed_dataset(file, target)])
            if len(text) != len(lines):
                raise UserError(f"{path} has {len(lines)} lines, {file} {len(text)} sentences")
            check_targets(text, lines, file, path)
    return {"moses": moses, "target_lang": lang, "tokenize": options.tokenize}
