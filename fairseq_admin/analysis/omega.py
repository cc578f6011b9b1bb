"""Omega by sublayer at initialization and along training: mean and spread over channels."""

import os
from argparse import Namespace
from typing import Any, Dict, List

from torch import nn

from fairseq_admin.analysis.labels import shortest
from fairseq_admin.analysis.subjects import Subject, subjects
from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS
from fairseq_admin.omega_file import Profile
from fairseq_admin.profiling import named_junctions


def omegas(model: nn.Module) -> Dict[str, List[Dict[str, Any]]]:
    """Mean, standard deviation, least and greatest channel of each sublayer's omega, by stack.
    Raises UserError for a model without omegas."""
    found = {
        stack: [
            {
                "name": name,
                "mean": junction.omega.mean().item(),
                "std": junction.omega.std(unbiased=False).item(),
                "min": junction.omega.min().item(),
                "max": junction.omega.max().item(),
            }
            for name, junction in junctions.items()
            if hasattr(junction, "omega")
        ]
        for stack, junctions in named_junctions(model).items()
    }
    if not any(found.values()):
        raise UserError(
            "no omega there: give models of the residual methods admin or analytic, not folded ones"
        )
    return found


def at_initialization(subject: Subject) -> Dict[str, List[Dict[str, Any]]]:
    """What `omegas` gives, of the profile that a checkpoint keeps: one number a sublayer."""
    try:
        profile = Profile.from_dict(subject.profile)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"the profile that {subject.label} keeps is damaged") from None
    return {
        stack: [
            {"name": s.name, "mean": s.omega, "std": 0.0, "min": s.omega, "max": s.omega}
            for s in profile.stacks[stack].sublayers
            if s.omega is not None
        ]
        for stack in STACKS
    }


def measure(options: Namespace, rest: List[str]) -> Dict[str, Any]:
    """The omegas of every model; before the first checkpoint of a folder, of its profile."""
    files = filter(os.path.isfile, options.models)
    folders = list(dict.fromkeys(os.path.dirname(os.path.realpath(path)) for path in files))
    names = dict(zip(folders, shortest(folders)))  # of those whose profile is still to be shown
    models = []
    for subject, _ in subjects(options, rest):
        about = subject.about()
        found = omegas(subject.model)
        if subject.profile and subject.folder in names:
            first = {"label": f"{names.pop(subject.folder)} at 0", "updates": 0}
            models.append({**about, **first, "stacks": at_initialization(subject)})
        models.append({**about, "stacks": found})
    return {"analysis": "omega", "models": models}
