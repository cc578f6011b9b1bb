"""Run a recipe of a published experiment, from download to BLEU.

Usage:   scripts/run.sh RECIPE [options] [-- OVERRIDES OF THE CONFIG]
         scripts/run.sh wmt14_en_de_admin_18l --gpus 4
         scripts/run.sh iwslt14_de_en          every recipe of a group, one after another
Inputs:  configs/RECIPE.yaml, scripts/recipes/recipes.yaml, data/CORPUS/corpus.yaml
Outputs: runs/data/CORPUS (or --data); runs/RECIPE_seedN/{checkpoint*.pt,train.log} and, in its
         eval/, what scripts/evaluate.sh leaves: record.json, folded.pt, generate.txt.
         With --smoke all of it under runs/smoke; with --output the runs, with both also the data

Steps: prepare, back-translate (where the recipe has it), train (profiles first), average, decode,
score, fold. What is finished is not done again; after a kill the same command goes on.
"""

import logging
import os
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List, Sequence

from omegaconf import OmegaConf

from corpora.steps import BIN
from fairseq_admin.errors import UserError
from fairseq_admin.serving.served import prepared
from recipes.checks import check_overrides, check_scoring
from recipes.code import ROOT
from recipes.launch import Hardware, Launch
from recipes.processes import end
from recipes.recipes import averaged, load_recipes, parsed, smoke_overrides
from recipes.training import Training

STEPS = ("prepare", "back-translate", "train", "average", "decode", "score", "fold")
EVALUATION = {  # steps of scripts/evaluate.sh, and what each needs in RUN_DIR/eval
    "average": None,
    "decode": "mean.pt",
    "score": "generate.txt",
    "fold": "score.json",
}
WORDS = {  # of an outcome
    "diverged": "diverged, known at update {}: the end of its log says why",
    "stuck": "is stuck, known at update {}: its loss is that of the unigrams of the text",
}


