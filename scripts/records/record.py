"""record.json of an evaluated run: what it takes to make it again, and what came out."""

import hashlib
import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict

import fairseq
import torch

from corpora.steps import BINARIZED, sha256
from fairseq_admin.analysis.course import Curves
from fairseq_admin.analysis.logs import read_curves
from fairseq_admin.checkpoints.checkpoint import read_checkpoint
from fairseq_admin.checkpoints.facts import portable, training_facts
from fairseq_admin.errors import UserError
from fairseq_admin.scoring.outputs import read_output
from fairseq_admin.serving.export import languages
from fairseq_admin.text import read_json
from recipes.code import ROOT
from recipes.ends import outcome_of, target_entropy

CODE = ("fairseq_admin", "scripts", "configs", "data", "studies")  # what decides a run
PACKAGES = ("fairseq_admin", "torch", "sacrebleu", "sacremoses", "numpy")


def git(*arguments: str) -> str:
    """What git says of this checkout, nothing where it is none, or there is no git."""
    given = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    try:
        ours = ["git", "-c", f"safe.directory={ROOT}"]  # somebody else's it may be
        top = subprocess.run([*ours, "rev-parse", "--show-toplevel"], **given).stdout.strip()
        if not top or Path(top).resolve() != ROOT:
            return ""
        return subprocess.run([*ours, *arguments], **given).stdout.strip()
    except OSError:
        return ""


def data_sha256(folder: Path) -> str:
    """Hash of all binarized files, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in BINARIZED):
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def hardware(common: Dict[str, Any]) -> str:
    """The GPU that fairseq decodes on by its options *common*, or the processor."""
    if torch.cuda.is_available() and not common.get("cpu"):
        return torch.cuda.get_device_name()
    cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return f"{len(os.sched_getaffinity(0))} cores of {cpu[0] if cpu else platform.processor()}"


def fold_result(folder: Path) -> Dict[str, Any]:
    """What the fold printed, and how many translations of the folded model are the same."""
    names = ("generate.txt", "folded.txt")
    unfolded, folded = (read_output(str(folder / name))[0] for name in names)
    same = sum(a == b for a, b in zip(unfolded, folded))
    difference = (folder / "fold.txt").read_text(encoding="utf-8").splitlines()[0]
    return {"difference": difference, "same_translations": same}


def trained_record(run: Path, checkpoint: Path, data: Path) -> Dict[str, Any]:
    """What the *run* was, on which data, and how it ended (None where nothing tells that), where
    *checkpoint* is its result."""
    state = read_checkpoint(str(checkpoint))
    try:
        curves = read_curves(str(run))
    except UserError:
        curves = Curves([], [])
    last = run / ("crash.pt" if curves.crashed else "checkpoint_last.pt")
    ended = read_checkpoint(str(last)) if last.exists() else state
    facts, config = training_facts(state)
    config = portable(config)
    common = config.get("common") or {}  # none of the time before hydra
    facts.update({k: training_facts(ended)[0][k] for k in ("updates", "wall_seconds")})
    entropy = target_entropy(data, *languages(state, str(data)))
    updates = (config.get("optimization") or {}).get("max_update") or None
    kind, known = outcome_of(curves, entropy, updates) if curves else (None, None)
    if entropy is None and kind == "trained":  # or stuck: the data that tell are not here
        kind = known = None
    return {
        "name": run.name,
        **facts,
        "outcome": kind,
        "known": known,
        "unigram_bits": entropy and round(entropy, 4),
        "commit": (commit := git("rev-parse", "HEAD")),
        "dirty": bool(git("status", "--porcelain", "--", *CODE)) if commit else None,
        "hardware": hardware(common),
        "precision": next((x for x in ("bf16", "fp16") if common.get(x)), "fp32"),
        "versions": {
            "python": platform.python_version(),
            "fairseq": fairseq.__version__,
            **{name: version(name) for name in PACKAGES},
        },
        "config": config,
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "data_sha256": data_sha256(data),
        "checkpoint": checkpoint.name,
        "averaged": (state.get("extra_state") or {}).get("averaged"),
        "profile": portable((state.get("task_state") or {}).get("profile")),
        "train_ppl": curves.train,
        "valid_ppl": curves.valid,
        **dict.fromkeys(("averaging", "decoding", "sentences", "distinct", "scores", "fold")),
    }


def evaluated_record(
    run: Path, folder: Path, checkpoint: Path, data: Path, averaging: str, decoding: str
) -> Dict[str, Any]:
    """The record of the evaluation in *folder* of the *run*'s *checkpoint*, made by `average` with
    the options *averaging* (empty: by training) and decoded on *data* with the flags *decoding*."""
    record = trained_record(run, checkpoint, data)
    score = read_json(folder / "score.json")
    return {
        **record,
        "averaging": averaging or None,
        "decoding": decoding,
        **{key: score[key] for key in ("sentences", "distinct", "scores")},
        "fold": fold_result(folder) if (folder / "fold.txt").exists() else None,
    }


def summary(record: Dict[str, Any]) -> str:
    """The record in a few lines."""
    if not record["scores"]:
        return f"{record['name']}: {record['outcome']}, known at update {record['known']}"
    bleu, n = record["scores"]["bleu"], record["sentences"]
    lines = [f"{record['name']}: BLEU {bleu['score']:.2f} on {n} sentences, {bleu['signature']}"]
    if record["fold"]:
        lines.append(record["fold"]["difference"])
        lines.append(f"folded, {record['fold']['same_translations']} of {n} translations the same")
    return "\n".join(lines)
