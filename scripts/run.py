#!/usr/bin/env python3
"""Run a recipe of a published experiment, from download to BLEU.

Usage:   scripts/run.sh RECIPE [options] [-- OVERRIDES OF THE CONFIG]
         scripts/run.sh wmt14_en_de_admin_18l --gpus 4
         scripts/run.sh iwslt14_de_en          every recipe of a group, one after another
Inputs:  configs/RECIPE.yaml, scripts/recipes.yaml, data/CORPUS/corpus.yaml
Outputs: runs/data/CORPUS (or --data); runs/RECIPE_seedN/{checkpoint*.pt,train.log} and, in its
         eval/, what scripts/evaluate.sh leaves: record.json, folded.pt, generate.txt

Steps: prepare, back-translate (where the recipe has it), train (profiles first), average, decode,
score, fold. What is finished is not done again; after a kill the same command goes on.
"""

import argparse
import logging
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List

from launch import Hardware, Launch
from omegaconf import OmegaConf
from recipes import listing, load_recipes
from training import BIN, ROOT, Training
from worker import mend

from fairseq_admin.errors import UserError

STEPS = ("prepare", "back-translate", "train", "average", "decode", "score", "fold")
EVALUATION = {  # steps of scripts/evaluate.sh, and what each needs in RUN_DIR/eval
    "average": None,
    "decode": "mean.pt",
    "score": "generate.txt",
    "fold": "score.json",
}
PROGRESS_S = 15  # seconds between two lines of progress
SMOKE = [  # the same recipe in a minute on two cores
    "common.log_interval=5",
    "distributed_training.distributed_world_size=2",
    "dataset.max_tokens=500",
    "dataset.num_workers=0",
    "optimization.update_freq=[1]",
    "optimization.max_epoch=3",
    "optimization.max_update=0",
    "lr_scheduler.warmup_updates=20",
    "checkpoint.keep_last_epochs=2",
    "checkpoint.save_interval_updates=10",
    "checkpoint.keep_interval_updates=1",
    "model.encoder_embed_dim=32",
    "model.encoder_ffn_embed_dim=64",
    "model.encoder_attention_heads=2",
    "model.decoder_attention_heads=2",
]
SMOKE_DEPTH = 6  # layers of a recipe to one of its smoke test
Command = List[str]


