"""What a recipe costs: parameters, FLOPs, memory, hours, disk. docs/costs.md explains the numbers.

Usage:   python scripts/costs.py [--check]    write results/costs.json, or compare it
Inputs:  scripts/recipes/recipes.yaml, configs/, data/*/corpus.yaml,
         results/bench/{cpu,gpu*}.json

fairseq builds the recipe's model on torch's device `meta`, which has shapes and no values; it takes
a training step on one GPU's batch, whose FLOPs and living bytes are counted operator by operator.
"""

import argparse
import json
import logging
import math
import sys
from typing import Any, Dict, List, Tuple

from omegaconf import OmegaConf

from bench.training import LENGTHS, VOCABULARY, make_batch, stacks
from corpora.corpus import load_corpus
from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file
from fairseq_admin.text import read_json
from recipes.configs import load_config
from recipes.launch import tokens_of
from recipes.recipes import COSTS, load_recipes
from records.counting import Count, build, count

SPECIAL, MULTIPLE = 4, 8  # types that fairseq adds to a dictionary; its size is a multiple of this
ASSUMED = {
    "subwords": 28,  # a sentence of a side, its end too; IWSLT'14 has 24.9, of known counts
    # subwords, mean of both sides, over max_tokens: 107,543 pairs of TED talks in fairseq's batches
    "fill": 0.85,
    "text_bytes_a_subword": 4.1,  # those talks: 23,289,530 bytes in 5,678,495 subwords
    # those talks, 24.8 MB: themselves, tokenized 26.4, in subwords 39.9, binarized 15.1
    "disk_bytes_a_text_byte": 4.3,
}
ANCHOR_GPU = "A100"  # of the first of these; it gives the speed
ANCHORS = (  # RealFormer, appendix
    {"recipe": "wmt14_en_de_admin_18l", "gpus": 4, "published_hours": 23, "epochs": 50},
    {"recipe": "wmt14_en_fr_admin_60l_12l", "gpus": 16, "published_hours": 70, "epochs": 50},
)
FP16_STATE = 2 + 4 + 4 + 8  # bytes a parameter: fp16 and fp32 weight, fp32 gradient, two moments
FP32_STATE = 4 + 8  # bytes a parameter: weight, two moments
BUCKETS = 2  # bytes a parameter: fp16 gradients on their way between GPUs
CHECKPOINT, MODEL = 12, 4  # bytes a parameter: fp32 and two moments; fp32 alone
GB, MB = 1e9, 2**20  # bytes; the second as scripts/bench.py has it


def hours_on(flops: float, flops_per_s: float, devices: int = 1) -> float:
    """Hours that *devices* take, each at *flops_per_s*."""
    return flops / (flops_per_s * devices) / 3600


def memory_of(counted: Count, gpus: int) -> float:
    """Bytes on each of *gpus* GPUs: 18 x parameters (fairseq's FP16Optimizer, RAdam), 2 x in DDP on
    several, and the step's peak: activations, logits, loss, fp16 gradients (2 x), temporaries."""
    return (FP16_STATE + BUCKETS * (gpus > 1)) * counted.parameters + counted.peak


