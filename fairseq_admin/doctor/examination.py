"""The whole of what is found out about a training before it starts."""

import math
import time
from typing import Any, Dict, List

from fairseq_admin.doctor.case import open_case
from fairseq_admin.doctor.probe import Measured, probe
from fairseq_admin.doctor.remedies import remedies
from fairseq_admin.doctor.rule import HEALTHY, HELD_OUT, SURE, numbers, probability, verdict

MEANING = {  # of each number: what it is called, its unit
    "dependence": ("dependence of the output on the text, after the steps", "bits"),
    "reach": ("gradient that reaches the decoder's first layer, before them", "of its last one's"),
}
OVERRIDES = {  # of hydra, by the option of fairseq-train; ++ of what a config may not have
    "task": "task._name={}",
    "arch": "model._name={}",
    "residual": "++model.residual={}",
    "warmup-updates": "++lr_scheduler.warmup_updates={}",
    "lr": "optimization.lr=[{}]",
}


def examine(config: Any, until: float) -> Dict[str, Any]:
    """The verdict about the training that *config* is of, what it rests on and, where it is not
    that the model will learn, what would help, as far as that is found out before *until* (of
    `time.monotonic`). Nothing is trained, and nothing changed. Raises UserError for a training that
    cannot be, or one that no probe knows."""
    case = open_case(config)
    start = time.monotonic()
    measured = probe(case)
    took = time.monotonic() - start
    found = numbers(measured)
    chance = probability(found)
    return {
        "training": case.title(),
        "method": case.method,
        "verdict": verdict(chance),
        "chance": chance,
        "held_out": HELD_OUT,
        "numbers": {name: {"found": x, "healthy": HEALTHY[name]} for name, x in found.items()},
        "worst": measured.worst["name"],
        "sublayers": sublayers(measured),
        "remedies": [] if chance >= SURE else remedies(case, chance, took, until),
        "tokens": sum(int(batch["ntokens"]) for batch in case.batches),
    }


def sublayers(measured: Measured) -> List[Dict[str, Any]]:
    """Spread and gradient of each, before and after the steps, in order of execution; None for what
    is no number."""
    rows = []
    for before, after in zip(measured.before.sublayers, measured.after.sublayers):
        found: Dict[str, Any] = {"name": before["name"]}
        for key in ("spread", "gradient"):
            for when, row in (("before", before), ("after", after)):
                found[f"{key}_{when}"] = row[key] if math.isfinite(row[key]) else None
        rows.append(found)
    return rows


def lines(result: Dict[str, Any], hydra: bool) -> List[str]:
    """*result* for a reader, with options as `fairseq-train` or as *hydra* takes them."""
    right = "right about {right} of {of} trainings that it was not fitted on".format(
        **result["held_out"]
    )
    told = [
        result["training"],
        f"{result['verdict']}: learns with probability {result['chance']:.2f} ({right})",
        "",
    ]
    for name, row in result["numbers"].items():
        what, unit = MEANING[name]
        told.append(f"{what}: {row['found']:.2g} {unit} (healthy: {row['healthy']:.2g} or more)")
    (worst,) = (row for row in result["sublayers"] if row["name"] == result["worst"])
    before, after = worst["spread_before"], worst["spread_after"]
    told.append(
        f"where most is lost: {worst['name']}, whose output differs from token to token by "
        f"{after:.2g} of its size after the steps, {before:.2g} before"
    )
    if result["remedies"]:
        told += ["", "What would help, measured on the same text:"]
    for row in result["remedies"]:
        options = row["options"].items()
        how = " ".join(
            OVERRIDES[name].format(x) if hydra else f"--{name} {x}" for name, x in options
        )
        if "arch" in row["options"]:
            how += ", of the same sizes"
        found = "" if row["chance"] is None else f", {row['chance']:.2f}"
        told.append(f"  {how}: {row['verdict']}{found}")
    return told
