"""Which back-translations are kept."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))  # no package

from corpora.monolingual import plausible, visible_devices  # noqa: E402

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