class Costs:
    """All that is counted of the recipe *name*."""

    def __init__(self, name: str, facts: Dict[str, Any]) -> None:
        self.name, self.facts = name, facts
        self.config = load_config(name)
        self.corpus = load_corpus(facts["corpus"])
        if "train" not in self.corpus.lines:
            told = f"give `lines: {{train: PAIRS}}` in data/{facts['corpus']}/corpus.yaml"
            raise UserError(f"{name}: how many pairs are there to train on? {told}")
        self.vocabulary = math.ceil((self.corpus.subwords + SPECIAL) / MULTIPLE) * MULTIPLE
        self.gpus = self.config.distributed_training.distributed_world_size
        tokens, length = self.config.dataset.max_tokens, ASSUMED["subwords"]
        self.batch = tokens_of(self.config)
        self.count = count(self.config.model, self.vocabulary, (tokens // length, length))
        self.update_flops = self.count.flops / (tokens // length * length) * self.batch

    def updates(self, epochs: int = 0) -> int:
        """Of the recipe, to its max_epoch or max_update, whichever is first; or of *epochs*."""
        pairs = self.corpus.lines["train"] * self.config.task.get("upsample_primary", 1)
        epoch = math.ceil(pairs * ASSUMED["subwords"] / (ASSUMED["fill"] * self.batch))
        limits = self.config.optimization
        last = math.inf if epochs else limits.get("max_update") or math.inf
        return min(epoch * (epochs or limits.max_epoch), last)

    def flops(self, epochs: int = 0) -> float:
        """Of the whole recipe, or of *epochs*."""
        return self.update_flops * self.updates(epochs)

    def row(self, speeds: List[Dict[str, Any]]) -> Dict[str, Any]:
        """The record, with the hours on as many GPUs as the recipe has, or on one CPU."""
        parameters, hours = self.count.parameters, {}
        for s in speeds:
            devices = self.gpus if s["gpu"] else 1
            hours[s["hardware"]] = round(hours_on(self.flops(), s["flops_per_s"], devices), 1)
        downloads = sum(source.size or 0 for source in self.corpus.sources.values())
        text = (
            2 * self.corpus.lines["train"] * ASSUMED["subwords"] * ASSUMED["text_bytes_a_subword"]
        )
        kept = self.config.checkpoint.keep_last_epochs + 2  # the best and the last
        checkpoints = parameters * (kept * CHECKPOINT + 2 * MODEL)  # their mean, and that folded
        return {
            "recipe": self.name,
            "layers": f"{self.config.model.encoder_layers}-{self.config.model.decoder_layers}",
            "parameters": parameters,
            "vocabulary": self.vocabulary,
            "gpus": self.gpus,
            "batch": self.batch,
            "updates": self.updates(),
            "update_tflop": round(self.update_flops / 1e12, 2),
            "memory_gb": round(memory_of(self.count, self.gpus) / GB, 1),
            "hours": hours,
            "corpus_gb": round((downloads + text * ASSUMED["disk_bytes_a_text_byte"]) / GB, 1),
            "checkpoints_gb": round(checkpoints / GB, 1),
            "at_least": "reverse" in self.facts,  # the back-translated text is not counted
            "published": self.facts["published"],
            "source": self.facts["source"],
            "checked": self.facts["checked"],
        }


def measured(record: Dict[str, Any]) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    """Of Admin's rows in a record of scripts/bench.py: the speed with the largest model, and the
    peak memory in MB of each, counted and measured."""
    memory, longest = [], LENGTHS[1] - 1
    rows = [row for row in record["rows"] if row["method"] == "admin"]
    for row in sorted(rows, key=lambda r: (r["width"], stacks(r["layers"]))):
        model = {"_name": "transformer_admin", "share_all_embeddings": True, "dropout": 0.1}
        model.update(encoder_embed_dim=row["width"], encoder_ffn_embed_dim=4 * row["width"])
        for stack, layers in zip(("encoder", "decoder"), stacks(row["layers"])):
            model[f"{stack}_layers"] = layers
            model[f"{stack}_attention_heads"] = max(1, row["width"] // 64)
        model = OmegaConf.create(model)
        words, least = build(model, VOCABULARY)[1], row["tokens"] // longest
        batches = (make_batch(words, longest * n) for n in range(least, row["tokens"]))
        batch = next(b for b in batches if b["ntokens"] == row["tokens"])
        counted = count(model, VOCABULARY, batch["target"].shape, "float")
        line = {k: row[k] for k in ("layers", "width", "peak_mb")}
        line["counted_mb"] = round((FP32_STATE * counted.parameters + counted.peak) / MB)
        memory.append(line)
    cpu = record["device"] == "CPU"
    name = f"{record['threads']} CPU cores" if cpu else record["device"]
    fp32 = record["dtype"] == "fp32"
    if cpu and not fp32:
        name += f", {record['dtype']}"
    rate = round(counted.flops / row["step_s"], -9)
    return {"hardware": name, "gpu": not cpu, "flops_per_s": rate}, memory if cpu and fp32 else []


def costs() -> Dict[str, Any]:
    """All of results/costs.json."""
    recipes = {name: Costs(name, facts) for name, facts in load_recipes().items()}
    paths = sorted(COSTS.parent.glob("bench/[cg]pu*.json"))
    bench = [measured(read_json(path)) for path in paths]
    flops = [recipes[a["recipe"]].flops(a["epochs"]) for a in ANCHORS]
    seconds = ANCHORS[0]["gpus"] * ANCHORS[0]["published_hours"] * 3600
    anchor = {"hardware": ANCHOR_GPU, "gpu": True, "flops_per_s": round(flops[0] / seconds, -9)}
    hours = [hours_on(f, anchor["flops_per_s"], a["gpus"]) for f, a in zip(flops, ANCHORS)]
    speeds = [speed for speed, _ in bench] + [anchor]
    return {
        "assumed": ASSUMED,
        "speeds": speeds,
        "anchors": [{**a, "estimate": round(h, 1)} for a, h in zip(ANCHORS, hours)],
        "memory": [line for _, lines in bench for line in lines],
        "rows": [recipe.row(speeds) for recipe in recipes.values()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="exit 1 where the file is not this")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    text = json.dumps(costs(), indent=1) + "\n"
    if not options.check:
        with whole_file(str(COSTS)) as f:
            f.write(text)
    elif not COSTS.exists() or COSTS.read_text(encoding="utf-8") != text:
        sys.exit("costs: results/costs.json is out of date: run python scripts/costs.py")
