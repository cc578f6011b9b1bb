"""What surrounds the model: lines as they are read, settings of a folder, progress."""

import gzip
import io
import json
import os
import threading
from dataclasses import replace

import pytest
from fairseq.tokenizer import tokenize_line
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from corpora.corpus import load_corpus
from corpora.prepare import write_manifest
from fairseq_admin.errors import UserError
from fairseq_admin.serving.served import FORMAT, SETTINGS, Settings, steps_of
from fairseq_admin.serving.translate import CHUNK, Progress, cut, read_lines


def lines_of(*parts, **given):
    """What `read_lines` makes of a pipe into which *parts* are written one after the other."""
    reader, writer = os.pipe()

    def write():
        with open(writer, "wb", buffering=0) as f:
            for part in parts:
                f.write(part)

    thread = threading.Thread(target=write)
    thread.start()
    lines = [line for line in read_lines(reader, **given) if line is not None]
    thread.join()
    os.close(reader)
    return lines


@pytest.mark.parametrize(
    "data, lines",
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"\n\na\n \n", ["", "", "a", " "]),
        (b"a\r\nb\r\n\r\n", ["a", "b", ""]),
        (b"a\rb\r\r\n", ["a\rb\r"]),
        ("a\u2028b\x0bc\x85d\u2029e\n".encode(), ["a\u2028b\x0bc\x85d\u2029e"]),
        (b"a\xff\xfeb\nc\n", ["a\ufffd\ufffdb", "c"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"\xef\xbb\xbf", [""]),
        (b"a\n\xff\xfe\n", ["a", "\ufffd\ufffd"]),
    ],
)
def test_lines_end_in_newline_alone(data, lines):
    assert lines_of(data) == lines


@pytest.mark.parametrize(
    "data, line", [("Grüße\n".encode("utf-16"), 1), ("中文".encode("utf-16"), 1), (b"a\n\0\n", 2)]
)
def test_what_is_no_utf_8_at_all_is_refused(data, line):
    with pytest.raises(UserError, match=f"line {line} of the input is UTF-16 or no text.*iconv"):
        lines_of(data)


def test_what_is_gzipped_is_said_to_be():
    with pytest.raises(UserError, match="gzipped: give what zcat"):
        lines_of(gzip.compress(b"a dog\n"))


def test_pieces_are_cut_as_fairseq_preprocess_reads_them(tmp_path):
    """A piece of text that is not normalized may hold whitespace, as before French punctuation."""
    (tmp_path / "text").write_text("un mot\u00a0; deux mots\u3000; un\u2028mot\u00a0;\n" * 50)
    options = {"normalization_rule_name": "identity", "vocab_size": 35, "model_type": "bpe"}
    SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spm"), **options, minloglevel=2
    )
    model = SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    line = "deux mots\u00a0; un mot\u3000;"
    pieces = model.encode(line, out_type=str)
    assert any(piece.split() != [piece] for piece in pieces)
    assert cut(model, line) == tokenize_line(" ".join(pieces)) != pieces
    assert cut(model, " \t\u00a0\u2028") == [] != model.encode(" \t\u00a0\u2028")


def test_bytes_that_cannot_be_read_are_told_once():
    said = []
    lines_of(b"a\nb\xff\nc\n\xfe\n", say=said.append)
    assert said == ["line 2 is no UTF-8: what cannot be read is U+FFFD, in others too"]


def test_a_character_or_line_may_come_in_pieces():
    long = "ü" * CHUNK  # two bytes each, of which a read takes half
    assert lines_of(b"x", long.encode(), b"y\nz\n") == [f"x{long}y", "z"]


def test_a_pause_is_told_and_nothing_is_lost():
    reader, writer = os.pipe()
    lines = read_lines(reader)
    late = threading.Timer(5, os.write, (writer, b"late\n"))  # seconds; else a mistake would hang
    late.start()
    os.write(writer, b"one\ntw")
    assert next(lines) == "one"
    assert [next(lines), next(lines)] == [None, None]  # no read that a signal could be late for
    late.cancel()
    os.write(writer, b"o\n")
    assert next(lines) == "two"
    os.write(writer, b"three")
    os.close(writer)
    assert list(lines) == ["three"]
    os.close(reader)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_returns_the_cursor_on_a_terminal_alone():
    for stream, returns in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream)
        for _ in range(3):
            progress.told -= 100  # as if so many seconds had passed
            progress.add(2)
        progress.say("a note")
        assert ("\r" in stream.getvalue()) is returns
        assert "3 lines" in stream.getvalue() and stream.getvalue().endswith("a note\n")
        assert stream.getvalue().count("\n") == (1 if returns else 4)


