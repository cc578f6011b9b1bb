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
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

from corpora.corpus import load_corpus
from fairseq_admin.errors import UserError
from fairseq_admin.text import read_json
from recipes.code import ROOT
from recipes.processes import Steps, run_queue
from records.columns import TRAINED
from studies.page import write_page
from studies.study import RESULTS, Study, known_studies, load_study
from studies.trial import Trial, read_record


def say(message: str) -> None:
    print(f"study: {message}", flush=True)


def data_of(study: Study, options: argparse.Namespace) -> Path:
    """The folder of the corpus."""
    if options.data:
        if not (options.data / "bin").is_dir():
            raise UserError(f"no data in {options.data}: give another --data")
        return options.data.resolve()
    return ROOT / "runs" / ("smoke/data" if options.smoke else "data") / study.corpus


def prepare(trials: List[Trial], options: argparse.Namespace) -> None:
    """Make the corpora that are not there, or were made of another corpus.yaml."""
    for corpus, folder in {t.study.corpus: t.training.data for t in trials}.items():
        if options.data or is_made(corpus, folder, options.smoke):
            continue
        command = ["bash", str(ROOT / "scripts/prepare.sh"), corpus, "--output", str(folder)]
        command += ["--sample"] * (options.smoke and not load_corpus(corpus).generator)
        command += ["--mirror", options.mirror] if options.mirror else []
        if subprocess.run(command).returncode:
            raise UserError(f"the corpus {corpus} could not be prepared, see above")


def is_made(corpus: str, folder: Path, sample: bool = False) -> bool:
    """Whether *folder* holds the *corpus* as it is said now, or a *sample* of it."""
    manifest = folder / "manifest.json"
    said = read_json(manifest) if manifest.exists() else None
    if not isinstance(said, dict) or not isinstance(said.get("corpus"), dict):
        return False
    now = json.loads(json.dumps(asdict(load_corpus(corpus))))
    return sample or all(now.get(name) == value for name, value in said["corpus"].items())


def trials_of(study: Study, options: argparse.Namespace) -> List[Trial]:
    """All that the study consists of."""
    home = ROOT / "runs" / ("smoke/studies" if options.smoke else "studies")
    runs = ((options.runs or home) / study.name).resolve()
    results = options.results or (home / "results" if options.smoke else RESULTS)
    places = data_of(study, options), runs, (results / study.name).resolve()
    return [Trial(study, setting, *places) for setting in study.settings(options.smoke)]


def known(results: Path) -> List[Dict[str, Any]]:
    """The records of all studies."""
    return list(filter(None, map(read_record, sorted(results.glob("*/*.json")))))


def recorded(trial: Trial, records: List[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """That of *records* which is of *trial*, whatever study it was recorded for."""
    ours = (record for record in records if record["definition"] == trial.setting.digest)
    return next(filter(trial.of_its_data, ours), None)


def take_over(trials: List[Trial]) -> None:
    """Record those of *trials* that other studies have recorded."""
    records = known(trials[0].path.parent.parent)
    for trial in trials:
        record = recorded(trial, records)
        if record and not trial.record():
            trial.save(record)


def hours(trials: List[Trial], records: Iterable[Dict[str, Any]]) -> str:
    """About what *trials* take, by the seconds an update and layer of those that are recorded."""
    seconds = work = 0.0
    for record in records:
        if record["outcome"] == TRAINED and record["wall_seconds"]:
            seconds += record["wall_seconds"]
            work += record["updates"] * sum(map(int, record["layers"].split("-")))
    if not work:
        return "as nothing was run yet, nobody knows how long"
    todo = (t.training.config for t in trials)
    left = sum(
        c.optimization.max_update * (c.model.encoder_layers + c.model.decoder_layers) for c in todo
    )
    return f"about {seconds / work * left / 3600:.1f} hours of one core"


def run(trials: List[Trial], options: argparse.Namespace) -> None:
    """Those of *trials* that have no record."""

    def jobs(trial: Trial) -> Steps:
        take_over([trial])  # it may have been made meanwhile
        if not trial.record():
            say(f"{trial}: into {trial.training.folder}")
            begun.append(trial)
            yield from trial.jobs()
        record = trial.record() or {}
        say(f"{trial}: {record.get('outcome')}, known at update {record.get('known')}")

    def tell(seconds: float) -> None:
        going = [trial for trial in begun if not trial.record()]
        say(f"{seconds:.0f} s  " + "   ".join(t.training.progress() for t in going))

    begun: List[Trial] = []
    prepare(trials, options)
    errors = run_queue(map(jobs, trials), options.jobs, tell)
    for error in errors:
        say(str(error))
    if errors:
        raise UserError(f"{len(errors)} of {len(trials)} trainings could not be run, see above")


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
    parser.add_argument(
        "--data", type=Path, help="of prepare.sh, instead of the corpus; give --results"
    )
    parser.add_argument("--mirror", help="of the downloads, see prepare.sh")
    parser.add_argument("--runs", type=Path, help="folder of the trainings (runs/studies)")
    parser.add_argument("--results", type=Path, help="folder of the records (results/studies)")
    options = parser.parse_args(arguments)
    if options.data and not (options.results or options.smoke):
        raise UserError("--data: give --results too, the records there are of another text")
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: give 1 or more")
    if not 0 <= options.nice <= 19:
        raise UserError(f"--nice {options.nice}: give 0 to 19")
    return options


def main() -> None:
    logging.getLogger().setLevel(logging.WARNING)
    options = parsed(sys.argv[1:])
    os.nice(options.nice)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    studies = [load_study(name) for name in options.studies]
    found = [(study, trials_of(study, options)) for study in studies]
    trials = [t for _, some in found for t in some if fnmatch(t.setting.name, options.only)]
    if not trials:
        raise UserError(f"--only {options.only}: no training is called so")
    if options.dry_run:
        records = known(trials[0].path.parent.parent)
        new = {t.setting.digest: t for t in reversed(trials) if not recorded(t, records)}
        todo = [trial for trial in trials if trial in new.values()]  # what two share is run once
        for trial in todo:
            print(trial)
        print(f"{len(todo)} of {len(trials)} trainings to run, {hours(todo, records)}")
        return
    if not options.table:  # before its records are looked at
        there = (t for t in trials if t.training.data.is_dir())
        prepare(list(there), options)
    take_over(trials)
    if options.table:
        for study, some in found:
            say(f"wrote {write_page(study, some)}")
        return
    todo = [trial for trial in trials if not trial.record()]
    if todo:
        run(todo, options)
    else:
        say("nothing to run, every training is recorded")


if __name__ == "__main__":
    main()
