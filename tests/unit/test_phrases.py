"""The generated demo corpus: reproducible, a function from German to English, clean splits."""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from corpora.corpus import load_corpus

pytest.importorskip("babel")
pytest.importorskip("num2words")

FOLDER = Path(__file__).resolve().parents[2] / "data" / "phrases"
SIZES = {"train": 24000, "valid": 500, "test": 1000}
Corpus = "dict[str, list[tuple[str, str]]]"  # split name to (German, English) pairs


def generate(
    out_dir: Path, *options: str, folder: Path = FOLDER, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs generate.py in a process of its own."""
    command = [sys.executable, str(folder / "generate.py"), str(out_dir), *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **env}
    )


def read(out_dir: Path) -> Corpus:
    """The splits as lists of (German, English); strict about lines that do not align."""
    corpus = {}
    for split in SIZES:
        texts = [(out_dir / f"{split}.{lang}").read_bytes().decode() for lang in ("de", "en")]
        german, english = (text.split("\n") for text in texts)
        assert german.pop() == english.pop() == ""  # the last line ends in a newline
        assert len(german) == len(english)
        corpus[split] = list(zip(german, english))
    return corpus


@pytest.fixture(scope="session")
def out_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phrases") / "raw"
    result = generate(folder, PYTHONHASHSEED="1", LC_ALL="C", LANGUAGE="de", TZ="Asia/Tokyo")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def corpus(out_dir: Path) -> Corpus:
    return read(out_dir)


def test_files_have_the_committed_sums(out_dir: Path) -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    committed = {name: digest for digest, name in (line.split() for line in lines)}
    made = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out_dir.iterdir()}
    assert made == committed
    assert len(made) == 6


def test_sizes_and_alignment(corpus: Corpus) -> None:
    assert {split: len(pairs) for split, pairs in corpus.items()} == SIZES
    for de, en in (pair for pairs in corpus.values() for pair in pairs):
        assert de.strip() == de and en.strip() == en and de and en
        assert de[-1] == en[-1] and de[-1] in ".?"


def test_corpus_yaml_takes_all_of_it(out_dir: Path) -> None:
    described = load_corpus("phrases")
    files = [name for texts in described.sides().values() for t in texts for name in t.files]
    assert sorted(files) == sorted(path.name for path in out_dir.iterdir())
    assert described.lines == SIZES and (FOLDER / described.generator).is_file()


def test_no_sentence_occurs_twice(corpus: Corpus) -> None:
    sources = {split: {de for de, _ in pairs} for split, pairs in corpus.items()}
    assert {split: len(unique) for split, unique in sources.items()} == SIZES
    for one, other in combinations(SIZES, 2):
        assert not sources[one] & sources[other]


def test_train_covers_test(corpus: Corpus) -> None:
    known = {char for de, en in corpus["train"] for char in de + en}
    assert known >= {char for de, en in corpus["test"] for char in de + en}
    # Numbers and compounds are open; everything else must have been seen.
    words = {word for de, _ in corpus["train"] for word in de.split()}
    tested = [word for de, _ in corpus["test"] for word in de.split()]
    assert sum(word in words for word in tested) > 0.95 * len(tested)


def test_only_plain_spaces(corpus: Corpus) -> None:
    text = "".join(de + en for pairs in corpus.values() for de, en in pairs)
    assert {char for char in text if char.isspace()} == {" "}
    assert "  " not in text


class CoarseRandom(random.Random):
    """Chooses among the first few only, so that frames often repeat a German sentence."""

    def choice(self, seq):
        return super().choice(seq[:2])

    def sample(self, population, k):
        return super().sample(population[:3], k)

    def randrange(self, start, stop=None):
        start, stop = (0, start) if stop is None else (start, stop)
        return super().randrange(start, min(stop, start + 3))


def test_mapping_is_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    rng, english, draws = CoarseRandom(1), {}, 0
    for frame in importlib.import_module("frames").FRAMES:
        for _ in range(300):
            pair = frame(rng)
            draws += 1
            assert english.setdefault(pair.de, pair.en) == pair.en
    assert len(english) < 0.8 * draws  # many sentences were indeed drawn again


def test_complete_folder_is_left_alone(out_dir: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in out_dir.iterdir()}
    result = generate(out_dir)
    assert result.returncode == 0 and "already complete" in result.stdout
    assert before == {path.name: path.stat().st_mtime_ns for path in out_dir.iterdir()}


def test_damaged_folder_is_mended(out_dir: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "raw"
    shutil.copytree(out_dir, damaged)
    (damaged / "test.en").write_text("cut off")
    (damaged / "train.de").unlink()
    assert generate(damaged).returncode == 0
    for path in out_dir.iterdir():
        assert (damaged / path.name).read_bytes() == path.read_bytes()


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = generate(tmp_path)
    assert result.returncode == 1 and "thesis.txt" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_sums_fail_in_one_line(tmp_path: Path) -> None:
    copy = tmp_path / "phrases"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    lexicon = copy / "lexicon.py"
    lexicon.write_text(lexicon.read_text(encoding="utf-8").replace('"Anna"', '"Hanna"'))
    result = generate(tmp_path / "raw", folder=copy)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    for part in ("test.de", "SHA256SUMS", "Babel pinned", "num2words pinned"):
        assert part in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phrases"]  # nothing half made


def test_other_seed_gives_other_text_and_splits(corpus: Corpus, tmp_path: Path) -> None:
    assert generate(tmp_path / "raw", "--seed", "2").returncode == 0
    other = read(tmp_path / "raw")
    assert {split: len(pairs) for split, pairs in other.items()} == SIZES
    everything = {pair for pairs in corpus.values() for pair in pairs}
    assert len(everything & {pair for pairs in other.values() for pair in pairs}) < 5000
    assert len(set(corpus["test"]) & set(other["test"])) < 100
    assert not set(other["train"]) & set(other["test"])
