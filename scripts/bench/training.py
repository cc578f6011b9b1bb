"""A training step of a residual method against another model, for scripts/bench.py."""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import torch
from fairseq import tasks
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.trainer import Trainer

from fairseq_admin.arguments import training_config
from fairseq_admin.checkpoints.random_text import dictionary
from fairseq_admin.profiling import named_junctions
from fairseq_admin.residuals.admin import AdminResidual

PLAIN = "fairseq"  # its own `transformer`, beside the methods of `transformer_admin`
VOCABULARY = 4000  # types
LENGTHS = (10, 41)  # tokens a sentence, uniform


def make_batch(words: Dictionary, tokens: int) -> dict:
    """A batch of random sentences whose padded size is about *tokens* on each side."""
    rng = np.random.default_rng(1)
    count = max(1, tokens // (LENGTHS[1] - 1))
    sides = []
    for _ in range(2):
        lengths = rng.integers(*LENGTHS, size=count)
        sides.append([torch.from_numpy(rng.integers(4, VOCABULARY, n)) for n in lengths])
    source, target = sides
    sizes = [np.array([len(s) for s in side]) for side in sides]
    dataset = LanguagePairDataset(source, sizes[0], words, target, sizes[1], words)
    return dataset.collater([dataset[i] for i in range(count)])


def stacks(layers: str) -> Tuple[int, int]:
    """Layers of the encoder and of the decoder: of both by one number, or as in 60-12."""
    encoder, _, decoder = layers.partition("-")
    return int(encoder), int(decoder or encoder)


def sizes(layers: str, width: int) -> str:
    """The options of fairseq-train for a model of these layers and channels."""
    encoder, decoder = stacks(layers)
    heads = max(1, width // 64)
    return f"""--encoder-layers {encoder} --decoder-layers {decoder} --encoder-embed-dim {width}
        --encoder-ffn-embed-dim {4 * width} --encoder-attention-heads {heads}
        --decoder-attention-heads {heads}"""


def make_trainer(method: str, layers: str, width: int, options: argparse.Namespace) -> Trainer:
    """A fairseq Trainer for *method* or PLAIN, with `options.options` of fairseq-train; omegas get
    values that need the multiplication."""
    arch = "transformer" if method == PLAIN else f"transformer_admin --residual {method}"
    with tempfile.TemporaryDirectory() as folder:
        for lang in ("de", "en"):
            dictionary(VOCABULARY).save(f"{folder}/dict.{lang}.txt")
        arguments = f"""{folder} --arch {arch} --task translation -s de -t en
            --criterion label_smoothed_cross_entropy --distributed-world-size 1
            --label-smoothing 0.1 --optimizer adam --adam-betas (0.9,0.98) --lr 1e-4
            --lr-scheduler fixed --max-tokens {options.tokens} --share-all-embeddings
            {sizes(layers, width)} --dropout {options.dropout} {options.options}"""
        if options.dtype == "fp16":
            arguments += " --fp16"
        if not torch.cuda.is_available():
            arguments += " --cpu"
        cfg = training_config(arguments.split(), any_task=True)
        cfg.common.bf16 = options.dtype == "bf16"  # on the command line it would mean a TPU
        task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    model.omegas_set = True
    for junctions in named_junctions(model).values():
        trained = (j for j in junctions.values() if isinstance(j, AdminResidual))
        for i, junction in enumerate(trained):
            junction.fill((1 + 0.4 * i) ** 0.5)  # as if every Var(f) were 0.4
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    trainer.begin_epoch(1)
    return trainer


def paired(ratios: List[float]) -> Dict[str, Any]:
    """Median and quartiles of what each pair came to, as a row has them."""
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    quartiles = [round(low, 4), round(high, 4)]
    return {"ratio": round(ratio, 4), "ratio_quartiles": quartiles, "pairs": len(ratios)}


def timed(function) -> float:
    """Wall seconds of *function*, the GPU's work included."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def bench(method: str, layers: str, width: int, options: argparse.Namespace) -> dict:
    """Measure *method* at one size; times in seconds, memory in MB."""
    other = argparse.Namespace(**{**vars(options), "options": ""})
    other.dtype = options.against_dtype or options.dtype
    models = {
        True: (method, layers, width, options),
        False: (options.against, layers, width, other),
    }
    trainers = {own: make_trainer(*model) for own, model in models.items()}
    batch = make_batch(trainers[True].task.source_dictionary, options.tokens)
    for trainer in trainers.values():
        for _ in range(options.warmup):
            trainer.train_step([batch])
    seconds = {own: [] for own in trainers}
    for pair in range(options.pairs):
        for own in (True, False) if pair % 2 else (False, True):
            seconds[own].append(timed(lambda own=own: trainers[own].train_step([batch])))
    step = {own: statistics.median(times) for own, times in seconds.items()}
    peak = {own: peak_memory(*model) for own, model in models.items()}
    return {
        "method": method,
        "options": options.options,
        "against": options.against,
        "against_dtype": other.dtype,
        "layers": "{}-{}".format(*stacks(layers)),
        "width": width,
        "dropout": options.dropout,
        "tokens": batch["ntokens"],
        "tokens_per_s": round(batch["ntokens"] / step[True]),
        "against_tokens_per_s": round(batch["ntokens"] / step[False]),
        **paired([f / a for a, f in zip(seconds[True], seconds[False])]),
        "peak_mb": peak[True],
        "against_peak_mb": peak[False],
        "step_s": round(step[True], 4),
    }


def peak_memory(method: str, layers: str, width: int, options: argparse.Namespace) -> int:
    """Peak memory of two training steps in a process of their own, in MB: of the GPU, or the
    resident set of the process."""
    command = [sys.executable, sys.argv[0], "--peak-of", method, "--layers", layers]
    command += ["--widths", str(width), "--tokens", str(options.tokens)]
    command += [f"--options={options.options}"]
    command += ["--dtype", options.dtype, "--dropout", str(options.dropout)]
    command += ["--threads", str(torch.get_num_threads())]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()[-1])


def print_peak(options: argparse.Namespace) -> None:
    """What the process started by :func:`peak_memory` does."""
    size = options.layers[0], options.widths[0]
    trainer = make_trainer(options.peak_of, *size, options)
    trainer.cuda_env = None  # for which the trainer forgets the peak after each update
    for _ in range(2):
        trainer.train_step([make_batch(trainer.task.source_dictionary, options.tokens)])
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() // 2**20)
    else:
        # not getrusage's ru_maxrss, which a child inherits from its parent
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s*(\d+) kB", status).group(1)) // 2**10)


def bench_training(options: argparse.Namespace) -> Iterator[dict]:
    """Rows of all sizes and methods."""
    for width, layers, method in product(options.widths, options.layers, options.methods):
        yield bench(method, layers, width, options)
