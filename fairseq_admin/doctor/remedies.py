"""What would help, each tried on the same text by the same probe."""

import math
import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Tuple

from fairseq_admin.analysis.building import new_model
from fairseq_admin.doctor.case import LONG, STEPS, Case, set_omegas
from fairseq_admin.doctor.probe import probe
from fairseq_admin.doctor.rule import SURE, numbers, probability, verdict
from fairseq_admin.errors import UserError
from fairseq_admin.model import DEFAULTS
from fairseq_admin.options import as_dict
from fairseq_admin.profiled_task import ProfiledTask

WARMUP = 4000  # updates, at most a tenth of the training
SLOWER = (3, 10)  # by what the rate is divided
BUILD = 1.5  # what a probe of another method takes, in one of the same
SCHEDULES = ("inverse_sqrt", "polynomial_decay", "fixed", "cosine")  # of which these are options


def with_method(case: Case, method: str) -> Case:
    """*case* with `transformer_admin --residual METHOD` of the same sizes, profiled where it is."""
    given = as_dict(case.config.model)
    options = {**given, **DEFAULTS, "residual": method}
    options.update(_name="transformer_admin", arch="transformer_admin")
    options.update(encoder_normalize_before=False, decoder_normalize_before=False)
    options["parameter_init"] = given.get("parameter_init", "paper")
    model = new_model(Namespace(**options), case.task, case.config.common.seed, None)
    changed = replace(case, model=model)
    set_omegas(changed)
    return changed


def with_warmup(case: Case, updates: int) -> Case:
    """*case* with a warmup of *updates*, which are more than LONG."""
    last = case.peak * math.sqrt(LONG / updates)
    return replace(case, rates=[last * n / STEPS for n in range(1, STEPS + 1)], warmup=updates)


def candidates(case: Case) -> Iterator[Tuple[Dict[str, str], Callable[[], Case]]]:
    """Options with their values, and the training with them, in the order in which they are
    tried."""
    method = "pre-ln" if case.method == "admin" else "admin"
    options = {"residual": method}
    if "residual" not in as_dict(case.config.model):
        options = {"arch": "transformer_admin", **options}
    if not isinstance(case.task, ProfiledTask):
        options = {"task": "translation_admin", **options}
    yield options, partial(with_method, case, method)
    if case.config.lr_scheduler._name not in SCHEDULES:
        return
    last = int(case.config.optimization.max_update or 10 * WARMUP)
    updates = min(WARMUP, last // 10)
    if updates > max(case.warmup, LONG):
        yield {"warmup-updates": str(updates)}, partial(with_warmup, case, updates)
    for factor in SLOWER:
        rate = case.config.optimization.lr[0] / factor
        slower = {"rates": [x / factor for x in case.rates], "peak": case.peak / factor}
        yield {"lr": f"{rate:.3g}"}, partial(replace, case, **slower)


def remedies(case: Case, chance: float, took: float, until: float) -> List[Dict[str, Any]]:
    """What makes it likelier that *case* learns, best first; and then, with a chance of None, what
    there was no time to try.

    Args:
        chance: without any.
        took: seconds of one probe.
        until: by `time.monotonic`, when to be ready: what would take longer is not tried.
    """
    better: List[Dict[str, Any]] = []
    untried: List[Dict[str, Any]] = []
    for options, make in candidates(case):
        if any("lr" in row["options"] and row["chance"] >= SURE for row in better):
            continue  # the higher rate does
        if time.monotonic() + took * (BUILD if "residual" in options else 1) > until:
            untried.append({"options": options, "chance": None, "verdict": "not tried"})
            continue
        with suppress(UserError):  # a model of other options cannot be of this method
            found = probability(numbers(probe(make())))
            if found > chance:
                better.append({"options": options, "chance": found, "verdict": verdict(found)})
    return sorted(better, key=lambda row: -row["chance"]) + untried
