"""From the folder of a training to a number that can be published and a model that can be served:
average, decode, score; fold, and verify that the plain model translates the same without the
plugin; export.

Usage:   scripts/evaluate.sh RUN_DIR [options]
Inputs:  RUN_DIR/checkpoint*.pt; of RUN_DIR/train.log, another *.log or TensorBoard files how the
         training went
Outputs: in --output: record.json; generate.txt, score.json; of a transformer_admin that folds
         folded.pt, folded.txt; mean.pt where checkpoints were averaged; serve/ where exported

What is finished is not done again while checkpoints, text, options and code are the same. A second
start for the same folder waits for the first.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from shutil import rmtree
from typing import Any, Dict, List, Optional, Sequence, Tuple

from corpora.steps import BIN, BINARIZED, write_json
from fairseq_admin.analysis.logs import read_curves
from fairseq_admin.checkpoints.average import check_course, last_checkpoints
from fairseq_admin.checkpoints.checkpoint import read_checkpoint, residual_of, task_options
from fairseq_admin.checkpoints.fold import Unfoldable, fold_checkpoint
from fairseq_admin.data_files import check_dictionaries, described, read_dictionary
from fairseq_admin.errors import UserError
from fairseq_admin.files import locked, whole_file
from fairseq_admin.scoring.score import score_files
from fairseq_admin.serving.export import export_model, languages
from fairseq_admin.serving.served import prepared
from fairseq_admin.text import read_bytes, read_json
from fairseq_admin_cli import main as cli
from fairseq_admin_cli.export import QUANTIZATIONS
from recipes.code import EVALUATED_BY, PACKAGE, code_of
from recipes.ends import target_entropy
from recipes.processes import Job, run_job
from records.options import check_scoring, parsed
from records.record import evaluated_record, summary, trained_record

STEPS = ("average", "decode", "score", "fold")
EVERY_SENTENCE = "--required-batch-size-multiple 1"  # else fairseq leaves out an odd last batch
AVERAGING = ("num_epoch_checkpoints", "num_update_checkpoints", "checkpoint_upper_bound")
MADE = ("mean.pt", "folded.pt", "generate.txt", "folded.txt", "fold.txt", "score.json", "serve")
MADE += ("record.json",)


def say(message: str) -> None:
    print(f"evaluate: {message}", flush=True)


class Evaluation:
    """The evaluation of the run in `options.run` into `options.output`."""

    def __init__(self, options: argparse.Namespace, lock: int) -> None:
        self.options, self.run, self.out, self.lock = options, options.run, options.output, lock
        given = {f"--{name.replace('_', '-')}": getattr(options, name) for name in AVERAGING}
        self.averaging = [word for o, n in given.items() if n is not None for word in (o, str(n))]
        self.model = self.out / "mean.pt" if self.averaging else self.run / "checkpoint_best.pt"
        self.decoding = f"--gen-subset {options.subset} {options.decoding} {EVERY_SENTENCE}"

    def do(self) -> None:
        """All steps up to the last one wanted; of a run that crashed, the record alone."""
        curves = None
        try:
            curves = read_curves(str(self.run))
        except UserError as error:
            say(f"the record will not tell how the training went and ended: {error.message}")
        if curves and curves.crashed:
            self.tell_crash()
        else:
            self.forget_others()
        old = {} if self.lacks("record.json") else read_json(self.out / "record.json")
        untold = curves and self.options.to == STEPS[-1] and old.get("outcome") is None
        if not old or untold:  # of the time before there was a log
            self.average()
            if self.options.to != "average":
                self.translate()
        if not self.lacks("record.json"):
            print(summary(read_json(self.out / "record.json")))

    def lacks(self, name: str) -> bool:
        """Whether the output *name* is still to be made."""
        return not (self.out / name).exists()

    def write(self, name: str, text: str) -> None:
        with whole_file(str(self.out / name)) as f:
            f.write(f"{text}\n")

    def inputs(self) -> str:
        """All that the outputs are made of."""
        options = {name: str(value) for name, value in vars(self.options).items() if name != "to"}
        checkpoints = sorted(filter(Path.is_file, self.run.glob("checkpoint*.pt")))
        if not checkpoints:
            raise UserError(f"no checkpoint*.pt in {self.run}")
        data = self.options.data
        if not data and self.newest().is_file():
            data = self.data_of(read_checkpoint(str(self.newest())))
        binarized = sorted(p for p in data.glob("*") if p.suffix in BINARIZED) if data else []
        files = [*checkpoints, self.options.reference, self.options.sentencepiece, *binarized]
        try:
            states = {str(path): path.stat() for path in files if path}
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
        told = [[path, state.st_size, state.st_mtime_ns] for path, state in states.items()]
        return json.dumps([options, told, code_of(EVALUATED_BY)], indent=1)

    def forget_others(self) -> None:
        """Remove what was made of other inputs; UserError where somebody else made it."""
        path, inputs = self.out / "inputs", self.inputs()
        if not self.lacks("inputs") and read_bytes(path) == f"{inputs}\n".encode():
            if not self.lacks("record.json"):
                say(f"{self.out}/record.json was already there")
            return
        others = [name for name in MADE[:-1] if not self.lacks(name)]  # a crash's record has none
        if others and self.lacks("inputs"):
            raise UserError(
                f"{self.out / others[0]} was not made by evaluate.sh: move it, or give another "
                "--output"
            )
        model = self.newest()
        if self.options.to != "average" and model.is_file():
            self.needed(model)  # for mistakes, before anything is removed
        for name in MADE:
            made = self.out / name
            rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
        self.write("inputs", inputs)

    def newest(self) -> Path:
        """The checkpoint to translate by, or of those of a mean the newest; UserError where there
        are fewer, or it is of a course that was given up."""
        options = self.options
        count = options.num_update_checkpoints or options.num_epoch_checkpoints
        if not count:
            check_course(str(self.model))
            return self.model
        updates, bound = bool(options.num_update_checkpoints), options.checkpoint_upper_bound
        return Path(last_checkpoints(str(self.run), count, updates, bound)[0])

    def data_of(self, state: Dict[str, Any]) -> Path:
        """The binarized text, by default that of the training of the checkpoint *state*."""
        told = task_options(state).get("data") or "no data named"
        return self.options.data or Path(told).resolve()

    def average(self) -> None:
        if self.averaging and self.lacks("mean.pt"):
            cli.main(["average", str(self.run), *self.averaging, "--output", str(self.model)])
        if not self.model.is_file():
            raise UserError(
                f"{self.model} is missing: average with --num-epoch-checkpoints instead"
            )

    def translate(self) -> None:
        """Decode and, as far as wanted, what comes after."""
        data, sides, residual, given = self.needed(self.model)
        to = self.options.to
        # with the plugin, which lets torch load the checkpoints of fairseq's own models too
        self.decode("generate.txt", self.model, data, sides, ["--user-dir", str(PACKAGE)])
        if to != "decode":
            self.score(given)
        if to == "fold":
            self.fold(data, sides, residual)

    def needed(self, checkpoint: Path) -> Tuple[Path, Sequence[str], Optional[str], Dict[str, Any]]:
        """The data, its languages, the residual method and how it is scored; UserError, before
        hours of work, where one is not there."""
        state, options = read_checkpoint(str(checkpoint)), self.options
        data = self.data_of(state)
        if not data.is_dir():
            raise UserError(f"no such data folder: {data}: give --data")
        if not any(data.glob(f"{options.subset}.*")):
            raise UserError(f"no split {options.subset} in {data}: give another --subset")
        sides = languages(state, str(data))
        dictionaries = [read_dictionary(str(data), side) for side in sides]
        found = described(sides, dictionaries)["dictionaries"]
        check_dictionaries(state, found, "another run", str(checkpoint))
        target_entropy(data, *sides)  # of the record
        scored = options.to != "decode"
        given = check_scoring(options, data, sides, dictionaries[1]) if scored else {}
        return data, sides, residual_of(state), given

    def decode(
        self, name: str, checkpoint: Path, data: Path, sides: Sequence[str], plugin: List[str]
    ) -> None:
        """Have fairseq-generate translate the split into the file *name*."""
        if not self.lacks(name):
            return
        say(f"translating {self.options.subset} by {checkpoint}")
        command = [str(BIN / "fairseq-generate"), str(data), *plugin, "--path", str(checkpoint)]
        command += ["-s", sides[0], "-t", sides[1], *self.decoding.split()]
        partial, log = (self.out / f"{name}.{end}" for end in ("partial", "log"))
        text = {"mode": "w", "encoding": "utf-8"}
        with open(partial, **text) as output, open(log, **text) as errors:
            run_job(Job("fairseq-generate", command, errors, output, keep=[self.lock]))
        partial.replace(self.out / name)
        log.unlink()

    def score(self, given: Dict[str, Any]) -> None:
        if self.lacks("score.json"):
            reference = self.options.reference and str(self.options.reference)
            translations = str(self.out / "generate.txt")
            scores = score_files(translations, reference, **given)
            write_json(self.out / "score.json", scores)

    def fold(self, data: Path, sides: Sequence[str], residual: Optional[str]) -> None:
        """Fold, translate once more without the plugin; export; write the record. Where the model
        does not fold, only the record."""
        plain, options = self.out / "folded.pt" if residual else self.model, self.options
        try:
            if residual and self.lacks("fold.txt"):
                self.write("fold.txt", str(fold_checkpoint(str(self.model), str(plain))))
        except Unfoldable as error:
            say(f"no fold and no export: {error.message}")
            plain = None
        if residual and plain:
            self.decode("folded.txt", plain, data, sides, [])
        if options.sentencepiece and plain and self.lacks("serve"):
            models, serve = [str(options.sentencepiece)], str(self.out / "serve")
            moses = [] if options.moses and prepared(data) is None else None
            how = (options.quantization, moses, options.source_lang, options.target_lang)
            export_model(str(plain), str(data), serve, models, *how)
        given = (self.run, self.out, self.model, data, " ".join(self.averaging), self.decoding)
        self.record(evaluated_record(*given))

    def record(self, record: Dict[str, Any]) -> None:
        write_json(self.out / "record.json", record)
        say(f"wrote {self.out}/record.json")

    def tell_crash(self) -> None:
        """Write the record of a run with nothing to translate by."""
        left = [self.run / name for name in ("checkpoint_last.pt", "crash.pt")]
        found = next(filter(Path.exists, left), None)
        if not (found and self.options.data):
            raise UserError(
                f"{self.run} diverged: its record needs --data and {' or '.join(map(str, left))}"
            )
        self.record(trained_record(self.run, found, self.options.data))


def main() -> None:
    logging.getLogger().setLevel(logging.WARNING)
    options = parsed(sys.argv[1:], __doc__, STEPS, QUANTIZATIONS)
    with locked(options.output / "evaluation", "evaluation") as lock:
        Evaluation(options, lock.fileno()).do()


if __name__ == "__main__":
    main()
