"""Fixtures that both tiers share."""

import random
import subprocess
from pathlib import Path

import forks
import pytest

PAIRS = {"train": 300, "valid": 30, "test": 30}
TYPES = 60
WORDS = (3, 14)  # fewest and most words of a source sentence


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Path:
    """A folder of the environment's commands that start at once: see forks.py."""
    folder = tmp_path_factory.mktemp("bin")
    server = forks.serve(folder)
    yield folder
    server.communicate(b"end", timeout=20)
    assert server.returncode == 0


@pytest.fixture(scope="session")
def corpus(commands, tmp_path_factory) -> Path:
    """A folder of binarized de-en text: random words, target the source reversed but its last
    word. A joined dictionary; made by the real `fairseq-preprocess`."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(TYPES)]
    for split, pairs in PAIRS.items():
        sources = [rng.choices(words, k=rng.randint(*WORDS)) for _ in range(pairs)]
        targets = [source[:-1][::-1] for source in sources]
        for lang, sentences in (("de", sources), ("en", targets)):
            text = "".join(" ".join(sentence) + "\n" for sentence in sentences)
            (folder / f"{split}.{lang}").write_text(text)
    binarized = folder / "binarized"
    command = [commands / "fairseq-preprocess", "--source-lang", "de"]
    command += ["--target-lang", "en", "--joined-dictionary", "--destdir", binarized]
    for split in PAIRS:
        command += [f"--{split}pref", folder / split]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return binarized
