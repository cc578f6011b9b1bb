"""What no recipe can be run with, told before its first step."""

from pathlib import Path
from typing import Sequence

from fairseq_admin.errors import UserError
from fairseq_admin.scoring.score import bleu_metric
from recipes.code import ROOT
from recipes.training import Training

# overrides that would say another thing than the option does
OWN = {"common.seed": "--seed", "checkpoint.save_dir": "--output", "task.data": "--data"}


def check_overrides(name: str, overrides: Sequence[str]) -> None:
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
