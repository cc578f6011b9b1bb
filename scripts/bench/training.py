"""Speed of residual methods, Admin's or others, against fairseq's own Post-LN transformer.

Both models train on the same batch of random tokens in one process, in turn (A B, B A, ...), each
step through fairseq's Trainer: forward, loss, backward, gradient norm, optimizer. Prints a JSON
line a size and method with medians; `ratio` is the method's tokens/s over fairseq's, pair by pair,
with its quartiles. The profiling pass (on the CPU, the reading of its sentences not counted), where
the method has one, is given in training steps of as many tokens. `linearity` is the step time per
layer over that of the first depth.

Usage: python scripts/bench.py [--layers 6 18] [--widths 64 128 256] [--pairs 20] [--dtype bf16]
           [--methods admin deepnorm]
       python scripts/bench.py --decode CHECKPOINT DATA_BIN [--pairs 3] [--threads 1]
       python scripts/bench.py --prepare TEXT.de TEXT.en [--corpus wmt14_en_fr] [--subwords 40000]

The second decodes the test set with fairseq-generate's generator and with the exported model
(CTranslate2, float32 and int8), in turn, beam 5. The third times the steps of scripts/prepare.sh on
a text: tokens, subwords, binarizing.
"""

import argparse
import json
import logging
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import List

import numpy as np
import torch
from fairseq import options, tasks
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer

import fairseq_admin
from fairseq_admin.checkpoints.random_text import dictionary
from fairseq_admin.files import whole_file
from fairseq_admin.methods import METHODS
from fairseq_admin.profiling import named_junctions, profile_model, profiled
from fairseq_admin.residuals.admin import AdminResidual

PLAIN = "fairseq"  # its own `transformer`, beside the methods of `transformer_admin`
VOCABULARY = 4000  # types
LENGTHS = (10, 41)  # tokens a sentence, uniform


