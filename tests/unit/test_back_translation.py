"""What is translated back, which translations are kept, and where they lie then."""

import json
import sys
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from fairseq.data import data_utils
from helpers import checkpoint_of, randomized

import corpora.prepare
from corpora import subwords
from corpora.corpus import Text, corpus_of, load_corpus
from corpora.monolingual import BackTranslation, plausible
from corpora.parallel import visible_devices
from corpora.preparation import Preparation
from corpora.prepare import write_manifest
from corpora.steps import combined, discard, run_command, run_step, sha256
from fairseq_admin.errors import UserError
from recipes.back_translation import main, monolingual

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
    """Once a shard; beside the bitext as it was, in fairseq's format."""
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
        assert link.samefile(bitext / link.name) and not link.is_symlink()
        data = data_utils.load_indexed_dataset(
            str(back.out / "bin" / f"train1.de-en.{lang}"), words
        )
        assert [line.tolist() for line in data] == [[words.index(word), words.eos()]] * 2
    discard(bitext)  # made anew: no text in ids of one dictionary beside another dictionary
    assert (back.out / "bin" / "train.de-en.de.bin").read_bytes() == b"bitext"
    (back.out / "translations" / "00000").write_text("▁a\n▁c\n", encoding="utf-8")
    with pytest.raises(UserError, match="translations/00000 has 2 lines, not 3: remove it"):
        back.filter(mono)
    (back.out / "translations" / "00000").write_text("▁b\n▁b\n<unk>\n", encoding="utf-8")
    (back.out / "translations" / "00001").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no back-translation could be used"):
        back.filter(mono)


ENGLISH = """A man is walking his dog along the river.
Two children are playing with a red ball in the park.
The woman with the hat is reading a newspaper.
Many people are waiting for the train at the station.
An old man is sitting on a bench and feeding the birds.
The girl in the blue dress is smiling at the camera.
Three young men are playing music in the street.
A dog is running through the snow with a stick.
She is standing in front of a large house.
Several workers are building a wall of stone.
A boy is jumping into the water of the lake.
The teacher is writing something on the board."""
GERMAN = """Ein Mann geht mit seinem Hund am Fluss entlang.
Zwei Kinder spielen im Park mit einem roten Ball.
Die Frau mit dem Hut liest eine Zeitung.
Viele Menschen warten am Bahnhof auf den Zug.
Ein alter Mann sitzt auf einer Bank und füttert die Vögel.
Das Mädchen im blauen Kleid lächelt in die Kamera.
Drei junge Männer machen auf der Straße Musik.
Ein Hund läuft mit einem Stock durch den Schnee.
Sie steht vor einem großen Haus.
Mehrere Arbeiter bauen eine Mauer aus Stein.
Ein Junge springt in das Wasser des Sees.
Der Lehrer schreibt etwas an die Tafel."""
MORE_ENGLISH = ["The children are feeding a small bird.", "Some women are waiting in the snow."]
MORE_GERMAN = ["Die Kinder füttern einen kleinen Vogel.", "Einige Frauen warten im Schnee."]


@pytest.fixture(scope="module")
def bitext(tmp_path_factory):
    """Really prepared."""
    folder = tmp_path_factory.mktemp("bitext")
    for lang, text in (("de", GERMAN), ("en", ENGLISH)):
        (folder / f"text.{lang}").write_text(f"{text}\n" * 3, encoding="utf-8")
    files = (Text((str(folder / "text.de"), str(folder / "text.en"))),)
    corpus = load_corpus("own").with_texts({"train": files, "valid": files}, ("de", "en"))
    corpus = replace(corpus, subwords=150)
    write_manifest(corpus, Preparation(corpus, folder, 1).run(), folder)
    return folder


