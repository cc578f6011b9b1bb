"""One training of a study, on its way to its record."""

import math
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from corpora.steps import BIN, write_json
from fairseq_admin.errors import UserError
from fairseq_admin.files import writing
from fairseq_admin.outcome import Outcome
from fairseq_admin.restoring import is_whole, last_checkpoint, mend
from fairseq_admin.text import read_json
from recipes.code import ROOT
from recipes.launch import Hardware, Launch
from recipes.processes import Job, Steps
from recipes.training import Training
from records.record import data_sha256, trained_record
from studies.study import SEED, Setting, Study

POINTS = 20  # of the curve of train perplexity in a record
KEPT = ("method", "layers", "width", "seed", "outcome", "known", "unigram_bits", "updates")
KEPT += ("wall_seconds", "hardware", "precision", "commit", "dirty", "versions", "config_sha256")
KEPT += ("data_sha256", "averaged")  # of the record of a training
NEEDED = dict.fromkeys(("definition", "outcome", "method", "layers", "data_sha256"), str)
NEEDED.update(updates=int, wall_seconds=(int, float, type(None)), labels=dict)


def thinned(points: List[Tuple[int, float]], last: float) -> List[Tuple[int, float]]:
    """POINTS of those up to the update *last*, evenly spread, the last one among them."""
    points = [point for point in points if point[0] <= last]
    count = min(POINTS, len(points))
    return [points[(i + 1) * len(points) // count - 1] for i in range(count)]


def read_record(path: Path) -> Optional[Dict[str, Any]]:
    """The record in the file *path*; None where it holds no record of a study."""
    record = read_json(path)
    whole = isinstance(record, dict) and record.keys() >= NEEDED.keys()
    known = whole and all(isinstance(record[key], kind) for key, kind in NEEDED.items())
    return record if known else None


known_sha256 = lru_cache(maxsize=None)(data_sha256)  # it reads all of it


class Trial:
    """*setting* of *study*, trained on *data* in a folder of *runs*, recorded in *results*."""

    def __init__(
        self, study: Study, setting: Setting, data: Path, runs: Path, results: Path
    ) -> None:
        self.study, self.setting = study, setting
        self.training = Training(setting.config, data, runs / setting.name, setting.arguments())
        self.path = results / f"{setting.name}.json"

    def __str__(self) -> str:
        return f"{self.study.name}/{self.setting.name}"

    def record(self) -> Optional[Dict[str, Any]]:
        """What is recorded of it; None where nothing is, or of another definition or data."""
        record = read_record(self.path) if self.path.exists() else None
        ours = record and record["definition"] == self.setting.digest and self.of_its_data(record)
        return record if ours else None

    def of_its_data(self, record: Dict[str, Any]) -> bool:
        """Whether *record* is of the data that is there, if it is."""
        binarized = self.training.data / "bin"
        return not binarized.is_dir() or record["data_sha256"] == known_sha256(binarized)

    def outcome(self) -> Outcome:
        """What became of it, or would if it ended now."""
        return self.training.outcome(stopped=not self.study.full)

    def lost(self) -> bool:
        """Whether it is known to be stuck, nothing more is asked of it, and it has left something
        to tell what it was."""
        left = last_checkpoint(self.training.folder).exists()
        return left and not self.study.full and self.outcome().kind == "stuck"

    def over(self) -> bool:
        """Whether there is nothing more to train."""
        return self.training.over() or self.lost()

    def jobs(self) -> Steps:
        """What is still to be run: the training, and the evaluation of one that learned, or went on
        to its end; then the record is written. Raises UserError where one of these fails."""
        training = self.training
        if self.study.evaluate and not self.reference().is_file():
            raise UserError(
                f"nothing to score against later, no {self.reference()}: give the corpus a test "
                "set, or the study evaluate: ''"
            )
        training.claim()
        with writing(self.path):  # told before the hours of training
            self.path.parent.mkdir(parents=True, exist_ok=True)
        while (log := training.locked_log()) is None:
            yield None  # the process that a killed study.sh has left goes on
        with log:
            if not self.over():
                start = self.launch().command(), log, None, training.folder
                try:
                    yield Job(self.setting.name, *start, self.lost)
                except UserError:
                    if not training.crashed():
                        raise
        if not self.over():
            raise UserError(f"{training.folder}: the training stopped before its end, see its log")
        if self.scored():
            with open(training.folder / "evaluate.log", "a") as log:
                yield Job(self.setting.name, self.evaluation(), log)
        self.write()

    def scored(self) -> bool:
        """Whether it is evaluated: if it trained, or its study wants all that came to their end."""
        whole = self.training.trained() and (self.study.full or self.outcome().kind == "trained")
        return bool(self.study.evaluate) and whole

    def launch(self) -> Launch:
        """Of the training, on one device."""
        cpu = bool(self.training.config.common.get("cpu"))
        return Launch(self.training, Hardware(gpus=1, cpu=cpu))

    def reference(self) -> Path:
        """Raw text to score against."""
        return self.training.data / "raw" / f"test.{self.training.config.task.target_lang}"

    def evaluation(self) -> List[str]:
        """scripts/evaluate.sh, as the study has it."""
        data = self.training.data
        command = [str(BIN / "python"), "-W", "ignore", str(ROOT / "scripts"), "records.evaluation"]
        command += [str(self.training.folder), "--data", str(data / "bin")]
        command += ["--reference", str(self.reference())]
        words = shlex.split(self.study.evaluate)
        return command + [word.replace("{data}", str(data)) for word in words]

    def write(self) -> None:
        """The record of what was trained, and scored where it was."""
        folder, (kind, known) = self.training.folder, self.outcome()
        try:
            mend(folder)  # its process may have been ended while it wrote the last one
        except ValueError as error:
            raise UserError(f"{error}") from None
        names = ("eval/mean.pt", "crash.pt", "checkpoint_best.pt", "checkpoint_last.pt")
        found = [folder / n for n in names if (folder / n).exists() and is_whole(folder / n)]
        if not found:
            raise UserError(f"{folder} has no checkpoint to tell what was trained: remove it")
        whole = trained_record(folder, found[0], self.training.data / "bin")
        if kind == "trained" and not whole["train_ppl"]:
            raise UserError(f"{folder} has no log to tell how it was trained: remove it")
        lost = self.lost()  # and stopped, later than its last checkpoint
        last = known if lost else math.inf
        scored = read_json(folder / "eval" / "score.json") if self.scored() else {}
        self.save(
            {
                **{key: whole[key] for key in KEPT},
                **{"outcome": kind, "known": known, "updates": known if lost else whole["updates"]},
                "train_ppl": thinned(whole["train_ppl"], last),
                "valid_ppl": [point for point in whole["valid_ppl"] if point[0] <= last],
                **{key: scored.get(key) for key in ("sentences", "distinct", "scores")},
            }
        )

    def save(self, record: Dict[str, Any]) -> None:
        """Write *record* under the name that it has in this study."""
        told = {
            "study": self.study.name,
            "name": self.setting.name,
            "config": self.setting.config,
            "labels": {axis: x for axis, x in self.setting.labels.items() if axis != SEED},
            "overrides": self.setting.arguments(),
            "definition": self.setting.digest,
        }
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**record, **told})
