"""What `fairseq-admin doctor` rests on: a probe of every training of the studies beside what became
of it, the rule that is fitted on some, and how often it is right about the others."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from corpora.steps import write_json
from fairseq_admin.doctor.case import LONG, STEPS, TOKENS, open_case
from fairseq_admin.doctor.probe import probe
from fairseq_admin.doctor.rule import COEFFICIENTS, SURE, features, numbers
from fairseq_admin.files import whole_file
from fairseq_admin.methods import METHODS
from fairseq_admin.text import read_json
from recipes.code import ROOT
from records.table import markdown
from studies.study import RESULTS, known_studies, load_study
from studies.trial import Trial

PROBES = ROOT / "results" / "doctor" / "probes.json"
DEEP = 12  # layers a stack, twice those of what is left in
FITTED = "fitted"  # the part of the trainings that the rule is fitted on
# of half the squared coefficients: without it those of a perfect rule are infinite
PENALTY = 0.1

HEADER = ("trainings", "n", "learned", "right", "said to learn, stuck", "said stuck, learned")
HEADER += ("will learn by 90 %", "of these stuck")
PAGE = """\
# What the doctor rests on

`fairseq-admin doctor` gives a probability that a training learns more than the unigrams of its
target, from a probe before it starts. Here is how often it is right about trainings that were run,
those of the studies. `python scripts/evidence.py` probes those that are not in `probes.json` yet,
and writes this page.

The logit of the probability is {rule}, fitted by logistic regression (penalty {penalty:g}) on the
{n} trainings of [`trainable`](../studies/trainable/README.md) that are called `fitted`. The others
were not fitted on: each part differs from the fitted by what it is called, or is another study.

{parts}
With a method, or all deep models, left out whole, and the rule fitted on the rest of the fitted:

{left_out}
Calibration, of all that are held out:

{calibration}
Wrong about:

