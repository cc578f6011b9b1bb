"""Train two conditions (one a method) side by side on one corpus, evaluate both, draw.

Usage:   python scripts recipes.compare DATA OUT CONFIG CONFIG [--show N] [options of evaluate.sh]
         python scripts recipes.compare runs/demo/data runs/demo demo_post_ln demo_admin
Inputs:  DATA/bin (fairseq-preprocess), DATA/raw/test.{source,target}, DATA/spm/spm.model,
         configs/CONFIG.yaml
Outputs: OUT/CONFIG/{train.log,checkpoint*.pt}, OUT/CONFIG/eval/{record.json,serve} and what else
         scripts/evaluate.sh leaves, OUT/curves.png, OUT/omegas.png where a method is profiled

Trainings run at the same time, each with its share of the cores. What is finished is not done
again, and an interrupted training goes on from its last checkpoint. A folder whose config, data or
model code is another now is not touched: the script says so and stops.
"""

import argparse
import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, List

from corpora.steps import BIN
from fairseq_admin.methods import title
from fairseq_admin.omega_file import Profile
from fairseq_admin.scoring.outputs import read_lines
from fairseq_admin.scoring.score import hypotheses
from recipes.processes import Job, run_together, share_of_cores
from recipes.training import ROOT, Training


def train(conditions: List[Training]) -> None:
    """Train what is not trained yet, telling how far it is."""
    todo = [c for c in conditions if not c.trained()]

    def tell(seconds: float) -> None:
        print(f"{seconds:6.0f} s  " + "   ".join(c.progress() for c in todo), flush=True)

    command = str(BIN / "fairseq-hydra-train")
    with ExitStack() as logs:
        jobs = []
        for c in todo:
            log = logs.enter_context(c.locked_log(1))
            jobs.append(Job(c.name, [command, *c.arguments()], log, folder=c.folder))
        run_together(jobs, tell, share_of_cores(len(conditions)))


def evaluate(conditions: List[Training], data: Path, options: List[str]) -> None:
    """Average, decode, score, fold and export each condition, as scripts/evaluate.sh does."""
    command = [str(BIN / "python"), "-W", "ignore", str(ROOT / "scripts"), "records.evaluation"]
    target = conditions[0].config.task.target_lang
    model = data / "spm" / "spm.model"
    options = ["--data", str(data / "bin"), "--sentencepiece", str(model), *options]
    options += ["--reference", str(data / "raw" / f"test.{target}")]

    def tell(seconds: float) -> None:
        print(f"{seconds:6.0f} s  evaluating", flush=True)

    with ExitStack() as logs:
        jobs = []
        for c in conditions:
            log = logs.enter_context(open(c.folder / "evaluate.log", "a"))
            jobs.append(Job(c.name, [*command, str(c.folder), *options], log))
        run_together(jobs, tell, share_of_cores(len(conditions)))


def draw(conditions: List[Training], records: Dict[str, Dict[str, object]], out: Path) -> None:
    """Perplexity of the conditions, and the omegas of those that have some."""
    from fairseq_admin.analysis import curves, plotting  # matplotlib logs at its import

    runs = [f"{title(c.method)}={c.folder}" for c in conditions]
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
        lines[title(c.method)] = hypotheses(str(c.folder / "eval" / "generate.txt"))
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
    conditions = [Training(n, data, out / n) for n in args.configs]
    methods = [title(c.method) for c in conditions]
    if len(set(methods)) < len(methods):
        parser.error(f"give one config a method; these are {', '.join(methods)}")
    for condition in conditions:
        condition.claim()
    train(conditions)
    evaluate(conditions, data, evaluation)
    records = {
        method: json.loads((c.folder / "eval" / "record.json").read_text())
        for method, c in zip(methods, conditions)
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
    print()
    made = [c.folder / "eval" / name for c in conditions for name in ("record.json", "serve")]
    for path in (*made, out / "curves.png", out / "omegas.png"):
        if path.exists():  # a method may have no omegas, or no model to serve
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
