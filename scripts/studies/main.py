"""Run the trainings of a study, and make its page of their records.

Usage:   scripts/study.sh NAME [NAME ...] [options]
         scripts/study.sh depth --jobs 2 --nice 19
         scripts/study.sh depth --table
Inputs:  studies/NAME.yaml, configs/, data/CORPUS/corpus.yaml
Outputs: results/studies/NAME/: a record a training as each is finished; with --table README.md, the
         page, and figure.png. runs/data/CORPUS, and a folder a training in runs/studies/NAME

A training without a record is run; one that was recorded for another study is not run again. It may
be killed at any moment, and the same command goes on. A training that fails is a result: it ends as
`stuck` (after a third of its updates its loss is within 3 % of the entropy of the target's
unigrams; it is stopped then) or `diverged` (nan, infinite, loss scale at its minimum).
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Dict, List

from fairseq_admin.errors import UserError
from fairseq_admin.text import read_json
from recipes.processes import Steps, run_queue
from recipes.training import ROOT
from studies.page import write_page
from studies.study import RESULTS, Study, known_studies, load_study
from studies.trial import Trial


def say(message: str) -> None:
    print(f"study: {message}", flush=True)


def prepare(study: Study, options: argparse.Namespace) -> Path:
    """The folder of the corpus, made where it is not there."""
    if options.data:
        return options.data.resolve()
    folder = ROOT / "runs" / ("smoke/data" if options.smoke else "data") / study.corpus
    if not (folder / "manifest.json").exists() and not (options.dry_run or options.table):
        command = ["bash", str(ROOT / "scripts/prepare.sh"), study.corpus, "--output", str(folder)]
        generated = (ROOT / "data" / study.corpus / "generate.py").exists()
        command += ["--sample"] * (options.smoke and not generated)
        command += ["--mirror", options.mirror] if options.mirror else []
        if subprocess.run(command).returncode:
            raise UserError(f"the corpus {study.corpus} could not be prepared, see above")
    return folder


def trials_of(study: Study, options: argparse.Namespace) -> List[Trial]:
    """All that the study consists of."""
    home = ROOT / "runs" / ("smoke/studies" if options.smoke else "studies")
    runs = (options.runs or home) / study.name
    results = (options.results or (home / "results" if options.smoke else RESULTS)) / study.name
    data = prepare(study, options)
    settings = study.settings(options.smoke)
    return [Trial(study, s, data, runs.resolve(), results.resolve()) for s in settings]


def recorded(trial: Trial) -> Dict[str, Any]:
    """The record of *trial*, taken over from another study where that has it; empty where none."""
    for path in sorted(trial.path.parent.parent.glob("*/*.json")):
        record = {} if trial.record() else read_json(path)
        if record.get("definition") == trial.setting.digest:
            trial.save(record)
    return trial.record() or {}


def hours(trials: List[Trial], results: Path) -> str:
    """What *trials* take at most, by the seconds an update and layer of those in *results*."""
    seconds = work = 0.0
    for record in map(read_json, results.glob("*/*.json")):
        if record["wall_seconds"]:
            seconds += record["wall_seconds"]
            work += record["updates"] * sum(map(int, record["layers"].split("-")))
    if not work:
        return "as nothing was run yet, nobody knows how long"
    todo = (t.training.config for t in trials)
    left = sum(
        c.optimization.max_update * (c.model.encoder_layers + c.model.decoder_layers) for c in todo
    )
    return f"at most {seconds / work * left / 3600:.1f} hours of one core"


def run(trials: List[Trial], options: argparse.Namespace) -> None:
    """Those of *trials* that have no record."""

    def jobs(trial: Trial) -> Steps:
        if not recorded(trial):
            say(f"{trial}: into {trial.training.folder}")
            yield from trial.jobs()
        record = recorded(trial)
        say(f"{trial}: {record['outcome']}, known at update {record['known']}")

    def tell(seconds: float) -> None:
        going = [t for t in todo if t.training.log.exists() and not t.record()]
        say(f"{seconds:.0f} s  " + "   ".join(t.training.progress() for t in going))

    todo = [trial for trial in trials if not trial.record()]
    errors = run_queue(map(jobs, todo), options.jobs, tell)
    for error in errors:
        say(str(error))
    if errors:
        raise UserError(f"{len(errors)} of {len(todo)} trainings could not be run, see above")


def parsed(arguments: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="study.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", metavar="NAME", help=", ".join(known_studies()))
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, a thread each")
    parser.add_argument("--nice", type=int, default=0, help="priority, 19 the lowest")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="trainings by name")
    parser.add_argument("--dry-run", action="store_true", help="what is missing, and its hours")
    parser.add_argument("--smoke", action="store_true", help="a few, tiny, in seconds")
    parser.add_argument("--table", action="store_true", help="write the page and the figure")
    parser.add_argument("--data", type=Path, help="folder of prepare.sh, instead of the corpus")
    parser.add_argument("--mirror", help="of the downloads, see prepare.sh")
    parser.add_argument("--runs", type=Path, help="folder of the trainings (runs/studies)")
    parser.add_argument("--results", type=Path, help="folder of the records (results/studies)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: give 1 or more")
    return options


def main() -> None:
    logging.getLogger().setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its processes end with it
    options = parsed(sys.argv[1:])
    os.nice(options.nice)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    studies = [load_study(name) for name in options.studies]
    found = [(study, trials_of(study, options)) for study in studies]
    if options.table:
        for study, trials in found:
            say(f"wrote {write_page(study, trials)}")
        return
    trials = [t for _, some in found for t in some if fnmatch(t.setting.name, options.only)]
    if not trials:
        raise UserError(f"--only {options.only}: no training is called so")
    if not options.dry_run:
        return run(trials, options)
    todo = [t for t in trials if not t.record()]
    results = trials[0].path.parent.parent
    for trial in todo:
        print(trial)
    print(f"{len(todo)} of {len(trials)} trainings to run, {hours(todo, results)}")


if __name__ == "__main__":
    main()
