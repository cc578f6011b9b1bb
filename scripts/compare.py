#!/usr/bin/env python3
"""Train two conditions (one a method) side by side on one corpus, decode the test set, score, draw.

Usage:   python scripts/compare.py DATA OUT CONFIG CONFIG [--show N]
         python scripts/compare.py runs/demo/data runs/demo demo_post_ln demo_admin
Inputs:  DATA/bin (fairseq-preprocess), DATA/raw/test.{source,target}, configs/CONFIG.yaml
Outputs: OUT/CONFIG/{train.log,checkpoint_*.pt,test.txt}; OUT/record.json, OUT/curves.png,
         OUT/omegas.png

Trainings run at the same time, each with its share of the cores. What is finished is not done
again, and an interrupted training goes on from its last checkpoint. A folder whose config, data or
model code is another now is not touched: the script says so and stops.
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from omegaconf import OmegaConf
from sacrebleu.metrics import BLEU

import fairseq_admin
from fairseq_admin.profiling import Profile

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fairseq_admin"
BIN = Path(sys.executable).parent  # of the console commands of this environment
DECODING = (
    "--beam 5 --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece --batch-size 100"
    " --required-batch-size-multiple 1"  # else fairseq leaves out an odd last batch
)
NUMBER = r"([\d.]+(?:e[+-]?\d+)?|inf|nan)"
TRAIN_LINE = re.compile(rf"\[train_inner\].* ppl={NUMBER},.* num_updates=(\d+),")
VALID_LINE = re.compile(rf"\[valid\].*\| ppl {NUMBER} \|.*\| num_updates (\d+)")
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
DATA_SUFFIXES = (".bin", ".idx", ".txt")  # of what fairseq-preprocess writes, without its log
PROGRESS_S = 15  # seconds between two lines of progress


class Condition:
    """One config, its folder and its log."""

    def __init__(self, name: str, data: Path, out: Path) -> None:
        self.name, self.data, self.folder = name, data, out / name
        self.config = OmegaConf.load(ROOT / "configs" / f"{name}.yaml")
        self.method = "admin" if self.config.task._name == "translation_admin" else "post-ln"
        self.log = self.folder / "train.log"
        self.hypotheses = self.folder / "test.txt"

    def inputs(self) -> str:
        """Hash of all that decides the result: config, model code, data and decoding."""
        digest = hashlib.sha256(DECODING.encode())
        files = [ROOT / "configs" / f"{self.name}.yaml"]
        files += [PACKAGE / f"{module}.py" for module in TRAINED_BY]
        files += sorted(p for p in (self.data / "bin").iterdir() if p.suffix in DATA_SUFFIXES)
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def claim(self) -> None:
        """Make the folder, or make sure that it is of the same inputs."""
        stamp = self.folder / "inputs.sha256"
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            stamp.write_text(self.inputs())
        elif not stamp.exists() or stamp.read_text() != self.inputs():
            raise SystemExit(
                f"{self.folder} was made from another config, code or data: give another OUT, or "
                "remove it"
            )

    def command(self) -> List[str]:
        """The training, from any folder."""
        return [
            str(BIN / "fairseq-hydra-train"),
            *("--config-dir", str(ROOT / "configs"), "--config-name", self.name),
            f"task.data={self.data / 'bin'}",
            f"checkpoint.save_dir={self.folder}",
            f"common.user_dir={PACKAGE}",
            f"hydra.run.dir={self.folder}",
        ]

    def trained(self) -> bool:
        """Whether the log says that training came to its end."""
        return self.log.exists() and "done training in" in self.log.read_text()

    def curve(self, line: "re.Pattern[str]") -> List[Tuple[int, float]]:
        """(update, perplexity) points of the log; a resumed run's later line counts."""
        text = self.log.read_text() if self.log.exists() else ""
        points = {int(update): float(ppl) for ppl, update in line.findall(text)}
        return sorted(points.items())

    def progress(self) -> str:
        """Where the training stands."""
        points = self.curve(TRAIN_LINE)
        update, ppl = points[-1] if points else (0, float("nan"))
        return f"{self.method} update {update}/{self.config.optimization.max_update} ppl {ppl:.2f}"