{wrong}
"""

PROBE = {"steps": STEPS, "tokens": TOKENS, "long": LONG}

Row = Dict[str, Any]


def probed(trial: Trial, record: Dict[str, Any]) -> Dict[str, Any]:
    """A row of PROBES."""
    case = open_case(trial.training.composed(trial.launch().overrides()))
    measured = probe(case)
    return {
        "study": trial.study.name,
        "name": trial.setting.name,
        "part": trial.setting.labels.get("part", trial.study.name),
        "method": record["method"],
        "layers": record["layers"],
        "width": record["width"],
        "outcome": record["outcome"],
        **{key: record[key] for key in ("definition", "data_sha256")},
        **PROBE,
        **numbers(measured),
    }


def fit(rows: Sequence[Row]) -> LogisticRegression:
    """The rule that fits *rows*."""
    model = LogisticRegression(C=1 / PENALTY)
    return model.fit([features(row) for row in rows], [learned(row) for row in rows])


def chances(model: LogisticRegression, rows: Sequence[Row]) -> np.ndarray:
    """That each of *rows* learns."""
    return model.predict_proba([features(row) for row in rows])[:, 1]


def learned(row: Row) -> bool:
    return row["outcome"] == "trained"


def counts(name: str, rows: Sequence[Row], found: np.ndarray) -> List[str]:
    """A line of the table: how many, and how many are wrong each way."""
    did = np.array([learned(row) for row in rows])
    said, sure = found > 0.5, found >= SURE
    numbers = len(rows), did.sum(), (said == did).sum(), (said & ~did).sum(), (~said & did).sum()
    return [name, *map(str, (*numbers, sure.sum(), (sure & ~did).sum()))]


def page(rows: Sequence[Row]) -> str:
    """The Markdown of results/doctor/README.md."""
    fitted = [row for row in rows if row["part"] == FITTED]
    others = [row for row in rows if row["part"] != FITTED]
    model = fit(fitted)
    found = chances(model, others)
    parts = [counts(FITTED, fitted, chances(model, fitted))]
    for part in dict.fromkeys(row["part"] for row in others):
        some = [i for i, row in enumerate(others) if row["part"] == part]
        parts.append(counts(part, [others[i] for i in some], found[some]))
    left_out = [
        counts(name, some, chances(fit([row for row in fitted if row not in some]), some))
        for name, some in groups(fitted)
    ]
    wrong = [
        f"- `{row['study']}/{row['name']}`: probability {p:.2f}, {row['outcome']}"
        for row, p in zip(others, found)
        if (p > 0.5) != learned(row)
    ]
    terms = (f"{w:.2f} log10({name})" for w, name in zip(model.coef_[0], COEFFICIENTS))
    return PAGE.format(
        rule=" + ".join([f"{model.intercept_[0]:.2f}", *terms]),
        penalty=PENALTY,
        n=len(fitted),
        parts=markdown(HEADER, [*parts, counts("all held out", others, found)]),
        left_out=markdown(HEADER, left_out),
        calibration=markdown(("probability", "n", "learned"), calibration(others, found)),
        wrong="\n".join(wrong) or "None.",
    )


def groups(fitted: Sequence[Row]) -> Iterator[Tuple[str, List[Row]]]:
    """What is left out whole of those that are fitted: a method, and the deep ones."""
    for method in dict.fromkeys(row["method"] for row in fitted):
        yield METHODS[method].title, [row for row in fitted if row["method"] == method]
    deep = [row for row in fitted if min(map(int, row["layers"].split("-"))) >= DEEP]
    yield f"{DEEP} layers and more", deep


def calibration(rows: Sequence[Row], found: np.ndarray) -> List[List[str]]:
    """By fifths of the probability: how many, and how many learned."""
    bins = np.clip((found * 5).astype(int), 0, 4)
    did = np.array([learned(row) for row in rows])
    return [
        [f"{k / 5:.1f} to {k / 5 + 0.2:.1f}", str((bins == k).sum()), str(did[bins == k].sum())]
        for k in range(5)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="evidence.py", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=ROOT / "runs" / "data", help="where the corpora are prepared"
    )
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    rows = probe_all(options.data)
    with whole_file(PROBES.with_name("README.md")) as f:
        f.write(page(rows))
    for name, value in constants(rows).items():
        print(f"rule.py: {name} = {value}")


def constants(rows: Sequence[Row]) -> Dict[str, Any]:
    """Those of `fairseq_admin/doctor/rule.py`."""
    fitted = [row for row in rows if row["part"] == FITTED]
    others = [row for row in rows if row["part"] != FITTED]
    model = fit(fitted)
    healthy = {
        name: float(f"{np.percentile([row[name] for row in fitted if learned(row)], 10):.2g}")
        for name in COEFFICIENTS
    }
    right = (chances(model, others) > 0.5) == [learned(row) for row in others]
    return {
        "INTERCEPT": round(float(model.intercept_[0]), 2),
        "COEFFICIENTS": {n: round(float(x), 2) for n, x in zip(COEFFICIENTS, model.coef_[0])},
        "HEALTHY": healthy,
        "HELD_OUT": {"right": int(right.sum()), "of": len(others)},
    }


def probe_all(data: Path) -> List[Row]:
    """The rows of PROBES, to which is added what has a record of a training and no probe; what has
    no record is dropped."""
    old = read_json(PROBES) if PROBES.exists() else []
    known = {row["definition"]: row for row in old if row.items() >= PROBE.items()}
    rows: Dict[str, Row] = {}
    for study in map(load_study, known_studies()):
        for setting in study.settings():
            trial = Trial(study, setting, data / study.corpus, Path("none"), RESULTS / study.name)
            record = trial.record()
            if not record or record["definition"] in rows:
                continue
            row = known.get(record["definition"])
            if not row or row["data_sha256"] != record["data_sha256"]:  # run again on other text
                print(f"evidence: {trial}", file=sys.stderr, flush=True)
                row = known[record["definition"]] = probed(trial, record)
                write_json(PROBES, list(known.values()))
            rows[record["definition"]] = {**row, "outcome": record["outcome"]}  # of the last run
    found = list(rows.values())
    write_json(PROBES, found)
    return found