class Run:
    """One recipe with one seed."""

    def __init__(self, name: str, facts: Dict[str, Any], seed: int, options: Any) -> None:
        self.name, self.facts, self.options = name, facts, options
        home = ROOT / "runs" / "smoke" if options.smoke else ROOT / "runs"
        self.bitext = (options.data or home / "data" / facts["corpus"]).resolve()
        self.data = home / "data" / name if facts.get("reverse") else self.bitext
        self.folder = (options.output or home).resolve() / f"{name}_seed{seed}"
        overrides = [f"common.seed={seed}", *options.overrides]
        if options.smoke:
            sizes = Training(name, self.data, self.folder).config.model
            for stack in ("encoder_layers", "decoder_layers"):
                overrides.insert(1, f"model.{stack}={max(2, sizes[stack] // SMOKE_DEPTH)}")
            overrides[1:1] = SMOKE
        self.training = Training(name, self.data, self.folder, overrides)
        self.launch = Launch(self.training, options.hardware)

    def commands(self, step: str) -> List[Command]:
        """What *step* runs."""
        if step in EVALUATION:  # up to the last one wanted, at once
            return [self.evaluation(step)] if step == self.options.last else []
        return getattr(self, step.replace("-", "_"))()

    def prepare(self) -> List[Command]:
        if self.options.data:
            return []  # it is there
        command = ["bash", str(ROOT / "scripts/prepare.sh"), self.facts["corpus"]]
        command += ["--output", str(self.bitext)]
        if self.options.mirror:
            command += ["--mirror", self.options.mirror]
        return [command + ["--sample"] * self.options.smoke]

    def back_translate(self) -> List[Command]:
        """The reverse model by its own recipe, then its translations beside the bitext."""
        reverse = self.facts.get("reverse")
        if not reverse:
            return []
        hardware, smoke = self.options.hardware, ["--smoke"] * self.options.smoke
        seed, runs = str(self.facts["seeds"][0]), self.folder.parent
        train = ["bash", str(ROOT / "scripts/run.sh"), reverse, "--data", str(self.bitext), *smoke]
        train += ["--output", str(runs), "--seed", seed, "--to", "average", *hardware.flags()]
        model = runs / f"{reverse}_seed{seed}" / "eval" / "mean.pt"
        translate = [str(BIN / "python"), "-W", "ignore", str(ROOT / "scripts/back_translate.py")]
        translate += [str(model), "--data", str(self.bitext), "--corpus", self.facts["corpus"]]
        translate += ["--output", str(self.data), "--decoders", str(self.launch.processes)]
        if self.options.mirror:
            translate += ["--mirror", self.options.mirror]
        return [train, translate + ["--cpu"] * hardware.cpu + smoke_shards(self.options.smoke)]

    def train(self) -> List[Command]:
        return [self.launch.command()]

    def evaluation(self, step: str) -> Command:
        """scripts/evaluate.sh up to *step*, with the config's number of checkpoints and beam."""
        config, target = self.training.config, self.training.config.task.target_lang
        decoding = f"--beam {config.generation.beam} --lenpen {config.generation.lenpen}"
        decoding += " --remove-bpe sentencepiece --batch-size 100"
        subset = self.options.subset
        return [
            *("bash", str(ROOT / "scripts/evaluate.sh"), str(self.folder), "--moses"),
            *("--data", str(self.data / "bin"), "--subset", subset, "--to", step),
            *("--reference", str(self.bitext / "raw" / f"{subset}.{target}")),
            *averaged(config.checkpoint),
            *("--decoding", decoding + " --cpu" * self.options.hardware.cpu),
        ]

    def do(self, step: str) -> None:
        """Run *step*, or say that it was done."""
        if step == "train":
            if not (self.data / "bin").is_dir():
                raise UserError(f"no data in {self.data}: run the step prepare first")
            self.training.claim()
            if self.training.trained():
                say(f"train: {self.folder} was trained already")
                return
            say(f"train: {self.launch.batch()} tokens an update")
            run_watched(self.train()[0], self.training)
            return
        needed = EVALUATION.get(step)
        if step in EVALUATION and not self.training.trained():
            raise UserError(f"{self.folder} is not trained: run the step train first")
        if step == self.options.first and needed and not (self.folder / "eval" / needed).exists():
            raise UserError(f"--from {step}: no {self.folder}/eval/{needed}: start a step earlier")
        for command in self.commands(step):
            say(f"{step}: {shlex.join(command)}")
            if subprocess.run(command).returncode:
                raise UserError(f"the step {step} of {self.name} failed, see above")

    def resolved(self) -> str:
        """The whole configuration as fairseq-hydra-train composes it, YAML.

        Raises:
            UserError: for an override that fairseq does not know.
        """
        from fairseq.dataclass.initialize import add_defaults, hydra_init
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import HydraException

        GlobalHydra.instance().clear()
        hydra_init(self.name)
        arguments = [*self.training.arguments(()), *self.launch.overrides()]
        try:
            with initialize_config_dir(arguments[1], version_base="1.1"):
                config = compose(self.name, overrides=arguments[4:])
        except HydraException as error:
            raise UserError(f"{self.name}: {str(error).splitlines()[0]}") from None
        add_defaults(config)
        return OmegaConf.to_yaml(config, resolve=True)


def averaged(checkpoint: Any) -> Command:
    """Options of evaluate.sh: the mean of the checkpoints that the config keeps."""
    if checkpoint.get("keep_last_epochs", -1) > 0:
        return ["--num-epoch-checkpoints", str(checkpoint.keep_last_epochs)]
    return ["--num-update-checkpoints", str(checkpoint.keep_interval_updates)]


