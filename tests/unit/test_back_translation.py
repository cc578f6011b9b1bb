"""Which back-translations are kept."""

from dataclasses import replace

import pytest

from corpora.corpus import load_corpus
from corpora.monolingual import (
    BackTranslation,
    Options,
    plausible,
    visible_devices,
)
from fairseq_admin.errors import UserError

PAIRS = {
    "as long": ("a b c", "x y z", True),
    "half as long again": ("a b", "x y z", True),
    "more than that": ("a b", "x y z v", False),
    "the same the other way round": ("a b c d", "x y", False),
    "nothing": ("", "x", False),
    "the longest": ("a " * 250, "x " * 250, True),
    "too long": ("a " * 251, "x " * 250, False),
    "an unknown word": ("a <unk> c", "x y z", False),
    "a word with the sign in it": ("a <unk>s c", "x y z", True),
    "a copy": ("x y z", "x y z", False),
    "a copy but for a word": ("x y v", "x y z", True),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_pair_may_be_a_translation(case):
    translation, original, kept = PAIRS[case]
    assert plausible(f"{translation}\n", f"{original}\n") is kept


def test_gpus_are_those_that_the_user_left(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert visible_devices(2) == ["3", "5"]


def test_shards_of_so_many_lines(tmp_path, monkeypatch):
    """Down to a single line, and none is an error."""
    (tmp_path / "spm").mkdir()
    (tmp_path / "spm" / "spm.model").write_bytes(b"model")
    corpus = replace(load_corpus("own"), languages=("de", "en"))
    options = Options(shard_lines=2, decoders=1, decoding="", cpu=True, processes=1)
    for lines, shards in ((1, [1]), (2, [2]), (5, [2, 2, 1])):
        back = BackTranslation(corpus, tmp_path, tmp_path / str(lines), options)
        monkeypatch.setattr(back, "pieces", lambda files, n=lines: iter(["a"] * n))
        assert back.shards([])["lines"] == lines
        written = sorted((tmp_path / str(lines) / "mono").glob("0*"))
        assert [len(path.read_text().splitlines()) for path in written] == shards
    monkeypatch.setattr(back, "pieces", lambda files: iter([]))
    with pytest.raises(UserError, match="no monolingual text"):
        BackTranslation.shards(back, [tmp_path / "spm" / "spm.model"])
