#!/usr/bin/env python3
"""Train two conditions (one a method) side by side on one corpus, evaluate both, draw.

Usage:   python scripts recipes.compare DATA OUT CONFIG CONFIG [--show N] [options of evaluate.sh]
         python scripts recipes.compare runs/demo/data runs/demo demo_post_ln demo_admin
Inputs:  DATA/bin (fairseq-preprocess), DATA/raw/test.{source,target}, DATA/spm/spm.model,
         configs/CONFIG.yaml
Outputs: OUT/CONFIG/{train.log,checkpoint*.pt}, OUT/CONFIG/eval/{record.json,serve} and what else
         scripts/evaluate.sh leaves, OUT/curves.png, OUT/omegas.png

Trainings run at the same time, each with its share of the cores. What is finished is not done
again, and an interrupted training goes on from its last checkpoint. A folder whose config, data or
model code is another now is not touched: the script says so and stops.
"""

import argparse
import json
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Dict, List

from fairseq_admin.omega_file import Profile
from fairseq_admin.scoring.outputs import read_lines
from fairseq_admin.scoring.score import hypotheses
from recipes.training import BIN, ROOT, Training

TRAINED_BY = (
    "residual",
    "layers",
    "model",
    "architectures",
    "profiling",
    "omega_file",
    "batch",
    "task",
    "optim",
)
PROGRESS_S = 15  # seconds between two lines of progress


def environment(processes: int) -> Dict[str, str]:
    """Each process gets its share of the cores: more threads than cores are far slower."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PATH": path}


def run_together(commands: Dict[str, List[str]], logs: Dict[str, Path], watch) -> None:
    """Run *commands* at the same time, their output appended to *logs*; call *watch* meanwhile.

    Raises:
        SystemExit: when one fails; the others are ended.
    """
    if not commands:
        return
    env = environment(len(commands))
    running = {}
    try:
        for name, command in commands.items():
            with open(logs[name], "a") as log:
                running[name] = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=logs[name].parent
                )
        last = time.monotonic()
        while any(p.poll() is None for p in running.values()):
            for name, process in running.items():
                if process.poll():
                    tail = logs[name].read_text().splitlines()[-5:]
                    raise SystemExit("\n".join([f"{name} failed, see {logs[name]}:", *tail]))
            time.sleep(0.5)
            if time.monotonic() - last > PROGRESS_S:
                watch()
                last = time.monotonic()
        for name, process in running.items():
            if process.returncode:
                raise SystemExit(f"{name} failed with {process.returncode}, see {logs[name]}")
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()


def train(conditions: List[Training]) -> None:
    """Train what is not trained yet, telling how far it is."""
    start = time.monotonic()
    todo = {c.name: c for c in conditions if not c.trained()}

    def watch() -> None:
        seconds = time.monotonic() - start
        print(f"{seconds:6.0f} s  " + "   ".join(c.progress() for c in todo.values()), flush=True)

    train = str(BIN / "fairseq-hydra-train")
    commands = {name: [train, *c.arguments()] for name, c in todo.items()}
    run_together(commands, {name: c.log for name, c in todo.items()}, watch)


def evaluate(conditions: List[Training], data: Path, options: List[str]) -> None:
    """Average, decode, score, fold and export each condition, by scripts/evaluate.sh."""
    target = conditions[0].config.task.target_lang
    command = ["bash", str(ROOT / "scripts" / "evaluate.sh")]
    model = data / "spm" / "spm.model"
    options = ["--data", str(data / "bin"), "--sentencepiece", str(model), *options]
    options += ["--reference", str(data / "raw" / f"test.{target}")]
    logs = {c.name: c.folder / "evaluate.log" for c in conditions}
    start = time.monotonic()
    run_together(
        {c.name: [*command, str(c.folder), *options] for c in conditions},
        logs,
        lambda: print(f"{time.monotonic() - start:6.0f} s  evaluating", flush=True),
    )


def draw(conditions: List[Training], records: Dict[str, Dict[str, object]], out: Path) -> None:
    """Perplexity of the conditions, and the omegas of those that have some."""
    from fairseq_admin.analysis import curves, plotting  # matplotlib logs at its import

    runs = [f"{c.method}={c.folder}" for c in conditions]
    plotting.plot_curves(curves.measure(argparse.Namespace(runs=runs)), str(out / "curves.png"))
    for record in records.values():
        if record["profile"]:
            profile = Profile.from_dict(record["profile"])
            plotting.plot_omegas(profile, str(out / "omegas.png"))


def show(conditions: List[Training], data: Path, n: int) -> None:
    """Print *n* of the test translations, evenly spread, beside their references."""
    task = conditions[0].config.task
    lines = {
        name: read_lines(str(data / "raw" / f"test.{lang}"))
        for name, lang in (("source", task.source_lang), ("reference", task.target_lang))
    }
    for c in conditions:
        lines[c.method] = hypotheses(str(c.folder / "eval" / "generate.txt"))
    total = len(lines["source"])
    for i in range(0, total, max(1, total // n))[:n]:
        print()
        for name, texts in lines.items():
            print(f"{name:>10}  {texts[i]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("configs", nargs=2, metavar="CONFIG")
    parser.add_argument("--show", type=int, default=10, help="translations to print")
    args, evaluation = parser.parse_known_args()
    logging.getLogger().setLevel(logging.WARNING)  # fairseq tells INFO, matplotlib DEBUG
    data, out = args.data.resolve(), args.out.resolve()
    conditions = [Training(n, data, out / n, code=TRAINED_BY) for n in args.configs]
    methods = [c.method for c in conditions]
    if len(set(methods)) < len(methods):
        parser.error(f"give one config a method; these are {', '.join(methods)}")
    for condition in conditions:
        condition.claim()
    train(conditions)
    evaluate(conditions, data, evaluation)
    records = {
        c.method: json.loads((c.folder / "eval" / "record.json").read_text()) for c in conditions
    }
    draw(conditions, records, out)
    show(conditions, data, args.show)
    print()
    for method, record in records.items():
        ppl = record["train_ppl"][-1][1]
        print(
            f"{method:>10}  test BLEU {record['scores']['bleu']['score']:6.2f}   "
            f"train perplexity {ppl:.2f}"
        )
    print(f"{'':>10}  {record['scores']['bleu']['signature']}")
    for method, record in records.items():
        if record["fold"]:
            print(f"{method:>10}  {record['fold']['difference']}")
            same, n = record["fold"]["same_translations"], record["sentences"]
            print(f"{'':>10}  folded into a plain transformer: {same} of {n} translations the same")
    for c in conditions:
        print(f"\nwrote {c.folder}/eval/record.json and {c.folder}/eval/serve")
    print(f"wrote {out}/curves.png, omegas.png")


if __name__ == "__main__":
    main()
