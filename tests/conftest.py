"""Fixtures that both tiers share."""

import gc
import os
import random
import subprocess
from pathlib import Path

import forks
import pytest
from filelock import FileLock

PAIRS = {"train": 300, "valid": 30, "test": 30}
TYPES = 60
WORDS = (3, 14)  # fewest and most words of a source sentence


# Files that take longest, first: no worker has such a one for itself at the end.
LONGEST = ["test_run.py", "test_readme.py", "test_prepare.py", "test_serving.py", "test_hydra.py"]


def pytest_collection_modifyitems(items) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays: no collection looks at it again
    gc.set_threshold(50_000, 20, 100)  # configurations are many small objects, and no cycles


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """`shared(name, make)`: a folder that `make(folder)` fills once for all workers."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder_of(name, make) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def commands(shared) -> Path:
    """A folder of the environment's commands that start at once: see forks.py."""
    until = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return shared("bin", lambda folder: forks.serve(folder, until))


@pytest.fixture(scope="session")
def corpus(commands, shared) -> Path:
    """A folder of binarized de-en text: random words, target the source reversed but its last
    word. A joined dictionary; made by the real `fairseq-preprocess`."""
    return shared("corpus", lambda folder: binarize(commands, folder)) / "binarized"


def binarize(commands: Path, folder: Path) -> None:
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
