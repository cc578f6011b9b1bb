"""The profile before training, for scripts/bench.py: how long a training waits for it, and whether
drawing and grouping sentences biases the omegas."""

import statistics
from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import Any, Dict, Iterator, Sequence

import numpy as np
import torch
from fairseq import tasks

from bench.training import sizes, stacks, timed
from fairseq_admin.arguments import training_config
from fairseq_admin.batch import draw_batch, grouped
from fairseq_admin.profiling import profile_model

TOKENS = 4096  # to profile, as is the default
SIDES = ("src_tokens", "prev_output_tokens")
WHOLE = 200_000  # source tokens that stand for all of a corpus


def task_and_model(layers: str, width: int, options: Namespace) -> tuple:
    """The task of the data, and an Admin model for it."""
    arguments = f"""{options.profile} --cpu --arch transformer_admin --share-all-embeddings
        {sizes(layers, width)} --dropout {options.dropout}
        --optimizer adam --profile-tokens {TOKENS}"""
    cfg = training_config(arguments.split())
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model, from_checkpoint=True)


def bench_time(layers: str, width: int, options: Namespace) -> Iterator[Dict[str, Any]]:
    """The row of one size: what rank 0 does while a training waits."""
    task, model = task_and_model(layers, width, options)
    read, passed, batches = [], [], []
    for seed in range(options.pairs):
        read.append(timed(lambda s=seed: batches.append(task.profile_batches(model, s))))
        inputs = [batch["net_input"] for batch in batches[-1]]
        passed.append(timed(lambda x=inputs, s=seed: profile_model(model, x, pad(task), s)))
    sides = [batch["net_input"][side] for drawn in batches for batch in drawn for side in SIDES]
    tokens = sum(int(side.ne(pad(task)).sum()) for side in sides)
    yield {
        "layers": "{}-{}".format(*stacks(layers)),
        "width": width,
        "read_s": round(statistics.median(read), 2),
        "pass_s": round(statistics.median(passed), 2),
        "positions_a_token": round(sum(side.numel() for side in sides) / tokens, 3),
        "batches": round(statistics.mean(map(len, batches)), 1),
        "runs": options.pairs,
    }


def pad(task) -> int:
    return task.source_dictionary.pad()


def omegas(model, task, batches: Sequence[Dict[str, Any]], seed: int) -> np.ndarray:
    """Every omega that follows from *batches*, but the first of each stack, which is 1."""
    profile = profile_model(model, [batch["net_input"] for batch in batches], pad(task), seed)
    return np.array([s.omega for x in profile.stacks.values() for s in x.sublayers[1:]])


def bench_bias(layers: str, width: int, options: Namespace) -> Iterator[Dict[str, Any]]:
    """Rows of the same model: omegas over seeds by the batches of a training, and by one
    padded batch of the same draw, against those of WHOLE tokens without padding."""
    task, model = task_and_model(layers, width, options)
    task.load_dataset("train", combine=True)
    dataset = task.datasets["train"]
    order = np.random.default_rng(1).permutation(len(dataset))
    order = order[: np.searchsorted(np.cumsum(dataset.src_sizes[order]), WHOLE)]
    groups = grouped(np.asarray(dataset.sizes)[order], padded=1)
    unpadded = [dataset.collater([dataset[order[i]] for i in group]) for group in groups]
    whole = np.mean([omegas(model, task, unpadded, seed) for seed in range(3)], axis=0)
    limits = model.max_positions()

    draws = {
        "grouped": lambda seed: task.profile_batches(model, seed),
        "one batch": lambda seed: [draw_batch(dataset, TOKENS, limits, seed)],
    }
    for how, draw in draws.items():
        found = np.array([omegas(model, task, draw(s), s) for s in range(options.seeds)]) / whole
        yield {
            "draw": how,
            "corpus": Path(options.profile).resolve().parent.name,
            "layers": "{}-{}".format(*stacks(layers)),
            "width": width,
            "seeds": options.seeds,
            "mean": [round(float(x), 5) for x in (found.mean(0).min(), found.mean(0).max())],
            "std": round(float(found.std(0, ddof=1).max()), 5),
            "whole_tokens": int(dataset.src_sizes[order].sum()),
        }


def bench_profiles(options: Namespace) -> Iterator[Dict[str, Any]]:
    """Rows of all sizes."""
    rows = bench_bias if options.seeds else bench_time
    for width, layers in product(options.widths, options.layers):
        yield from rows(layers, width, options)
