"""`fairseq-admin doctor` at the size that it is for: 18-18 and 512 channels, 32,000 types."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TYPES, PAIRS, LENGTHS = 32_000, 2000, (10, 45)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Random sentences whose words are as frequent as their rank tells, binarized."""
    folder = tmp_path_factory.mktemp("random")
    rng = random.Random(1)
    words = [f"w{rank}" for rank in range(TYPES)]
    weights = [1 / (rank + 10) for rank in range(TYPES)]
    for lang in ("en", "de"):
        lines = (rng.choices(words, weights, k=rng.randint(*LENGTHS)) for _ in range(PAIRS))
        (folder / f"train.{lang}").write_text("".join(f"{' '.join(line)}\n" for line in lines))
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    command = [BIN / "fairseq-preprocess", "-s", "en", "-t", "de", "--joined-dictionary"]
    command += ["--trainpref", folder / "train", "--srcdict", folder / "dict.txt"]
    subprocess.run([*command, "--destdir", folder / "bin"], check=True, stdout=subprocess.DEVNULL)
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "verdict"),
    [
        ("wmt14_en_de_post_ln_18l", "will not learn"),
        ("wmt14_en_de_admin_18l", "will learn"),
        ("wmt14_en_de_pre_ln_18l", "will learn"),
        ("wmt14_en_de_post_ln_6l", "will learn"),
    ],
)
def test_it_says_what_is_published(text, recipe, verdict):
    """Liu et al. 2020, Very Deep Transformers: 18-18 Post-LN diverges, the others train."""
    command = [BIN / "fairseq-admin", "doctor", "--json", "--config-dir", ROOT / "configs"]
    command += ["--config-name", recipe, f"task.data={text}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert json.loads(done.stdout)["verdict"] == verdict