def smoke_shards(smoke: bool) -> Command:
    """Options of back_translate.py where little is to be translated."""
    return ["--shard-lines", "40", "--sample"] if smoke else []


def say(message: str) -> None:
    print(f"run: {message}", flush=True)


def run_watched(command: Command, training: Training) -> None:
    """Run a training into its log, telling how far it is; UserError when it fails.

    The log is locked by the training itself, so that a second start finds it also where the first
    launcher was killed and the training goes on.
    """
    import fcntl

    mend(training.folder)
    with open(training.log, "a") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"a training into {training.folder} is running still") from None
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=training.folder
        )
    start, before, told = time.monotonic(), training.share(), time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                say(f"train: {training.progress()}{remaining(training, start, before)}")
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
    if process.returncode:
        tail = "\n".join(training.log.read_text(errors="replace").splitlines()[-5:])
        raise UserError(f"training failed with {process.returncode}, see {training.log}:\n{tail}")


def remaining(training: Training, start: float, before: float) -> str:
    """Time left, when enough is done to tell."""
    share = training.share()
    if share <= before:
        return ""
    left = (time.monotonic() - start) / (share - before) * (1 - share)
    return f", {left / 3600:.1f} h left" if left > 3600 else f", {left / 60:.0f} min left"


def main() -> None:
    logging.getLogger().setLevel(logging.WARNING)  # hydra tells DEBUG
    recipes = load_recipes()
    parser = argparse.ArgumentParser(
        prog="run.sh",
        description=__doc__,
        epilog=listing(recipes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a recipe of the list below, or a group of them")
    parser.add_argument("--from", dest="first", choices=STEPS, default=STEPS[0])
    parser.add_argument("--to", dest="last", choices=STEPS, default=STEPS[-1])
    parser.add_argument("--dry-run", action="store_true", help="print it all, do nothing")
    parser.add_argument("--smoke", action="store_true", help="all steps in minutes on two cores")
    parser.add_argument("--seed", type=int, help="default: each seed of the recipe, in turn")
    parser.add_argument("--gpus", type=int, help="a machine (default: the recipe's)")
    parser.add_argument("--nodes", type=int, default=1, help="machines; start this on each")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="where several machines meet")
    parser.add_argument("--max-tokens", type=int, help="a GPU, where memory is short")
    parser.add_argument("--cpu", action="store_true", help="processors; --gpus processes with gloo")
    parser.add_argument(
        "--slurm", nargs="*", metavar="KEY=VALUE", help="by SLURM: partition=... account=..."
    )
    parser.add_argument("--data", type=Path, help="folder of prepare.sh, instead of the corpus")
    parser.add_argument("--subset", default="test", help="split to score on")
    parser.add_argument("--mirror", help="of the downloads, see prepare.sh")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: runs)")
    arguments, overrides = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, overrides = arguments[:cut], arguments[cut + 1 :]
    options = parser.parse_args(arguments)
    options.overrides = overrides
    names = [n for n, facts in recipes.items() if options.recipe in (n, facts["group"])]
    if not names:
        raise UserError(f"no recipe {options.recipe}: see --help for the list")
    first, last = STEPS.index(options.first), STEPS.index(options.last)
    if first > last:
        parser.error(f"--from {options.first} comes after --to {options.last}")
    options.hardware = Hardware(
        options.gpus,
        options.nodes,
        options.cpu or options.smoke,
        options.max_tokens,
        options.rendezvous,
        options.slurm,
    )
    for name in names:
        facts = recipes[name]
        for seed in facts["seeds"] if options.seed is None else [options.seed]:
            run = Run(name, facts, seed, options)
            if options.dry_run:
                print(f"# {name}, seed {seed}: {run.launch.batch()} tokens an update")
            resolved = run.resolved()  # an unknown override ends it here
            for step in STEPS[first : last + 1]:
                if options.dry_run:
                    for command in run.commands(step):
                        print(f"# {step}\n{shlex.join(command)}")
                else:
                    run.do(step)
            if options.dry_run:
                print(f"# the configuration\n{resolved}")


if __name__ == "__main__":
    main()
