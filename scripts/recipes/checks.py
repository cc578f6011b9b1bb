"""What no recipe can be run with, told before its first step."""

from pathlib import Path
from typing import Any, Sequence

import torch

from fairseq_admin.errors import UserError
from fairseq_admin.scoring.score import bleu_metric
from recipes.code import ROOT
from recipes.training import Training

# overrides that would say another thing than the option does
OWN = {"common.seed": "--seed", "checkpoint.save_dir": "--output", "task.data": "--data"}


def check(name: str, overrides: Sequence[str]) -> None:
    """Raise UserError for an override of the recipe *name* that fairseq does not know, or that is
    an option here."""
    for override in overrides:
        option = OWN.get(override.lstrip("+").partition("=")[0])
        if option:
            raise UserError(f"{override}: give {option}")
    if overrides:
        Training(name, ROOT, ROOT).composed(overrides)


def check_scoring(reference: Path, language: str) -> None:
    """Raise UserError where a training cannot be scored later, against the text of a *language* in
    the file *reference*."""
    if not reference.is_file():
        raise UserError(f"nothing to score against later: no {reference}: --subset?")
    try:
        bleu_metric(language)
    except UserError as error:
        told = "give --to train, and the rest to scripts/evaluate.sh"
        raise UserError(f"{error.message}: {told}") from None


def check_gpus(run: Any, steps: Sequence[str]) -> None:
    """Raise UserError where *steps* of the `run.Run` *run* need more GPUs than there are here."""
    hardware, training = run.options.hardware, run.training
    trains = (
        "train" in steps
        and hardware.slurm is None
        and not (training.trained() or training.crashed())
    )
    translated = not run.facts.get("reverse") or (run.data / "manifest.json").exists()
    translates = "back-translate" in steps and hardware.slurm is None and not translated
    here, wanted = torch.cuda.device_count(), run.launch.processes
    if (trains or translates) and not hardware.cpu and here < wanted:
        raise UserError(f"{wanted} GPUs: there are {here} here; give fewer --gpus, or --cpu")
