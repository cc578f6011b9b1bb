"""The columns of tables: what of a record stands in each."""

from typing import Any, Callable, Dict, List, Optional, Tuple

from fairseq_admin.methods import title

Record = Dict[str, Any]
TRAINED = "trained"  # outcome of a run that learned
NONE = "–"  # a cell of runs of which none has what it shows


def score(metric: str) -> Callable[[Record], Optional[float]]:
    return lambda record: ((record["scores"] or {}).get(metric) or {}).get("score")


def link(record: Record) -> str:
    return f"[{record['name']}]({record['path']})"


def quartiles(record: Record) -> str:
    low, high = record["ratio_quartiles"]
    return f"{record['ratio']:.3f} ({low:.2f} to {high:.2f})"


def memory(record: Record) -> str:
    return f"{record['peak_mb']} / {record['against_peak_mb']}"


def gpu_hours(record: Record) -> str:
    least = "at least " * record["at_least"]
    gpus = {k: h for k, h in record["hours"].items() if "CPU" not in k}
    return "; ".join(f"{name} {least}{hours:,.0f}" for name, hours in gpus.items())


def cpu_days(record: Record, suffix: str = "cores") -> str:
    days = next(h for k, h in record["hours"].items() if "CPU" in k and k.endswith(suffix)) / 24
    return "at least " * record["at_least"] + f"{days:,.0f}"


def sublayers(record: Record, key: str) -> List[List[float]]:
    """A value of the sublayers of the encoder and of the decoder, as the profile has them; empty
    for no profile."""
    stacks = (record["profile"] or {"stacks": {}})["stacks"]
    return [[row[key] for row in stack["sublayers"]] for _, stack in sorted(stacks.items())][::-1]


def omegas(record: Record) -> str:
    """The second and the last omega of each stack; the first is 1."""
    return "; ".join(f"{omega[1]:.2f} to {omega[-1]:.2f}" for omega in sublayers(record, "omega"))


def branches(record: Record) -> str:
    """The least and the largest branch variance."""
    found = sorted(sum(sublayers(record, "branch_var"), []))
    return f"{found[0]:.2f} to {found[-1]:.2f}" if found else ""


def harm(record: Record) -> str:
    """What no file may do, counted."""
    ends = ("traceback", "hang", "code run", "left behind", "accepted without")
    return ", ".join(str(record[end]) for end in ends)


def last_fifth(record: Record) -> Optional[float]:
    """By how much valid perplexity falls over the last fifth of the updates, in percent."""
    points = [ppl for update, ppl in record["valid_ppl"] if update >= 0.8 * record["updates"]]
    return 100 * (1 - points[-1] / points[0]) if len(points) > 1 else None


def labelled(axis: str) -> Callable[[Record], str]:
    """The label that a run of a study has on *axis*."""
    return lambda record: (record.get("labels") or {}).get(axis)


def column(name: str) -> Tuple[str, Callable[[Record], Any], str]:
    """The column *name*: one of COLUMNS, else the label on the axis of that name."""
    return COLUMNS.get(name) or (name, labelled(name), "")


def trained(run: Record) -> bool:
    """Whether *run* learned, or nothing is known against it."""
    return run.get("outcome") in (TRAINED, None)


def failed(runs: List[Record]) -> str:
    """How many of *runs* did not train, and how they ended."""
    kinds = [run["outcome"] for run in runs if not trained(run)]
    ends = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return f"{len(kinds)} of {len(runs)}" + f" ({ends})" * bool(kinds)


def best(value: Callable[[Record], Any], of: Callable[..., float]) -> Callable[..., str]:
    """The best *value* of those of some runs that trained."""

    def cell(runs: List[Record]) -> str:
        found = [x for run in runs if trained(run) and (x := value(run)) is not None]
        return f"{of(found):.2f}" if found else NONE

    return cell


def highest_lr(runs: List[Record]) -> str:
    """The highest learning rate of those of *runs* that trained."""
    rates = [run["labels"]["lr"] for run in runs if trained(run)]
    return max(rates, key=float, default=NONE)


def best_lr(runs: List[Record]) -> str:
    """The learning rate of the one of *runs* that trained to the best valid perplexity."""
    found = [(x, run["labels"]["lr"]) for run in runs if trained(run) and (x := valid(run))]
    return min(found, default=("", NONE))[1]


def valid(record: Record) -> Optional[float]:
    """The best valid perplexity."""
    return min((ppl for _, ppl in record["valid_ppl"]), default=None)


