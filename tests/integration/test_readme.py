"""The README's commands run, at tiny sizes; its numbers are those of the records."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
SIZES = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_layers": 2}
SIZES = {**SIZES, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
FLAGS = " ".join(f"--{name.replace('_', '-')} {size}" for name, size in SIZES.items())


def block_with(command: str) -> str:
    """The README's block that holds *command*."""
    return next(block for block in BLOCKS if command in block)


def tiny(block: str) -> str:
    """The same commands with tiny sizes, few updates and no GPU."""
    block = re.sub(r"(--arch \S+)", rf"\1 {FLAGS} --cpu", block)
    block = re.sub(r"--max-update \d+", "--max-update 3", block)
    block = block.replace("fairseq-generate data-bin", "fairseq-generate data-bin --cpu")
    block = block.replace("--config-dir configs", f"--config-dir {ROOT}/configs")
    block = block.replace("$PWD/fairseq_admin", f"{ROOT}/fairseq_admin")
    block = block.replace("$PWD/runs/demo/data/bin", "$PWD/data-bin")
    overrides = " ".join(f"model.{name}={size}" for name, size in SIZES.items())
    return re.sub(r"(--config-name \S+)", rf"\1 optimization.max_update=3 {overrides}", block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder with text files, and what the README's first command makes of them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "text").mkdir()
    rng = random.Random(1)
    for split, pairs in (("train", 200), ("valid", 20), ("test", 20)):
        lines = [" ".join(rng.choices("abcdefgh", k=rng.randint(2, 9))) for _ in range(pairs)]
        for lang in ("de", "en"):
            (folder / "text" / f"{split}.{lang}").write_text("\n".join(lines) + "\n")
    bash(block_with("fairseq-preprocess"), folder)
    return folder


def bash(block: str, folder: Path) -> str:
    """Run *block* as a user would, with this environment's commands on the PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_train_and_generate(folder):
    out = bash(tiny(block_with("fairseq-generate")), folder)
    assert "encoder.layers.1.ffn" in out  # the table of omegas
    assert len(re.findall(r"^D-\d+", out, flags=re.MULTILINE)) == 20


def test_profile_and_omega_file(folder):
    out = bash(tiny(block_with("fairseq-admin profile")), folder)
    profile = json.loads((folder / "profile.json").read_text())
    omega = profile["stacks"]["decoder"]["sublayers"][-1]["omega"]
    table = re.findall(r"decoder\.layers\.1\.ffn +\S* +(\S+)", out)
    assert table == [f"{omega:.4f}"] * 2  # once profiled, once from the file
    assert (folder / "omegas.png").exists()


def test_hydra(folder):
    bash(tiny(block_with("fairseq-hydra-train")), folder)
    assert (folder / "runs" / "mine" / "checkpoint_last.pt").exists()


def test_torchrun_on_cpus(folder):
    out = bash(tiny(block_with("--nproc_per_node 2 bash")), folder)
    assert "training on 2 devices" in out


def test_scripts_and_links_exist():
    for script in re.findall(r"bash (scripts/\S+\.sh)", README):
        assert (ROOT / script).exists()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_numbers_are_those_of_the_records():
    """Every number with two or three decimals in a table or caption."""
    recorded = set()
    for path in (ROOT / "results").glob("**/*.json"):
        record = json.loads(path.read_text())
        for run in record.get("runs", {}).values():
            recorded |= {f"{run['bleu']:.2f}", f"{run['train_ppl'][-1][1]:.2f}"}
        for row in record.get("rows", []):
            recorded |= {f"{row['ratio']:.3f}", f"{row['profile_steps']:.2f}"}
            recorded |= {f"{quartile:.2f}" for quartile in row["ratio_quartiles"]}
    lines = [line for line in README.splitlines() if line.startswith(("|", "*The demo"))]
    printed = set(re.findall(r"(?<![\d.`])\d+\.\d{2,3}(?![\d.])", "\n".join(lines)))
    assert len(printed) > 20 and printed <= recorded, printed - recorded