def make_batch(words: Dictionary, tokens: int, seed: int = 1) -> dict:
    """A batch of random sentences whose padded size is about *tokens* on each side."""
    rng = np.random.default_rng(seed)
    count = max(1, tokens // (LENGTHS[1] - 1))
    sides = []
    for _ in range(2):
        lengths = rng.integers(*LENGTHS, size=count)
        sides.append([torch.from_numpy(rng.integers(4, VOCABULARY, n)) for n in lengths])
    source, target = sides
    sizes = [np.array([len(s) for s in side]) for side in sides]
    dataset = LanguagePairDataset(source, sizes[0], words, target, sizes[1], words)
    return dataset.collater([dataset[i] for i in range(count)])


def make_trainer(method: str, layers: int, width: int, options_: argparse.Namespace) -> Trainer:
    """A fairseq Trainer for *method* or PLAIN; omegas get values that need the multiplication."""
    arch = "transformer" if method == PLAIN else f"transformer_admin --residual {method}"
    with tempfile.TemporaryDirectory() as folder:
        for lang in ("de", "en"):
            dictionary(VOCABULARY).save(f"{folder}/dict.{lang}.txt")
        arguments = f"""{folder} --user-dir {fairseq_admin.__path__[0]} --arch {arch}
            --task translation -s de -t en --criterion label_smoothed_cross_entropy
            --label-smoothing 0.1 --optimizer adam --adam-betas (0.9,0.98) --lr 1e-4
            --lr-scheduler fixed --max-tokens {options_.tokens} --share-all-embeddings
            --encoder-layers {layers} --decoder-layers {layers} --encoder-embed-dim {width}
            --encoder-ffn-embed-dim {4 * width} --encoder-attention-heads {max(1, width // 64)}
            --decoder-attention-heads {max(1, width // 64)} --dropout {options_.dropout}"""
        if options_.dtype == "fp16":
            arguments += " --fp16"
        if not torch.cuda.is_available():
            arguments += " --cpu"
        args = options.parse_args_and_arch(options.get_training_parser(), arguments.split())
        cfg = convert_namespace_to_omegaconf(args)
        cfg.common.bf16 = options_.dtype == "bf16"  # on the command line it would mean a TPU
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


def timed(function) -> float:
    """Wall seconds of *function*, the GPU's work included."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def bench(method: str, layers: int, width: int, options_: argparse.Namespace) -> dict:
    """Measure *method* at one size; times in seconds, memory in MB."""
    models = (method, PLAIN)
    trainers = {m: make_trainer(m, layers, width, options_) for m in models}
    batch = make_batch(trainers[method].task.source_dictionary, options_.tokens)
    for trainer in trainers.values():
        for _ in range(options_.warmup):
            trainer.train_step([batch])
    seconds = {m: [] for m in models}
    for pair in range(options_.pairs):
        for m in models if pair % 2 else models[::-1]:
            seconds[m].append(timed(lambda m=m: trainers[m].train_step([batch])))
    step = {m: statistics.median(seconds[m]) for m in models}
    low, ratio, high = statistics.quantiles(
        [f / a for a, f in zip(seconds[method], seconds[PLAIN])], n=4
    )
    task, profile = trainers[method].task, {}
    fresh = task.build_model(trainers[method].cfg.model).cpu().float()
    if profiled(fresh):
        taken = statistics.median(
            timed(lambda: profile_model(fresh, batch["net_input"], task.src_dict.pad(), 1))
            for _ in range(3)
        )
        profile["profile_steps"] = round(taken / step[method], 2)
    return {
        "method": method,
        "layers": layers,
        "width": width,
        "tokens": batch["ntokens"],
        **{f"{m}_tokens_per_s": round(batch["ntokens"] / step[m]) for m in models},
        "ratio": round(ratio, 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "pairs": options_.pairs,
        **{f"{m}_peak_mb": peak_memory(m, layers, width, options_) for m in models},
        "step_s": round(step[method], 4),
        **profile,
    }


def peak_memory(method: str, layers: int, width: int, options_: argparse.Namespace) -> int:
    """Peak memory of two training steps in a process of their own, in MB: of the GPU, or the
    resident set of the process."""
    command = [sys.executable, sys.argv[0], "--peak-of", method, "--layers", str(layers)]
    command += ["--widths", str(width), "--tokens", str(options_.tokens)]
    command += ["--dtype", options_.dtype, "--dropout", str(options_.dropout)]
    command += ["--threads", str(torch.get_num_threads())]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()[-1])


def print_peak(options_: argparse.Namespace) -> None:
    """What the process started by :func:`peak_memory` does."""
    trainer = make_trainer(options_.peak_of, options_.layers[0], options_.widths[0], options_)
    for _ in range(2):
        trainer.train_step([make_batch(trainer.task.source_dictionary, options_.tokens)])
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() // 2**20)
    else:
        # not getrusage's ru_maxrss, which a child inherits from its parent
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s*(\d+) kB", status).group(1)) // 2**10)


def bench_training(options_: argparse.Namespace) -> List[dict]:
    """Rows of all sizes and methods; their step time per layer over that of the first depth."""
    rows: List[dict] = []
    for width, layers, method in product(options_.widths, options_.layers, options_.methods):
        row = bench(method, layers, width, options_)
        rows.append(row)
        first = next(r for r in rows if (r["width"], r["method"]) == (width, method))
        per_layer = [r["step_s"] / r["layers"] for r in (row, first)]
        row["linearity"] = round(per_layer[0] / per_layer[1], 3)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 18], help="of each stack")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128, 256])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["admin"])
    parser.add_argument("--tokens", type=int, default=2000, help="padded tokens of the batch")
    parser.add_argument("--pairs", type=int, default=20, help="counted steps of each model")
    parser.add_argument("--warmup", type=int, default=3, help="steps of each model not counted")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, help="on the CPU")
    parser.add_argument("--decode", nargs=2, metavar=("CHECKPOINT", "DATA"), help="an Admin model")
    parser.add_argument("--subset", default="test", help="of DATA, to decode")
    parser.add_argument("--prepare", nargs=2, type=Path, metavar="FILE", help="two aligned files")
    parser.add_argument("--corpus", default="wmt14_en_fr", help="as which they are treated")
    parser.add_argument("--subwords", type=int, help="types (default: of --corpus)")
    parser.add_argument("--output", help="JSON file of all rows")
    parser.add_argument("--peak-of", choices=[*METHODS, PLAIN], help=argparse.SUPPRESS)
    options_ = parser.parse_args()
    logging.disable(logging.WARNING)
    if options_.threads:
        torch.set_num_threads(options_.threads)
    if options_.peak_of:
        print_peak(options_)
        return
    if options_.prepare:
        from bench.preparation import bench_preparation

        record = bench_preparation(options_)
        print(json.dumps(record))
    else:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        record = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
        if options_.decode:
            from bench.decoding import bench_decoding as measure  # needs CTranslate2

            record["ctranslate2"] = version("ctranslate2")
        else:
            record["dtype"], measure = options_.dtype, bench_training
        print(json.dumps(record))
        record["rows"] = measure(options_)
    if options_.output:
        with whole_file(options_.output) as f:
            f.write(json.dumps(record, indent=1) + "\n")
