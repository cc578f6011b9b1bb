"""Which back-translations are kept, and where they lie then."""

from argparse import Namespace
from dataclasses import replace

import pytest
from fairseq.data import data_utils

from corpora import subwords
from corpora.corpus import load_corpus
from corpora.monolingual import (
    BackTranslation,
    plausible,
    visible_devices,
)
from corpora.steps import run_command, run_step
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
    options = Namespace(shard_lines=2, decoders=1, decoding="", cpu=True, processes=1)
    for lines, shards in ((1, [1]), (2, [2]), (5, [2, 2, 1])):
        back = BackTranslation(corpus, tmp_path, tmp_path / str(lines), options)
        monkeypatch.setattr(back, "pieces", lambda files, n=lines: iter(["a"] * n))
        assert back.shards([])["lines"] == lines
        written = sorted((tmp_path / str(lines) / "mono").glob("0*"))
        assert [len(path.read_text().splitlines()) for path in written] == shards
    monkeypatch.setattr(back, "pieces", lambda files: iter([]))
    with pytest.raises(UserError, match="no monolingual text"):
        BackTranslation.shards(back, [tmp_path / "spm" / "spm.model"])


@pytest.fixture
def back(tmp_path):
    """Two translated shards beside a bitext of the same subwords."""
    data, out = tmp_path / "data", tmp_path / "out"
    for folder in (data / "spm", out / "mono", out / "translations"):
        folder.mkdir(parents=True)
    for lang in ("de", "en"):
        (tmp_path / f"train.{lang}").write_text("haus baum katze hund tisch\n" * 50)
    paths = [tmp_path / "train.de", tmp_path / "train.en"]
    subwords.train(paths, 50, data / "spm" / "spm.model", 24, 1.0)

    def make(folder):
        for lang in ("de", "en"):
            subwords.dictionary(data / "spm" / "spm.model").save(str(folder / f"dict.{lang}.txt"))
            (folder / f"train.de-en.{lang}.bin").write_bytes(b"bitext")
        return {}

    run_step(data / "bin", "1", make)
    shards = {"00000": [("▁a", "▁b"), ("▁a", "▁b"), ("▁c", "▁c")], "00001": [("▁a", "▁b")]}
    for name, pairs in shards.items():
        for side, folder in enumerate(("translations", "mono")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (out / folder / name).write_text(text, encoding="utf-8")
    corpus = replace(load_corpus("own"), languages=("de", "en"))
    return BackTranslation(
        corpus, data, out, Namespace(shard_lines=1, decoders=1, decoding="", cpu=True, processes=1)
    )


def test_pairs_that_stay_and_where_they_lie(back):
    """Once a shard; beside links to the bitext, in fairseq's format."""
    mono = {"files": {"00000": 1, "00001": 2}}
    pairs = back.filter(mono)
    assert (pairs["pairs"], pairs["left_out"]) == (2, 2)
    assert (back.out / "pairs" / "train.de").read_text(encoding="utf-8") == "▁a\n▁a\n"
    made, bitext = back.binarize(pairs)["files"], back.data / "bin"
    names = {f"{n}.de-en.{lang}" for n in ("train", "train1") for lang in ("de", "en")}
    assert {name[:-4] for name in made} == {*names, "dict.de", "dict.en"}
    words = subwords.dictionary(back.model)
    for lang, word in (("de", "▁a"), ("en", "▁b")):
        link = back.out / "bin" / f"train.de-en.{lang}.bin"
        assert link.is_symlink() and link.samefile(bitext / link.name)
        data = data_utils.load_indexed_dataset(
            str(back.out / "bin" / f"train1.de-en.{lang}"), words
        )
        assert [line.tolist() for line in data] == [[words.index(word), words.eos()]] * 2
    (back.out / "translations" / "00000").write_text("▁b\n▁b\n<unk>\n", encoding="utf-8")
    (back.out / "translations" / "00001").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no back-translation could be used"):
        back.filter(mono)


def test_monolingual_text_is_read_as_bitext_is(back, tmp_path):
    """Markup by its bytes; what is no text is one line, and so are too many unreadable lines."""
    path, rows = tmp_path / "mono", ["haus baum", "katze"]
    segments = "".join(f'<seg id="{i}"> {row} </seg>\n' for i, row in enumerate(rows))
    tags = "<talkid>1</talkid>\n<url>x</url>\n" + "\n".join(rows)
    for content in ("\n".join([*rows, "", ""]), f"<doc>\n{segments}</doc>\n", tags):
        path.write_text(content, encoding="utf-8")
        pieces = [line.replace(" ", "").replace("▁", " ").strip() for line in back.pieces([path])]
        assert pieces == rows
    for data, message in (
        ("ä\n".encode("utf-16"), "mono is UTF-16"),
        (b"a\rb\r", "mono ends its lines with CR alone"),
        (b"haus\n\xe4\n", "mono, line 2: no UTF-8.*1 of 2 lines"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            list(back.pieces([path]))
    path.write_bytes(b"haus\n\xe4\n")
    back.corpus = replace(back.corpus, unreadable=0.5)
    assert len(list(back.pieces([path]))) == 1


def test_a_command_that_fails_is_its_last_words(tmp_path):
    with open(tmp_path / "out", "w") as f:
        run_command(["sh", "-c", 'echo "$A" $0; echo warned >&2', tmp_path], f, {"A": "1"})
    assert (tmp_path / "out").read_text() == f"1 {tmp_path}\n"
    with pytest.raises(UserError, match="sh failed with 3: last$"):
        run_command(["/bin/sh", "-c", "echo first >&2; echo last >&2; exit 3"])
    with pytest.raises(UserError, match="false failed with 1"):
        run_command(["false"])
