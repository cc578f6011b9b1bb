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
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from fairseq_admin.methods import title
from fairseq_admin.text import read_json

Record = Dict[str, Any]
TABLE = re.compile(r"(<!-- table: ([^>]*?) from ([^>]*?) -->\n)(.*?)(<!-- end of table -->)", re.S)


def score(metric: str) -> Callable[[Record], float]:
    return lambda record: record["scores"][metric]["score"]


def link(record: Record) -> str:
    return f"[{record['name']}]({record['path']})"


def quartiles(record: Record) -> str:
    low, high = record["ratio_quartiles"]
    return f"{record['ratio']:.3f} ({low:.2f} to {high:.2f})"


def gpu_hours(record: Record) -> str:
    least = "at least " * record["at_least"]
    gpus = {k: h for k, h in record["hours"].items() if "CPU" not in k}
    return "; ".join(f"{name} {least}{hours:,.0f}" for name, hours in gpus.items())


def cpu_days(record: Record) -> str:
    days = next(h for k, h in record["hours"].items() if "CPU" in k) / 24
    return "at least " * record["at_least"] + f"{days:,.0f}"


def span(numbers: List[float]) -> str:
    return f"{min(numbers):.2f} to {max(numbers):.2f}"


def sublayers(record: Record, key: str) -> List[List[float]]:
    """A value of the sublayers of the encoder and of the decoder, as the profile has them."""
    stacks = record["profile"]["stacks"]
    return [[row[key] for row in stacks[stack]["sublayers"]] for stack in ("encoder", "decoder")]


def omegas(record: Record) -> str:
    """The second and the last omega of each stack; the first is 1."""
    return "; ".join(f"{omega[1]:.2f} to {omega[-1]:.2f}" for omega in sublayers(record, "omega"))


def harm(record: Record) -> str:
    """What no file may do, counted."""
    ends = ("traceback", "hang", "code run", "left behind", "accepted without")
    return ", ".join(str(record[end]) for end in ends)


# name: header, value, format of a number
COLUMNS: Dict[str, Tuple[str, Callable[[Record], Any], str]] = {
    "run": ("run", link, ""),
    "method": ("method", lambda r: title(r["method"]), ""),
    "layers": ("layers", lambda r: r["layers"], ""),
    "width": ("width", lambda r: r["width"], "d"),
    "updates": ("updates", lambda r: r["updates"], ",d"),
    "hours": ("hours", lambda r: r["wall_seconds"] / 3600, ".2f"),
    "hardware": ("hardware", lambda r: r["hardware"], ""),
    "ppl": ("train perplexity", lambda r: r["train_ppl"][-1][1], ".2f"),
    "valid": ("valid perplexity", lambda r: min(ppl for _, ppl in r["valid_ppl"]), ".2f"),
    "bleu": ("BLEU", score("bleu"), ".2f"),
    "chrf": ("chrF", score("chrf"), ".2f"),
    "ter": ("TER", score("ter"), ".2f"),
    "tokenized": ("tokenized BLEU", score("tokenized_bleu"), ".2f"),
    "compound": ("compound-split BLEU", score("compound_split_bleu"), ".2f"),
    "omegas": ("second to last omega, encoder; decoder", omegas, ""),
    "branches": ("branch variances", lambda r: span(sum(sublayers(r, "branch_var"), [])), ""),
    # of scripts/bench.py: training
    "size": ("layers, width", lambda r: f"{r['layers']}-{r['layers']}, {r['width']}", ""),
    "admin": ("tokens/s, Admin", lambda r: r["admin_tokens_per_s"], "d"),
    "fairseq": ("tokens/s, fairseq", lambda r: r["fairseq_tokens_per_s"], "d"),
    "ratio": ("ratio (quartiles)", quartiles, ""),
    "memory": ("peak MB, both", lambda r: f"{r['admin_peak_mb']} / {r['fairseq_peak_mb']}", ""),
    "profile": ("profile, in steps", lambda r: r["profile_steps"], ".2f"),
    # of scripts/bench.py: decoding
    "model": ("model", lambda r: r["model"], ""),
    "cores": ("cores", lambda r: r["threads"], ""),
    "engine": ("engine", lambda r: r["engine"], ""),
    "speed": ("tokens/s", lambda r: r["tokens_per_s"], ",d"),
    "same": ("the same", lambda r: f"{100 * r['same']:.1f} %", ""),
    # of fairseq-admin analyze output-change
    "fit_stack": ("stack", lambda r: r["stack"], ""),
    "fit_step": ("step", lambda r: r["step"], ""),
    "fit_label": ("model", lambda r: r["label"], ""),
    "r2_n": ("R² of N", lambda r: r["N"]["r2"], ".2f"),
    "r2_log": ("R² of log N", lambda r: r["log N"]["r2"], ".2f"),
    # of tests/slow/test_hostile.py and test_kills.py
    "kind": ("kind", lambda r: r["kind"], ""),
    "files": ("files", lambda r: r["files"], ",d"),
    "refused": ("refused in one line", lambda r: r["refused in one line"], ",d"),
    "accepted": ("accepted with reason", lambda r: r["accepted with reason"], ",d"),
    "harm": ("traceback, hang, code run, left behind, wrongly accepted", harm, ""),
    "killed": ("what was killed", lambda r: r["what"], ""),
    "kills": ("kills", lambda r: r["kills"], ",d"),
    # of scripts/costs.py
    "recipe": ("recipe", lambda r: r["recipe"], ""),
    "parameters": ("parameters, M", lambda r: r["parameters"] / 1e6, ".1f"),
    "batch": ("GPUs, tokens an update", lambda r: f"{r['gpus']}, {r['batch']:,}", ""),
    "flop": ("TFLOP an update", lambda r: r["update_tflop"], ",.1f"),
    "gpu_memory": ("GB a GPU", lambda r: r["memory_gb"], ".1f"),
    "gpu_hours": ("hours on its GPUs", gpu_hours, ""),
    "cpu_days": ("days on 2 CPU cores", cpu_days, ""),
    "corpus_disk": ("corpus, GB", lambda r: "at least " * r["at_least"] + f"{r['corpus_gb']}", ""),
    "checkpoints": ("checkpoints, GB", lambda r: r["checkpoints_gb"], ".1f"),
    "published": ("published BLEU", lambda r: r["published"], ""),
    "source": ("source", lambda r: r["source"], ""),
    "checked": ("checked by", lambda r: r["checked"], ""),
    "training": ("training", lambda r: f"{r['gpus']} GPUs, {r['epochs']} epochs", ""),
    "published_hours": ("published hours", lambda r: r["published_hours"], "d"),
    "estimate": ("estimated hours", lambda r: r["estimate"], ".1f"),
    "counted": ("counted MB", lambda r: r["counted_mb"], "d"),
    "peak": ("measured peak MB", lambda r: r["admin_peak_mb"], "d"),
    "rest": ("difference", lambda r: r["admin_peak_mb"] - r["counted_mb"], "d"),
}
SIGNED = {  # columns under whose table a signature stands
    "bleu": "bleu",
    "chrf": "chrf",
    "ter": "ter",
    "tokenized": "tokenized_bleu",
    "compound": "compound_split_bleu",
}