@pytest.fixture
def translate(bitext, tmp_path, monkeypatch):
    """Runs the command on monolingual text with a model of such languages."""

    def translate(languages, lines, **task_state):
        model, cfg = randomized()
        state = checkpoint_of(model, cfg, task_state=task_state)
        state["cfg"]["task"].update(zip(("source_lang", "target_lang"), languages))
        torch.save(state, tmp_path / "reverse.pt")
        (tmp_path / "mono").write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
        command = ["back_translate.py", tmp_path / "reverse.pt", "--data", bitext, "--cpu"]
        command += ["--monolingual", tmp_path / "mono", "--output", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        monkeypatch.setattr(corpora.prepare, "find_spec", lambda name: None)  # nothing is generated
        main()

    return translate


def test_a_model_of_another_direction_translates_nothing(translate, tmp_path):
    for languages in (("de", "en"), ("en", "fr"), (None, None)):  # None: as DATA is called
        found = "from en to fr" if "fr" in languages else "from de to en"
        with pytest.raises(UserError, match=f"reverse.pt translates {found}, .* model of en to de"):
            translate(languages, MORE_ENGLISH)
        assert not (tmp_path / "out").exists()


def test_a_model_of_other_dictionaries_translates_nothing(translate, tmp_path):
    with pytest.raises(UserError, match="reverse.pt was trained with other dictionaries than"):
        translate(
            ("en", "de"), MORE_ENGLISH, text={"languages": ["en", "de"], "dictionaries": ["?", "?"]}
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lines", [MORE_GERMAN * 9, MORE_GERMAN * 9 + MORE_ENGLISH[:1]])
def test_text_of_the_source_language_is_not_translated(translate, tmp_path, lines):
    with pytest.raises(UserError, match="mono looks like de, but the text .* is of en"):
        translate(("en", "de"), lines)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["back-translation.lock"]


@pytest.mark.parametrize("option", ["--shard-lines", "--decoders", "--processes"])
def test_none_of_it_is_refused(option, monkeypatch, capsys):
    command = ["back_translation.sh", "model.pt", "--data", ".", "--output", "o", option, "0"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"{option}: give 1 or more" in capsys.readouterr().err


def test_no_package_to_generate_a_sample_by_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora.prepare, "find_spec", lambda name: None)
    options = Namespace(monolingual=None, mirror=None, sample=True, output=tmp_path)
    with pytest.raises(UserError, match="no babel and no num2words here"):
        monolingual(load_corpus("wmt14_en_fr"), options)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def mono(bitext, tmp_path):
    """The subwords of a file of bytes, joined again."""
    options = Namespace(shard_lines=1, decoders=1, decoding="", cpu=True, processes=1)
    corpus = corpus_of(json.loads((bitext / "manifest.json").read_text(encoding="utf-8"))["corpus"])

    def mono(data, **more):
        (tmp_path / "mono").write_bytes(data if isinstance(data, bytes) else data.encode())
        back = BackTranslation(replace(corpus, **more), bitext, tmp_path, options)
        found = back.pieces([tmp_path / "mono"])
        return [line.replace(" ", "").replace("▁", " ").strip() for line in found]

    return mono


def test_lines_that_are_left_out_are_counted(bitext, tmp_path):
    corpus = corpus_of(json.loads((bitext / "manifest.json").read_text(encoding="utf-8"))["corpus"])
    (tmp_path / "mono").write_text("the dog\n\n" + "the dog " * 130 + "\n")
    options = Namespace(shard_lines=1, decoders=1, decoding="", cpu=True, processes=1)
    made = BackTranslation(corpus, bitext, tmp_path / "out", options).shards([tmp_path / "mono"])
    assert (made["lines"], made["left_out"]) == (1, 2)


def test_text_of_the_target_language_is_taken(mono):
    """However short, and with foreign words in it."""
    for line in (*ENGLISH.splitlines(), *MORE_ENGLISH, MORE_ENGLISH[0] + " Vogel"):
        assert len(mono(line)) == 1
    assert len(mono("\n".join([*MORE_ENGLISH, "Ein Hund"]))) == 3


def test_monolingual_text_is_read_as_bitext_is(mono):
    """Markup by its bytes; what is no text is one line, and so are too many unreadable lines."""
    rows = ["The woman is reading .", "A boy is jumping ."]
    segments = "".join(f'<seg id="{i}"> {row} </seg>\n' for i, row in enumerate(rows))
    tags = "<talkid>1</talkid>\n<url>x</url>\n" + "\n".join(rows)
    for content in ("\n".join([*rows, "", ""]), f"<doc>\n{segments}</doc>\n", tags):
        assert mono(content) == rows
    for data, message in (
        ("a dog\n".encode("utf-16"), "mono is UTF-16"),
        (b"the dog\rthe boy\r", "mono ends its lines with CR alone"),
        (b"the dog\n\xe4\n", "mono, line 2: no UTF-8.*1 of 2 lines"),
    ):
        with pytest.raises(UserError, match=message):
            mono(data)
    assert mono(b"the dog\n\xe4\n", unreadable=0.5) == ["the dog"]


def test_translations_of_others_stay(back):
    for name in ("00000", "00001"):
        (back.out / "translations" / name).unlink()
    (back.out / "translations" / "news.nl").touch()
    with pytest.raises(UserError, match="translations was not made here: give another --output"):
        back.translate({"files": {"00000": 1}}, back.model)
    assert (back.out / "translations" / "news.nl").exists()


def test_what_killed_processes_left_of_translations_goes(back, tmp_path):
    """Also beside shards that are finished."""
    mono, model = {"files": {"00000": 1, "00001": 2}}, back.model
    folder = back.out / "translations"
    digest = combined(mono["files"], sha256(model), back.options.decoding)
    (folder / "digest").write_text(digest, encoding="utf-8")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "00000.partial").mkdir()
    (folder / "00000.partial" / "generate.txt").write_text("H-0")
    (folder / "00001.node.1234.partial").write_text("half")
    back.translate(mono, model)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_command_that_fails_is_its_last_words(tmp_path):
    with open(tmp_path / "out", "w") as f:
        run_command(["sh", "-c", 'echo "$A" $0; echo warned >&2', tmp_path], f, {"A": "1"})
    assert (tmp_path / "out").read_text() == f"1 {tmp_path}\n"
    with pytest.raises(UserError, match="sh failed with 3: last$"):
        run_command(["/bin/sh", "-c", "echo first >&2; echo last >&2; exit 3"])
    with pytest.raises(UserError, match="false failed with 1"):
        run_command(["false"])
