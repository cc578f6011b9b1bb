"""Speed of the steps of scripts/prepare.sh on given text, for scripts/bench.py."""

import os
import subprocess
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any, Callable, Dict, Tuple

from corpora.corpus import DATA, Text, load_corpus
from corpora.languages import languages_of
from corpora.preparation import Preparation
from corpora.reading import Lines
from corpora.steps import discard
from corpora.subwords import SAMPLE

VALID_EVERY = 100  # pairs: little of the work, and there must be some


def seconds() -> Tuple[float, float, float]:
    """The clock, CPU time of this process and of those that it has waited for."""
    children = getrusage(RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time(), children.ru_utime + children.ru_stime


def bench_step(
    name: str,
    make: Callable[[], Dict[str, Any]],
    preparation: Preparation,
    count: int,
    items: str = "pairs",
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What the step *make* made, and its speed on one process and on all cores: *items*, of which
    there are *count*, by the clock, and by CPU time of the processes that work and of the one that
    reads and writes."""
    clock: Dict[str, int] = {}
    total = main = children = 0.0
    for processes in sorted({1, len(os.sched_getaffinity(0))}):
        discard(preparation.out / name)
        preparation.processes, start = processes, seconds()
        facts = make()
        wall, *cpu = (after - before for before, after in zip(start, seconds()))
        clock[f"{processes} process{'es' * (processes > 1)}"] = round(count / wall)
        total, main, children = total + count, main + cpu[0], children + cpu[1]
    return facts, {
        "step": name,
        f"{items}_per_s": clock,
        f"{items}_per_cpu_second_and_core": round(total / children),
        f"{items}_per_cpu_second_of_the_main_process": round(total / main),
    }


def bench_preparation(options: Namespace) -> Dict[str, Any]:
    """Each step on the two files `options.prepare`, treated as `options.corpus` is."""
    files = [path.resolve() for path in options.prepare]
    corpus = load_corpus(options.corpus)
    corpus = corpus.with_texts({"train": (Text(tuple(map(str, files))),)}, languages_of(files))
    types = options.subwords or corpus.subwords
    with tempfile.TemporaryDirectory() as folder:
        p = Preparation(replace(corpus, valid_every=VALID_EVERY, subwords=types), Path(folder), 1)
        sums = p.fetch()
        pairs = sum(1 for _ in Lines(files[0]))
        tok, tokens = bench_step("tok", lambda: p.tokenize(sums), p, pairs)
        start = seconds()
        spm = p.train_subwords(tok)
        lines = tok["pairs"]["train"]
        subwords = {
            "step": "spm",
            "seconds": round(seconds()[0] - start[0], 3),
            "of": f"{lines // -(-lines // SAMPLE):,} lines a side, {types:,} types; serial",
        }
        count = sum(tok["pairs"].values())
        bpe, pieces = bench_step("bpe", lambda: p.encode(tok, spm), p, count)
        count = 2 * sum(bpe["pairs"].values())
        _, ids = bench_step("bin", lambda: p.binarize(spm, bpe), p, count, "lines")
    text = f"{pairs:,} pairs of {', '.join(path.name for path in files)}"
    git = ["git", "-C", str(DATA), "rev-parse", "--short", "HEAD"]
    return {
        "what": f"steps of scripts/prepare.sh, treated as {corpus.name} is; {text}",
        "hardware": f"{len(os.sched_getaffinity(0))} cores",
        "commit": subprocess.run(git, stdout=subprocess.PIPE, text=True).stdout.strip(),
        "steps": [tokens, subwords, pieces, ids],
    }