def environment(processes: int) -> Dict[str, str]:
    """Each process gets its share of the cores: more threads than cores are far slower."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


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


def train(conditions: List[Condition]) -> None:
    """Train what is not trained yet, telling how far it is."""
    start = time.monotonic()
    todo = {c.name: c for c in conditions if not c.trained()}

    def watch() -> None:
        seconds = time.monotonic() - start
        print(f"{seconds:6.0f} s  " + "   ".join(c.progress() for c in todo.values()), flush=True)

    commands = {name: c.command() for name, c in todo.items()}
    run_together(commands, {name: c.log for name, c in todo.items()}, watch)


def decode(conditions: List[Condition]) -> None:
    """Translate the test set with each condition's best checkpoint, by fairseq-generate."""
    commands, logs = {}, {}
    for c in conditions:
        if c.hypotheses.exists():
            continue
        logs[c.name] = c.folder / "generate.log"
        logs[c.name].unlink(missing_ok=True)
        commands[c.name] = [
            *(str(BIN / "fairseq-generate"), str(c.data / "bin"), "--user-dir", str(PACKAGE)),
            *("--path", str(c.folder / "checkpoint_best.pt"), *DECODING.split()),
        ]
    start = time.monotonic()
    run_together(commands, logs, lambda: print(f"{time.monotonic() - start:6.0f} s  decoding"))
    for log in logs.values():
        found = re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", log.read_text(), flags=re.MULTILINE)
        lines = [text for _, text in sorted(found, key=lambda pair: int(pair[0]))]
        partial = log.with_name("test.txt.tmp")
        partial.write_text("".join(f"{line}\n" for line in lines))
        partial.rename(log.with_name("test.txt"))


def score(condition: Condition, references: List[str]) -> Dict[str, object]:
    """Detokenized BLEU of a condition's translations, with sacreBLEU's signature."""
    hypotheses = condition.hypotheses.read_text().splitlines()
    if len(hypotheses) != len(references):
        raise SystemExit(
            f"{condition.hypotheses} has {len(hypotheses)} lines for {len(references)} references"
        )
    bleu = BLEU()
    result = bleu.corpus_score(hypotheses, [references])
    return {"bleu": round(result.score, 2), "signature": str(bleu.get_signature())}


def describe(condition: Condition) -> Dict[str, object]:
    """A condition's part of the record."""
    state = torch.load(condition.folder / "checkpoint_best.pt", map_location="cpu")
    log = condition.log.read_text()
    seconds = re.findall(r"done training in ([\d.]+) seconds", log)
    interrupted = log.count("training on 1 devices") > len(seconds)
    return {
        "config": condition.name,
        "options": OmegaConf.to_container(condition.config),
        "seed": condition.config.common.seed,
        "updates": state["optimizer_history"][-1]["num_updates"],
        "train_seconds": None if interrupted else sum(map(float, seconds)),
        "train_ppl": condition.curve(TRAIN_LINE),
        "valid_ppl": condition.curve(VALID_LINE),
        "profile": state["task_state"].get("profile"),
    }


def provenance() -> Dict[str, object]:
    """What was run, where."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain")),
        "versions": {**fairseq_admin.task.versions(), "platform": platform.platform()},
        "hardware": f"{len(os.sched_getaffinity(0))} cores of {cpu[0] if cpu else 'a CPU'}",
        "decoding": DECODING,
    }


def draw(runs: Dict[str, Dict[str, object]], out: Path) -> None:
    """The two figures of a record."""
    from fairseq_admin.plotting import plot_curves, plot_omegas  # matplotlib logs at its import

    plot_curves({m: run["train_ppl"] for m, run in runs.items()}, "train", str(out / "curves.png"))
    for run in runs.values():
        if run["profile"]:
            plot_omegas(Profile.from_dict(run["profile"]), str(out / "omegas.png"))


def show(conditions: List[Condition], sources: List[str], references: List[str], n: int) -> None:
    """Print *n* of the test translations, evenly spread, beside their references."""
    translated = {c.method: c.hypotheses.read_text().splitlines() for c in conditions}
    for i in range(0, len(references), max(1, len(references) // n))[:n]:
        print(f"\n{'source':>10}  {sources[i]}\n{'reference':>10}  {references[i]}")
        for method, lines in translated.items():
            print(f"{method:>10}  {lines[i]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--show", type=int, default=10, help="translations to print")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)  # fairseq tells INFO, matplotlib DEBUG
    data, out = args.data.resolve(), args.out.resolve()
    conditions = [Condition(name, data, out) for name in args.configs]
    methods = [c.method for c in conditions]
    if len(set(methods)) < len(methods):
        parser.error(f"give one config a method; these are {', '.join(methods)}")
    task = conditions[0].config.task
    sources, references = (
        (data / "raw" / f"test.{lang}").read_text(encoding="utf-8").splitlines()
        for lang in (task.source_lang, task.target_lang)
    )
    for condition in conditions:
        condition.claim()
    train(conditions)
    decode(conditions)

    runs = {c.method: {**describe(c), **score(c, references)} for c in conditions}
    record = {**provenance(), "runs": runs}
    partial = out / "record.json.tmp"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.rename(out / "record.json")
    draw(runs, out)

    show(conditions, sources, references, args.show)
    print()
    for method, run in runs.items():
        ppl = run["train_ppl"][-1][1]
        print(f"{method:>10}  test BLEU {run['bleu']:6.2f}   train perplexity {ppl:.2f}")
    print(f"{'':>10}  {next(iter(runs.values()))['signature']}")
    print(f"\nwrote {out}/record.json, curves.png, omegas.png")


if __name__ == "__main__":
    main()