def test_progress_is_silent_in_between():
    stream = io.StringIO()
    progress = Progress(stream)
    for _ in range(1000):
        progress.add(1)
    assert stream.getvalue() == ""


@pytest.fixture
def folder(tmp_path):
    """A folder with settings and the files they need, all of them empty."""
    for name in ("model.bin", "config.json", "spm.model"):
        (tmp_path / name).touch()
    Settings("de", "en", 1024, 512, "spm.model", None, "int8").save(tmp_path)
    return tmp_path


def test_settings_are_read_as_written(folder):
    assert Settings.load(folder) == Settings("de", "en", 1024, 512, "spm.model", None, "int8")


def test_folders_that_are_not_whole(folder):
    for name in ("model.bin", "config.json", "spm.model", SETTINGS):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(UserError, match=name):
            Settings.load(folder)
        (folder / name).write_bytes(content)
    Settings.load(folder)
    with pytest.raises(UserError, match="no such folder"):
        Settings.load(folder / "nowhere")


@pytest.mark.parametrize(
    "change, told",
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}"),
        ({"unknown": 1}, "damaged.*unknown"),
        ({"source_positions": "many"}, "damaged.*source_positions"),
        ({"source_lang": None}, "damaged.*source_lang"),
        ({"target_sentencepiece": 3}, "damaged.*target_sentencepiece"),
        ({"moses": "uppercase"}, "damaged.*uppercase"),
        ({"text": "uppercase"}, "damaged.*uppercase"),
        ({"text": {}}, "damaged.*text"),
        ({"source_positions": 0}, "damaged.*source_positions"),
        ({"source_positions": float("inf")}, "damaged"),
        ({"model": float("nan")}, "damaged"),
    ],
)
def test_settings_that_say_nonsense(folder, change, told):
    record = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**record, **change}))
    with pytest.raises(UserError, match=told) as error:
        Settings.load(folder)
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "moses, text",
    [(None, None), ("", "moses"), ("aggressive lowercase", "moses aggressive lowercase")],
)
def test_settings_of_an_earlier_release(folder, moses, text):
    record = json.loads((folder / SETTINGS).read_text())
    del record["text"]
    (folder / SETTINGS).write_text(json.dumps({**record, "moses": moses}))
    assert Settings.load(folder).text == text


@pytest.fixture
def data(tmp_path):
    """A folder of binarized data, beside the manifest of a corpus of the given treatment."""

    def make(**treatment):
        (tmp_path / "bin").mkdir()
        treatment = {"moses": True, "normalize": True, **treatment}
        write_manifest(replace(load_corpus("own"), **treatment), {}, tmp_path)
        return tmp_path / "bin"

    return make


@pytest.mark.parametrize(
    "treatment, said",
    [
        ({}, "normalize moses"),
        ({"aggressive": True, "lowercase": True}, "normalize moses aggressive lowercase"),
        ({"tokenized": True}, "moses"),
        ({"moses": False, "normalize": False}, ""),
    ],
)
def test_a_manifest_says_what_text_went_through(data, treatment, said):
    assert steps_of(data(**treatment)) == said


def test_without_a_manifest_the_option_says_it(tmp_path):
    assert steps_of(tmp_path / "bin") is None
    assert steps_of(tmp_path / "bin", []) == "moses"
    assert steps_of(tmp_path / "bin", ["lowercase", "normalize"]) == "normalize moses lowercase"
    (tmp_path / "manifest.json").write_text('{"short_name": "a page"}')  # of another program
    assert steps_of(tmp_path / "bin", ["aggressive"]) == "moses aggressive"


def test_an_option_that_contradicts_the_manifest(data):
    folder = data()
    assert steps_of(folder, []) == steps_of(folder, ["normalize"]) == "normalize moses"
    for moses in (["aggressive"], ["normalize", "lowercase"]):
        with pytest.raises(UserError, match="by other steps than --moses says .normalize moses"):
            steps_of(folder, moses)


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, '{"corpus": {}}', '{"corpus": 1}'])
def test_a_damaged_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json is damaged"):
        steps_of(tmp_path / "bin")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"3", b'{"format": 1}', b"[" * 100000, b"\xff\xfe\x00"]
)
def test_settings_that_are_none(folder, data):
    (folder / SETTINGS).write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        Settings.load(folder)