class Run:
    """One recipe with one seed."""

    def __init__(self, name: str, facts: Dict[str, Any], seed: int, options: Any) -> None:
        self.name, self.facts, self.options = name, facts, options
        self.reverse = facts.get("reverse")  # the recipe whose model back-translates
        runs = (options.output or ROOT / ("runs/smoke" if options.smoke else "runs")).resolve()
        home = runs if options.smoke else ROOT / "runs"  # of the corpora
        self.bitext = (options.data or home / "data" / facts["corpus"]).resolve()
        self.data = runs / "data" / name if self.reverse else self.bitext
        self.folder = runs / f"{name}_seed{seed}"
        smoke = smoke_overrides(name) if options.smoke else []
        overrides = [f"common.seed={seed}", *smoke, *options.overrides]
        self.training = Training(name, self.data, self.folder, overrides)
        self.averaged = averaged(self.training.config)
        self.launch = Launch(self.training, options.hardware)

    def commands(self, step: str) -> List[List[str]]:
        """What *step* runs."""
        if step in EVALUATION:  # up to the last one wanted, at once
            return [self.evaluation(step)] if step == self.options.last else []
        return getattr(self, step.replace("-", "_"))()

    def prepare(self) -> List[List[str]]:
        if self.options.data:
            return []  # it is there
        command = ["bash", str(ROOT / "scripts/prepare.sh"), self.facts["corpus"]]
        command += ["--output", str(self.bitext)]
        if self.options.mirror:
            command += ["--mirror", self.options.mirror]
        return [command + ["--sample"] * self.options.smoke]

    def back_translate(self) -> List[List[str]]:
        """The reverse model by its own recipe, then its translations beside the bitext."""
        if not self.reverse:
            return []
        hardware, smoke = self.options.hardware, ["--smoke"] * self.options.smoke
        seed, runs = str(self.facts["seeds"][0]), self.folder.parent
        train = ["bash", str(ROOT / "scripts/run.sh"), self.reverse, "--data", str(self.bitext)]
        train += [*smoke, "--output", str(runs), "--seed", seed, "--to", "average"]
        train += hardware.flags()
        given = [o for o in self.options.overrides if o.startswith("common.")]  # fp16, bf16
        train += ["--", *given] if given else []
        model = runs / f"{self.reverse}_seed{seed}" / "eval" / "mean.pt"
        translate = [str(BIN / "python"), "-W", "ignore", str(ROOT / "scripts")]
        translate += ["recipes.back_translation", str(model), "--data", str(self.bitext)]
        translate += ["--output", str(self.data), "--decoders", str(self.launch.processes)]
        if self.options.mirror:
            translate += ["--mirror", self.options.mirror]
        translate += ["--cpu"] * hardware.cpu
        return [train, translate + ["--shard-lines", "40", "--sample"] * self.options.smoke]

    def train(self) -> List[List[str]]:
        return [self.launch.command()]

    def evaluation(self, step: str) -> List[str]:
        """scripts/evaluate.sh up to *step*, with the config's number of checkpoints and beam."""
        config = self.training.config
        decoding = f"--beam {config.generation.beam} --lenpen {config.generation.lenpen}"
        decoding += " --batch-size 100"
        return [
            *("bash", str(ROOT / "scripts/evaluate.sh"), str(self.folder)),
            *["--moses"] * (prepared(self.data / "bin") is None),  # else its manifest tells
            *("--data", str(self.data / "bin"), "--subset", self.options.subset, "--to", step),
            *("--reference", str(self.reference())),
            *self.averaged,
            *("--decoding", decoding + " --cpu" * self.options.hardware.cpu),
        ]

    def reference(self) -> Path:
        """Raw text to score against."""
        language = self.training.config.task.target_lang
        return self.bitext / "raw" / f"{self.options.subset}.{language}"

    def do(self, step: str) -> None:
        """Run *step*, or say that it was done."""
        if step == "train":
            self.train_on()
            return
        if step in EVALUATION:
            self.check_trained(step)
        for command in self.commands(step):
            say(f"{step}: {shlex.join(command)}")
            process = subprocess.Popen(command)
            try:
                code = process.wait()
            finally:
                end(process)
            if code:
                raise UserError(f"the step {step} of {self.name} failed, see above")

    def train_on(self) -> None:
        """Train, from the last checkpoint if there is one."""
        if not (self.data / "bin").is_dir():
            first = "back-translate" if self.reverse else "prepare"
            given = self.options.data and not self.reverse
            hint = "give another --data" if given else f"run the step {first} first"
            raise UserError(f"no data in {self.data}: {hint}")
        self.training.check_languages()
        if self.options.last in EVALUATION:
            check_scoring(self.reference(), self.training.config.task.target_lang)
        self.training.claim()
        if self.training.over():
            say(f"train: {self.folder} was trained already")
        else:
            self.start()
        kind, update = self.training.outcome()
        if kind != "trained":  # a result like any other
            say(f"train: {self.folder.name} {WORDS[kind].format(update)}")

    def start(self) -> None:
        """Train until it ends by itself."""
        self.launch.check_gpus()
        training, hardware = self.training, self.options.hardware
        say(f"train: {self.launch.batch()}")
        machines = hardware.nodes if hardware.slurm is None else 1
        try:
            training.run(self.launch.command(), lambda told: say(f"train: {told}"), machines)
        except UserError:
            if not training.crashed():
                raise
        if not training.over():
            raise UserError(
                f"{training.progress()}: the training stopped before its end, see "
                f"{training.log}; if for optimization.stop_time_hours, give more of them, or "
                f"score what there is: bash scripts/evaluate.sh {shlex.quote(str(self.folder))}"
            )

    def uses_gpus(self, steps: Sequence[str]) -> bool:
        """Whether one of *steps* trains or back-translates, and has not yet."""
        trains = "train" in steps and not self.training.over()
        translated = not self.reverse or (self.data / "manifest.json").exists()
        return trains or ("back-translate" in steps and not translated)

    def check_trained(self, step: str) -> None:
        """Raise UserError where what *step* needs is not there, or of another config or data."""
        if not self.training.over():
            raise UserError(f"{self.folder} is not trained: run the step train first")
        if not (self.data / "bin").is_dir():
            raise UserError(f"no data in {self.data}")
        self.training.claim()
        needed = None if self.training.crashed() else EVALUATION[step]
        if step == self.options.first and needed and not (self.folder / "eval" / needed).exists():
            raise UserError(f"--from {step}: no {self.folder}/eval/{needed}: start a step earlier")

    def show(self, steps: Sequence[str]) -> None:
        """Print what *steps* would run, and with which configuration."""
        print(f"# {self.folder.name}: {self.launch.batch()}")
        for step in steps:
            for command in self.commands(step):
                print(f"# {step}\n{shlex.join(command)}")
        config = self.training.composed(self.launch.overrides())
        print(f"# the configuration\n{OmegaConf.to_yaml(config, resolve=True)}")


def say(message: str) -> None:
    print(f"run: {message}", flush=True)


def main() -> None:
    logging.getLogger().setLevel(logging.WARNING)  # hydra tells DEBUG
    recipes = load_recipes()
    options = parsed(sys.argv[1:], __doc__, STEPS, recipes)
    names = [n for n, facts in recipes.items() if options.recipe in (n, facts["group"])]
    if not names:
        own = "a config of your own needs an entry in scripts/recipes/recipes.yaml"
        raise UserError(f"no recipe {options.recipe}: see --help for the list; {own}")
    steps = STEPS[STEPS.index(options.first) : STEPS.index(options.last) + 1]
    if not steps:
        raise UserError(f"--from {options.first} comes after --to {options.last}")
    if options.smoke:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # so little work gains nothing by more
    options.cpu |= options.smoke
    options.hardware = Hardware(**{f.name: getattr(options, f.name) for f in fields(Hardware)})
    for name in names:
        check_overrides(name, options.overrides)
    runs = [
        Run(name, recipes[name], seed, options)
        for name in names
        for seed in (recipes[name]["seeds"] if options.seed is None else [options.seed])
    ]
    failed = []
    for run in runs:
        try:
            if options.dry_run:
                run.show(steps)
                continue
            if steps[0] != "train" and run.uses_gpus(steps):  # told hours before
                run.launch.check_gpus()
            for step in steps:
                run.do(step)
        except UserError as error:  # one that diverges, say: the others go on
            if len(runs) == 1:
                raise
            print(error, file=sys.stderr, flush=True)
            failed.append(run.folder.name)
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
