"""Make the tables of a Markdown file from records of runs.

Usage:   python scripts/table.py FILE.md           rewrite the tables
         python scripts/table.py --check FILE.md   exit 1 where they are not those of the records
Inputs:  between the lines

             <!-- table: COLUMN COLUMN ... from PATTERN ... -->
             <!-- end of table -->

         stands a table with a row for each record (scripts/evaluate.sh; scripts/bench.py;
         scripts/costs.py; fairseq-admin analyze) that the patterns match, paths relative to the
         file; FILE#LIST names a list in the file. Runs that differ in nothing but the seed are one
         row, with mean and standard deviation. No row is there without its record.
"""

import argparse
import difflib
import json
import os
import re
import statistics
import sys
from collections import defaultdict
from glob import escape, glob
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from fairseq_admin.files import whole_file
from fairseq_admin.methods import title
from fairseq_admin.text import read_bytes, read_json
from records.columns import COLUMNS, NONE, SIGNED, TOGETHER, Record, column, trained

OVERFLOWED = 0.02  # most of the updates that overflow in fp16, which are not counted
LOGS = ("log_file", "tensorboard_logdir")  # in a folder of each run
TABLE = re.compile(
    r"(<!-- table: ([^>]*?) from ([^>]*?) -->\n)((?:(?!<!-- table:).)*?)"
    r"(<!-- end of table -->)",
    re.S,
)


def natural(path: Path) -> List[Tuple[float, str]]:
    """To sort names by the numbers in them: 6-6 comes before 18-18."""
    parts = re.findall(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)|(\D+)", path.as_posix())
    return [(float(number or 0), text) for number, text in parts]


def shown(name: str, record: Record) -> Any:
    """What a column of a single *record* shows: a number, or a text; of a study that has an axis of
    that name, its label. None for what is of several."""
    labels = record.get("labels") or {}
    if name in labels or name in TOGETHER:
        return labels.get(name)
    _, value, form = column(name)
    found = value(record)
    return found if form or found is None else str(found)


def records(patterns: str, root: Path) -> Tuple[List[Record], List[str]]:
    """The records that *patterns* match, in their order, and the patterns that match none."""
    found, seen, without = [], set(), []
    for pattern in patterns.split():
        pattern, _, key = pattern.partition("#")
        paths = sorted(map(Path, glob(os.path.join(escape(root), pattern))), key=natural)
        without += [pattern] * (not paths)
        for path in paths:
            if (path, key) in seen:
                continue
            seen.add((path, key))
            record = read_json(path)
            for row in record.get(key or "rows", [record]):
                found.append({**row, "path": Path(os.path.relpath(path, root)).as_posix()})
    return found, without


def counted(runs: List[Record]) -> List[Record]:
    """Those of *runs* whose numbers stand in a table: that trained; of none, those with scores."""
    return list(filter(trained, runs)) or [run for run in runs if run["scores"]]


def group_of(record: Record, columns: List[str]) -> str:
    """Equal for records that are one row: of runs that differ in the seed alone, evaluated alike;
    of a study, of one text, that have the same in all *columns* but numbers."""
    if "study" in record:
        cells = (shown(name, record) for name in columns)
        texts = [x if isinstance(x, str) else None for x in cells]
        return json.dumps([record["data_sha256"], *texts])
    if "config" not in record:
        return json.dumps(record, sort_keys=True)
    config = {k: v for k, v in record["config"].items() if k != "checkpoint"}
    config["common"] = {**(config.get("common") or {}), "seed": None, **dict.fromkeys(LOGS)}
    config["task"] = {**(config.get("task") or {}), "seed": None}
    ports = {"distributed_port": None, "distributed_init_method": None}
    config["distributed_training"] = {**(config.get("distributed_training") or {}), **ports}
    updates = None if trained(record) else record["updates"]
    evaluated = [record.get("averaging"), record.get("decoding"), signatures(record)]
    return json.dumps([config, updates, record["data_sha256"], evaluated], sort_keys=True)


def signatures(record: Record) -> Dict[str, str]:
    """How the scores of *record* were made, by metric."""
    scores = record.get("scores") or {}
    return {metric: score["signature"] for metric, score in scores.items() if score}


def check_seeds(runs: List[Record]) -> None:
    """SystemExit where one training is among *runs*, a row, twice, or one ended before another."""
    paths: Dict[Any, str] = {}
    for run in (run for run in runs if "config" in run):
        other = paths.setdefault(run.get("definition", run["seed"]), run["path"])
        if other != run["path"]:
            sys.exit(f"table: {other} and {run['path']} are of one seed, no two: leave one out")
    runs = [run for run in runs if "config" in run and "study" not in run and trained(run)]
    ends = sorted((run["updates"], run["path"]) for run in runs if run["updates"])
    if ends and ends[0][0] < (1 - OVERFLOWED) * ends[-1][0] and not stops(runs[0]["config"]):
        (few, early), *_, (many, late) = ends
        sys.exit(f"table: {early} ended at update {few}, {late} at {many}: leave one out")