def records(patterns: str, root: Path) -> List[Record]:
    """The records that *patterns* match, in their order; SystemExit where one matches none."""
    found = []
    for pattern in patterns.split():
        pattern, _, key = pattern.partition("#")
        paths = sorted(root.glob(pattern))
        if not paths:
            sys.exit(f"table: no record matches {pattern}")
        for path in paths:
            record = read_json(path)
            for row in record.get(key or "rows", [record]):
                found.append({**row, "path": path.relative_to(root).as_posix()})
    return found


def without_seed(record: Record) -> str:
    """Equal for records of runs that differ in the seed alone."""
    if "config" not in record:
        return json.dumps(record, sort_keys=True)
    config = {k: v for k, v in record["config"].items() if k != "checkpoint"}
    config["common"] = {**config["common"], "seed": None}
    config["task"] = {**config["task"], "seed": None}
    return json.dumps([config, record["updates"], record["data_sha256"], record["decoding"]])


def cell(name: str, runs: List[Record]) -> str:
    """One column of the row of *runs*."""
    _, value, form = COLUMNS[name]
    values = [value(run) for run in runs]
    if not form:
        return str(values[0])
    if len(values) == 1:
        return format(values[0], form)
    form = form.replace("d", ".0f")
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def table(columns: List[str], found: List[Record]) -> str:
    """Markdown of the records, a row a group of runs, and the signatures of their scores."""
    groups: Dict[str, List[Record]] = defaultdict(list)
    for record in found:
        groups[without_seed(record)].append(record)
    headers = [COLUMNS[name][0] for name in columns]
    if any(len(runs) > 1 for runs in groups.values()):
        headers.append("n")
    lines = [headers, ["---"] * len(headers)]
    for runs in groups.values():
        row = [cell(name, runs) for name in columns]
        lines.append(row + [str(len(runs))] * (len(headers) - len(row)))
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    signatures = [
        f"{COLUMNS[name][0]} `{signature}`"
        for name in columns
        if name in SIGNED
        for signature in dict.fromkeys(r["scores"][SIGNED[name]]["signature"] for r in found)
    ]
    if not signatures:
        return text
    seeds = ", ".join(map(str, sorted({record["seed"] for record in found})))
    count = "" if "n" in headers else "n = 1; "
    return f"{text}\n{count}seed {seeds}; {'; '.join(signatures)}\n"


def rewritten(text: str, root: Path) -> str:
    """The Markdown *text* with its tables made anew."""

    def replace(match: "re.Match[str]") -> str:
        columns = match.group(2).split()
        unknown = [name for name in columns if name not in COLUMNS]
        if unknown:
            sys.exit(f"table: no column {unknown[0]}; there are {', '.join(COLUMNS)}")
        made = table(columns, records(match.group(3), root))
        return f"{match.group(1)}\n{made}\n{match.group(5)}"

    return TABLE.sub(replace, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, tell what differs")
    options = parser.parse_args()
    before = options.file.read_text(encoding="utf-8")
    after = rewritten(before, options.file.resolve().parent)
    if options.check:
        diff = difflib.unified_diff(before.split("\n"), after.split("\n"), "is", "should be")
        sys.exit("\n".join(diff) or None)
    if after != before:
        options.file.write_text(after, encoding="utf-8")