# name: header, value, format of a number
COLUMNS: Dict[str, Tuple[str, Callable[[Record], Any], str]] = {
    "run": ("run", link, ""),
    "method": ("method", lambda r: title(r["method"]), ""),
    "layers": ("layers", lambda r: r["layers"], ""),
    "width": ("width", lambda r: r["width"], "d"),
    "updates": ("updates", lambda r: r["updates"], ",d"),
    "ppl": ("train perplexity", lambda r: next((x for _, x in r["train_ppl"][::-1]), None), ".2f"),
    "valid": ("valid perplexity", valid, ".2f"),
    "last_fifth": ("its fall over the last fifth, %", last_fifth, ".1f"),
    "distinct": ("distinct translations", lambda r: r.get("distinct"), "d"),
    "bleu": ("BLEU", score("bleu"), ".2f"),
    "chrf": ("chrF", score("chrf"), ".2f"),
    "ter": ("TER", score("ter"), ".2f"),
    "tokenized": ("tokenized BLEU", score("tokenized_bleu"), ".2f"),
    "compound": ("compound-split BLEU", score("compound_split_bleu"), ".2f"),
    "omegas": ("omega, from the second to the last, encoder; decoder", omegas, ""),
    "branches": ("branch variances", branches, ""),
    # axes of studies that are not shown under their own name
    "warmup": ("warmup", labelled("warmup_updates"), ""),
    "init": ("parameter initialization", labelled("init"), ""),
    # of scripts/bench.py: training
    "size": ("layers, width", lambda r: f"{r['layers']}, {r['width']}", ""),
    "admin": ("tokens/s, Admin", lambda r: r["tokens_per_s"], "d"),
    "fairseq": ("tokens/s, fairseq", lambda r: r["against_tokens_per_s"], "d"),
    "ratio": ("ratio (quartiles)", quartiles, ""),
    "memory": ("peak MB, both", memory, ""),
    "options": ("options", lambda r: f"`{r['options'] or 'none'}`", ""),
    "dropped": ("dropout", lambda r: r["dropout"], ""),
    "tokens": ("tokens a batch", lambda r: r["tokens"], ",d"),
    # of scripts/bench.py --count
    "forward": ("forward", lambda r: r["forward"], ",d"),
    "backward": ("backward", lambda r: r["backward"], ",d"),
    "optimizer": ("optimizer", lambda r: r["optimizer"], ",d"),
    "step": ("step", lambda r: r["step"], ",d"),
    # of scripts/bench.py --profile
    "corpus": ("corpus", lambda r: r["corpus"], ""),
    "read": ("read, s", lambda r: r["read_s"], ".2f"),
    "pass": ("pass, s", lambda r: r["pass_s"], ".1f"),
    "positions": ("positions a token", lambda r: r["positions_a_token"], ".2f"),
    "draw": ("sentences in", lambda r: r["draw"], ""),
    "omega_mean": ("omega, mean of seeds", lambda r: "{:.4f} to {:.4f}".format(*r["mean"]), ""),
    "omega_std": ("its standard deviation", lambda r: r["std"], ".4f"),
    # of scripts/bench.py --before
    "timed": ("command", lambda r: r["name"], ""),
    "before": ("before, s", lambda r: r["before_s"], ".2f"),
    "after": ("after, s", lambda r: r["after_s"], ".2f"),
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
    "exponent": ("exponent of N", lambda r: r["exponent"], ".2f"),
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
    "bf16_days": ("in bf16", lambda r: cpu_days(r, "bf16"), ""),
    "corpus_disk": ("corpus, GB", lambda r: "at least " * r["at_least"] + f"{r['corpus_gb']}", ""),
    "checkpoints": ("checkpoints, GB", lambda r: r["checkpoints_gb"], ".1f"),
    "published": ("published BLEU", lambda r: r["published"], ""),
    "source": ("source", lambda r: r["source"], ""),
    "checked": ("checked by", lambda r: r["checked"], ""),
    "training": ("training", lambda r: f"{r['gpus']} GPUs, {r['epochs']} epochs", ""),
    "published_hours": ("published hours", lambda r: r["published_hours"], "d"),
    "estimate": ("estimated hours", lambda r: r["estimate"], ".1f"),
    "counted": ("counted MB", lambda r: r["counted_mb"], "d"),
    "peak": ("measured peak MB", lambda r: r["peak_mb"], "d"),
    "rest": ("difference", lambda r: r["peak_mb"] - r["counted_mb"], "d"),
}
# of all runs of a row: header, value
TOGETHER: Dict[str, Tuple[str, Callable[[List[Record]], str]]] = {
    "failed": ("failed", failed),
    "highest_lr": ("highest lr that trains", highest_lr),
    "best_valid": ("best valid perplexity", best(valid, min)),
    "best_lr": ("at lr", best_lr),
    "best_bleu": ("best BLEU", best(COLUMNS["bleu"][1], max)),
}
SIGNED = {  # columns under whose table a signature stands
    "bleu": "bleu",
    "chrf": "chrf",
    "ter": "ter",
    "tokenized": "tokenized_bleu",
    "compound": "compound_split_bleu",
}