def stops(config: Dict[str, Any]) -> bool:
    """Whether trainings of *config* end by what they come to, each at an update of its own."""
    limits = (("checkpoint", "patience"), ("optimization", "stop_min_lr"))
    return any(((config.get(group) or {}).get(name) or 0) > 0 for group, name in limits)


def cell(name: str, runs: List[Record]) -> str:
    """One column of the row of *runs*."""
    if name in TOGETHER:
        return TOGETHER[name][1](runs)
    texts = [x for run in runs if isinstance(x := shown(name, run), str) and x]
    if texts:
        return " / ".join(dict.fromkeys(texts))
    _, value, form = column(name)
    values = [x for x in map(value, counted(runs)) if x is not None] if form else []
    if not values:
        return NONE
    if len(values) == 1:
        return format(values[0], form)
    form = form.replace("d", ".0f")
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def unlike_start(found: List[Record]) -> str:
    """A sentence where not all runs started from one parameter initialization; fairseq's own
    `transformer` has no option for it."""
    found = [record for record in found if "study" not in record]  # a study says its own
    starts = [record["config"]["model"].get("parameter_init", "fairseq") for record in found]
    if len(set(starts)) < 2:
        return ""
    own = dict.fromkeys(title(r["method"]) for r, s in zip(found, starts) if s == "fairseq")
    return (
        f"\nThe method is not all that differs: {' and '.join(own)} started from fairseq's FFN "
        "weights, the others from the paper's, with five times the branch variance.\n"
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(columns: List[str], found: List[Record]) -> str:
    """Markdown of the records, a row a group of runs; the signatures of their scores, and whether
    they started alike."""
    groups: Dict[str, List[Record]] = defaultdict(list)
    for record in found:
        groups[group_of(record, columns)].append(record)
    for runs in groups.values():
        if len(runs) > 1:
            check_seeds(runs)
    headers = [(TOGETHER.get(name) or column(name))[0] for name in columns]
    if any(len(runs) > 1 for runs in groups.values()):
        headers.append("n")
    rows = []
    for runs in groups.values():
        row = [cell(name, runs) for name in columns]
        rows.append(row + [str(len(runs))] * (len(headers) - len(row)))
    text = markdown(headers, rows)
    scored = [record for record in found if record.get("scores")]
    signed = [
        f"{COLUMNS[name][0]} `{signature}`"
        for name in columns
        for signature in dict.fromkeys(signatures(r).get(SIGNED.get(name)) for r in scored)
        if signature
    ]
    part = any(0 < sum(map(trained, runs)) < len(runs) for runs in groups.values())
    if part and any(isinstance(shown(name, r), (int, float)) for name in columns for r in found):
        signed.insert(0, "means are of those that trained")
    if not signed:
        return text
    seeds = ", ".join(map(str, sorted({record["seed"] for record in found})))
    count = "" if "n" in headers else "n = 1; "
    return f"{text}\n{count}seed {seeds}; {'; '.join(signed)}\n{unlike_start(found)}"


def rewritten(text: str, root: Path) -> str:
    """The Markdown *text* with its tables made anew."""

    def replace(match: "re.Match[str]") -> str:
        columns, patterns = match.group(2).split(), match.group(3)
        try:
            found, without = records(patterns, root)
            known = {**COLUMNS, **TOGETHER}
            for record in found:
                known.update(record.get("labels") or {})
            for name in columns:
                if name not in known:
                    sys.exit(f"table: no column {name}; there are {', '.join(known)}")
            if without:
                sys.exit(f"table: no record matches {without[0]}")
            return f"{match.group(1)}\n{table(columns, found)}\n{match.group(5)}"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            sys.exit(f"table: a record of {patterns} is not as it should be: {error!r}")

    if len(re.findall(r"<!--\s*table:", text)) != len(TABLE.findall(text)):
        sys.exit("table: a table has no end, or its marker is not as --help shows it")
    return TABLE.sub(replace, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, tell what differs")
    options = parser.parse_args()
    before = read_bytes(options.file).decode()
    after = rewritten(before, options.file.resolve().parent)
    if options.check:
        diff = difflib.unified_diff(before.split("\n"), after.split("\n"), "is", "should be")
        sys.exit("\n".join(diff) or None)
    if after != before:
        with whole_file(options.file) as f:
            f.write(after)
