"""What only a CUDA device can show; skipped without one."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import utils

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRECISIONS = {
    "fp16": ["common.fp16=true"],
    "memory-efficient fp16": ["common.fp16=true", "common.memory_efficient_fp16=true"],
    "bf16": ["common.bf16=true"],
    "memory-efficient bf16": ["common.bf16=true", "common.memory_efficient_bf16=true"],
}


def run(*command, **kwargs) -> str:
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.parametrize("precision", PRECISIONS)
def test_loss_falls_and_profiled_omegas_train_in_half_precision(precision, corpus, tmp_path):
    if precision.startswith("memory") and utils.multi_tensor_l2norm_available:
        pytest.skip("apex: refused")
    log = run(
        Path(sys.executable).parent / "fairseq-hydra-train",
        *("--config-dir", ROOT / "configs", "--config-name", "demo_admin"),
        *(f"task.data={corpus}", f"checkpoint.save_dir={tmp_path}", f"hydra.run.dir={tmp_path}"),
        *(f"common.user_dir={ROOT / 'fairseq_admin'}", "common.cpu=false"),
        "distributed_training.distributed_world_size=1",
        *("optimization.max_update=60", "lr_scheduler.warmup_updates=20", *PRECISIONS[precision]),
    )
    losses = [float(x) for x in re.findall(r"\[train_inner\].*?[, ]loss=([\d.]+)", log)]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0] - 0.2
    state = torch.load(tmp_path / "checkpoint_last.pt", map_location="cpu", weights_only=True)
    stack = state["task_state"]["profile"]["stacks"]["encoder"]["sublayers"]
    for sublayer in stack[1:]:
        omega = state["model"][f"{sublayer['name']}_residual.omega"].float()
        # it trained, from where the profile put it
        assert omega.std() > 0 and abs(omega.mean().item() - sublayer["omega"]) < 0.2


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_bench_runs_both_streams(dtype, tmp_path):
    output = tmp_path / "bench.json"
    run(
        *(sys.executable, ROOT / "scripts" / "bench.py", "--layers", 2, "--widths", 64),
        *("--pairs", 4, "--dtype", dtype, "--output", output),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    row = json.loads(output.read_text())["rows"][0]
    assert row["tokens_per_s"] > 0 and row["against_tokens_per_s"] > 0
