"""scripts/prepare.sh from a real server to binarized data: right, or one line and nothing that
looks finished."""

import functools
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import threading
import time
import traceback
from argparse import Namespace
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary, data_utils
from helpers import checkpoint_of, dictionary, randomized, wait_for
from omegaconf import OmegaConf

import corpora.prepare
from bench.preparation import bench_preparation
from corpora import fetch, parallel, preparation, subwords, text
from corpora.corpus import DATA, load_corpus
from corpora.preparation import STEPS, Preparation

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

FORK = multiprocessing.get_context("fork")  # a fresh process takes seconds to import fairseq
HANGS = 100  # seconds; a run takes one to three
INPUTS = ("downloads", "extracted", "generated")
TALK = 100  # lines
EVERY = 23  # of iwslt14_de_en
TESTS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
HEAD = "<url>http://x/{0}</url>\n<keywords>a, b</keywords>\n<speaker>x</speaker>\n"
HEAD += "<talkid>{0}</talkid>\n<title>title {0}</title>\n<description>about {0}</description>\n"
WORDS = ["haus", "baum", "straße", "größe", "wasser", "licht", "zeit", "don't", "e-mail", "u.s."]


def lines(count, seed=1):
    """*count* pairs, both sides with the number by which they are known."""
    rng = random.Random(seed)
    for i in range(count):
        words = " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))
        yield f"Satz {i} {words} .".encode(), f"Line {i} {words} .".encode()


def segments(pairs, side):
    """A file of NIST's XML."""
    body = b"".join(
        b'<seg id="%d"> %s </seg>\n' % (i, pair[side]) for i, pair in enumerate(pairs, 1)
    )
    return b'<?xml version="1.0"?>\n<mteval>\n<doc docid="1">\n' + body + b"</doc>\n</mteval>\n"


def iwslt(train=(), test=(), change=lambda name, data: data, prefix=""):
    """IWSLT's archive of training pairs, in talks, and of test pairs, in the first test set."""
    train = list(train or lines(600))
    members = {}
    for side, lang in enumerate(("de", "en")):
        data = b""
        for i in range(0, len(train), TALK):
            data += HEAD.format(i // TALK).encode()
            data += b"".join(pair[side] + b"\n" for pair in train[i : i + TALK])
        members[f"train.tags.de-en.{lang}"] = data
        for i, name in enumerate(TESTS):
            pairs = test if test and not i else list(lines(4, seed=i))
            members[f"IWSLT14.{name}.de-en.{lang}.xml"] = segments(pairs, side)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            data = change(name, data)
            info = tarfile.TarInfo(f"{prefix}de-en/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, without ranges; of each answer at most `server.cut` bytes."""

    def copyfile(self, source, outputfile):
        outputfile.write(source.read()[: self.server.cut])
        if self.server.cut:
            self.close_connection = True

    def log_message(self, *args):
        pass


def entries(folder, sha256=None, **given):
    """iwslt14_de_en's corpus.yaml as that of the corpus `tiny`, for a tiny archive."""
    found = OmegaConf.to_container(OmegaConf.load(DATA / "iwslt14_de_en" / "corpus.yaml"))
    found["sources"]["de-en.tgz"] = {"url": "http://127.0.0.1:1/de-en.tgz", "sha256": sha256}
    path = folder / "data" / "tiny" / "corpus.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save({**found, "lines": {}, "subwords": 120, **given}, path)


def child(log, arguments, data, before):
    """The command in this process, after *before*, as a shell would see it; output to *log*."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["prepare.py", *map(str, arguments)]
    corpora.prepare.load_corpus = functools.partial(load_corpus, data=data)
    corpora.prepare.DATA = data
    code = 0
    try:
        before()
        corpora.prepare.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        print(error.code)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@pytest.fixture
def prepare(tmp_path):
    """Runs the command in a process group of its own: its exit code and output, or, unless it is
    to *wait*, the process."""

    def prepare(*arguments, data=DATA, before=lambda: None, wait=True):
        log = tmp_path / "log"
        process = FORK.Process(target=child, args=(log, arguments, data, before))
        process.start()
        if not wait:
            return process
        process.join(HANGS)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            pytest.fail(f"hangs: {log.read_text()}")
        output = log.read_text()
        return SimpleNamespace(code=process.exitcode, output=output, lines=output.splitlines())

    return prepare


@pytest.fixture
def site(tmp_path, monkeypatch, prepare):
    """A server of the archive `site.put` gives; `site.prepare` runs the command on it."""
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.cut = None
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        entries(tmp_path)

        def prepare_it(*more, **options):
            command = ["tiny", "--mirror", mirror, "--processes", "2", "--output", tmp_path / "out"]
            return prepare(*command, *more, data=tmp_path / "data", **options)

        yield SimpleNamespace(
            put=lambda data: (folder / "de-en.tgz").write_bytes(data),
            prepare=prepare_it,
            server=server,
            out=tmp_path / "out",
            entries=functools.partial(entries, tmp_path),
        )
        server.shutdown()


def refused(result, out, *words):
    """A run ended in one line with *words* and left nothing that looks finished; what it left."""
    assert result.code == 1 and len(result.lines) == 1, result.output
    for word in words:
        assert word in result.output
    left = {p.name for p in out.glob("*")} - {
        "downloads",
        "extracted",
        "generated",
        "preparation.lock",
    }
    assert not {"manifest.json", "bin"} & left and not any("partial" in name for name in left), left
    return left


def ok(result):
    assert result.code == 0 and "Traceback" not in result.output, result.output
    return result


def snapshot(out):
    """Every file of the finished steps, and the manifest; other names of *out*."""
    files = {p.relative_to(out): p.read_bytes() for name in STEPS for p in (out / name).iterdir()}
    names = {p.name for p in out.iterdir()}
    return {**files, "manifest": (out / "manifest.json").read_bytes(), "names": names}


def read(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def binarized(out, split, lang):
    """Sentences as fairseq reads them, in words."""
    words = Dictionary.load(str(out / "bin" / f"dict.{lang}.txt"))
    data = data_utils.load_indexed_dataset(str(out / "bin" / f"{split}.de-en.{lang}"), words)
    assert all(sentence[-1] == words.eos() for sentence in data)
    return [joined(words.string(sentence)) for sentence in data]


def joined(pieces):
    """Words of a line of pieces, between single spaces."""
    return " ".join(pieces.replace(" ", "").replace("\u2581", " ").split())


def number(line):
    """By which both sides of a pair are known."""
    return next((word for word in line.split() if word.isdigit()), None)


STRANGE = ["\r", "\x85", "\u2028", "\u2029", "\x01", "\ufeff", "\u2581", "\x1c", "\x0b", "\u3000"]
STRANGE += ["\u2581\u2581", "\x1e\x1e", "漢字", "<unk>", "</s>", "\u200b", "a\u2019b", "&amp; <b>"]


def strange(i, pair):
    """*pair* with strange characters around a word and at the end, one alone of one side only."""
    found = STRANGE[i % len(STRANGE)]
    sides = [side.split(b" ") for side in pair]
    for words in sides if len(found) > 1 else sides[i // 5 % 2 :][:1]:
        words[2] = found.encode() + words[2] + found.encode()
        words[-1] += found.encode()
    return tuple(map(b" ".join, sides))


def test_strange_text_stays_aligned(site):
    """Each line of each step is known by its number, and held-out raw text belongs to it."""
    train = [strange(i, p) if i % 5 == 0 else p for i, p in enumerate(lines(600))]
    train[7] = (b"kaputt \xff 7", train[7][1])
    train[8] = (train[8][0], b"\xc3")
    train[50] = (b"", train[50][1])
    train[51] = (train[51][0], b"   ")
    train[60] = (b" ".join([b"wort"] * 10_000), b" ".join([b"word"] * 10_000))
    train[70] = ("\u2581".encode(), "\u2581".encode())  # a token, but no subword
    test = [strange(i, p) for i, p in enumerate(lines(len(STRANGE)))] + [(b"", b"empty 99")]

    def crlf(name, data):
        return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") if name.endswith("de") else data

    site.put(iwslt(train, test, crlf))
    ok(site.prepare())
    out, manifest = site.out, json.loads((site.out / "manifest.json").read_text())
    left_out = manifest["tok"]["left_out"]["train"]
    assert left_out == {"no UTF-8": 2, "empty": 2, "length or ratio": 1}
    assert sum(manifest["bpe"]["left_out"].values()) == 1
    titles = 2 * 600 // TALK
    kept = 600 + titles - 5
    assert manifest["tok"]["pairs"]["valid"] == kept // EVERY
    assert sum(manifest["tok"]["pairs"].values()) == kept + len(test) + 4 * 4
    known = manifest["bpe"]["pairs"]
    for split in ("train", "valid", "test"):
        numbers = []
        for lang in ("de", "en"):
            pieces = [joined(line) for line in read(out / "bpe" / f"{split}.{lang}")]
            found = binarized(out, split, lang)
            numbers += [[*map(number, pieces)], [*map(number, found)]]
            assert [line for line in found if "<unk>" not in line] == [
                piece for piece, line in zip(pieces, found) if "<unk>" not in line
            ]
            if split != "train":
                numbers.append([*map(number, read(out / "raw" / f"{split}.{lang}"))])
        assert {len(side) for side in numbers} == {known[split]}
        odd = [row for row in zip(*numbers) if len(set(row)) > 1]
        assert len(odd) == (split == "test"), odd  # the pair with an empty side
    kept = []
    for i in range(600):
        kept += ["title ", "about "] * (i % TALK == 0)
        kept += [f"satz {i} " if i != 70 else "\u2581"] * (i not in (7, 8, 50, 51, 60))
    valid = kept[EVERY - 1 :: EVERY]
    del kept[EVERY - 1 :: EVERY]
    for split, expected in (("valid", valid), ("train", kept)):  # every 23rd, and only there
        found = read(out / "tok" / f"{split}.de")
        assert [line[: len(start)] for line, start in zip(found, expected)] == expected
        assert len(found) == len(expected)
    assert "a\u2019b" in (out / "raw" / "test.de").read_text(encoding="utf-8")
    assert "\u2019" not in (out / "tok" / "test.de").read_text(encoding="utf-8")
    words = Dictionary.load(str(out / "bin" / "dict.de.txt"))
    assert words.index("漢字") == words.unk() or "漢" in words  # no entry for each unknown word
    assert read(out / "bin" / "dict.de.txt") == read(out / "bin" / "dict.en.txt")


def test_raw_text_is_of_the_pairs_that_stay(site):
    site.entries(clean_subwords={"length": [1, 20], "ratio": 1.1})
    site.put(iwslt())
    ok(site.prepare())
    left_out = json.loads((site.out / "manifest.json").read_text())["bpe"]["left_out"]
    assert 0 < left_out["valid"] < 26 and "test" not in left_out
    pieces = [number(joined(line)) for line in read(site.out / "bpe" / "valid.de")]
    assert [number(line) for line in read(site.out / "raw" / "valid.de")] == pieces


def without(name, at):
    """A change of the archive: line *at* of the file *name* is missing."""

    def change(member, data):
        rows = data.split(b"\n")
        return b"\n".join(rows[:at] + rows[at + 1 :]) if member.endswith(name) else data

    return change


MISALIGNED = {
    "inside a talk": (without("train.tags.de-en.en", 30), "talk 0", "line 106", "line 109"),
    "test not UTF-8": (
        lambda n, d: d.replace(b'<seg id="2"> S', b'<seg id="2"> \xff'),
        "TED.dev2010.de-en.de.xml, line 5: no UTF-8",
    ),
    "long test line": (
        lambda n, d: d.replace(b'"3"> ', b'"3"> ' + b"baum " * 10_000) if "tst2012" in n else d,
        "test, line 19",
    ),
}


@pytest.mark.parametrize("mistake", MISALIGNED)
def test_text_that_cannot_be_used(site, mistake):
    change, *words = MISALIGNED[mistake]
    site.put(iwslt(change=change))
    left = refused(site.prepare(), site.out, *words)
    assert "bpe" not in left and (mistake == "long test line" or "tok" not in left)


def test_downloads_that_are_not_right(site):
    data = iwslt()
    site.put(data)
    site.entries(sha256="0" * 64)
    assert not refused(site.prepare(), site.out, "0" * 64)
    site.entries(sha256=hashlib.sha256(data).hexdigest())
    site.server.cut = 1000
    result = site.prepare()
    assert result.code == 1 and "fairseq_admin: " in result.lines[-1], result.output
    assert "Traceback" not in result.output and not (site.out / "tok").exists()
    site.server.cut = None
    ok(site.prepare())
    before = snapshot(site.out)
    shutil.rmtree(site.out)
    ok(site.prepare())
    assert snapshot(site.out) == before
    shutil.rmtree(site.out)
    site.put(iwslt(prefix="../"))
    site.entries()
    assert not refused(site.prepare(), site.out, "leads out of the folder")
    assert not (site.out / "de-en").exists() and not (site.out.parent / "de-en").exists()


def test_disk_full_in_each_step(site):
    """A limit of the file size stands in for the disk; each run goes on where the last stopped."""
    site.put(iwslt(lines(1000)))

    def full(wanted):
        def before():
            def limited(function):
                def call(*args):
                    if wanted in args or wanted == function.__name__:
                        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
                    return function(*args)

                return call

            Preparation.step = limited(Preparation.step)
            corpora.prepare.write_manifest = limited(corpora.prepare.write_manifest)
            preparation.extract = limited(preparation.extract)
            preparation.fetch = limited(preparation.fetch)

        return before

    for step in ("fetch", "extract", *STEPS):
        left = refused(site.prepare(before=full(step)), site.out, "cannot write", "File too large")
        assert step not in left
    result = site.prepare(before=full("write_manifest"))
    assert result.code == 1 and "cannot write" in result.output and len(result.lines) == 1
    assert not list(site.out.glob("manifest*"))
    ok(site.prepare())
    after = snapshot(site.out)
    shutil.rmtree(site.out)
    ok(site.prepare())
    assert snapshot(site.out) == after


def test_same_bytes_on_any_number_of_processes_and_after_kills(site):
    site.put(iwslt(lines(1500)))
    ok(site.prepare())
    undisturbed = snapshot(site.out)
    for processes in (1, 3):
        shutil.rmtree(site.out)
        small = functools.partial(setattr, parallel, "BATCH", 17 * processes)
        ok(site.prepare("--processes", processes, before=small))
        assert snapshot(site.out) == undisturbed
    shutil.rmtree(site.out)
    for step in STEPS:  # a run goes on where the last was killed
        process = site.prepare(wait=False)
        wait_for((site.out / step).exists)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    ok(site.prepare())
    assert snapshot(site.out) == undisturbed


@pytest.mark.parametrize(
    "module, name", [(text, "Treatment"), (subwords, "Encoder")], ids=["tok", "bpe"]
)
def test_killed_worker_is_one_line(site, module, name):
    site.put(iwslt())

    def before():
        main, make = os.getpid(), getattr(module, name)

        def killed(*arguments):
            if os.getpid() != main:
                os.kill(os.getpid(), signal.SIGKILL)
            return make(*arguments)

        setattr(module, name, killed)

    refused(site.prepare(before=before), site.out, "a process was killed", "fewer --processes")
    ok(site.prepare())


def test_workers_end_with_a_killed_parent(site):
    """They hold its lock: the next run would wait for them."""
    site.put(iwslt())

    def before():
        main, started = os.getpid(), site.out.parent / "started"

        def slow(*arguments):
            if os.getpid() != main:
                started.touch()
                time.sleep(HANGS)

        text.Treatment = slow

    process = site.prepare(before=before, wait=False)
    wait_for((site.out.parent / "started").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    ok(site.prepare())


def test_published_line_counts(site):
    site.put(iwslt())
    sizes = {"train": 586, "valid": 26, "test": 20}  # 600 lines, 12 titles and descriptions
    site.entries(lines={**sizes, "train": 600}, tolerance=0.02)
    refused(site.prepare(), site.out, "train has 586 pairs, 600 are published")
    site.entries(lines={**sizes, "train": 590, "test": 21}, tolerance=0.05)
    tok = (site.out / "tok" / "made.json").stat().st_mtime_ns
    refused(site.prepare(), site.out, "test has 20 pairs, 21 are published")
    site.entries(lines={**sizes, "train": 590}, tolerance=0.02)
    ok(site.prepare())
    assert (site.out / "tok" / "made.json").stat().st_mtime_ns == tok  # counts decide no token


def test_finished_work_is_verified_and_other_folders_are_kept(site):
    site.put(iwslt())
    ok(site.prepare())
    before = snapshot(site.out)
    for name in ("tok/train.de", "spm/spm.model", "bpe/test.en", "raw/valid.de", "bin/dict.en.txt"):
        path = site.out / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + b"x")
        result = site.prepare()
        assert result.code == 1 and f"{path} is not what was made" in result.lines[-1]
        assert len(result.lines) == 1 and not (site.out / "manifest.json").exists()
        path.write_bytes(data)
    for change in ("{", "[]", "{}", '{"digest": 1, "files": []}'):
        (site.out / "bpe" / "made.json").write_text(change)
        assert "made.json is damaged" in site.prepare().lines[-1]
    shutil.rmtree(site.out / "bpe")
    ok(site.prepare())
    assert snapshot(site.out) == before
    (site.out / "bin" / "made.json").unlink()  # somebody else's
    result = site.prepare("--subwords", 150)
    assert result.code == 1 and "bin was not made here" in result.lines[-1]
    assert (site.out / "bin" / "dict.de.txt").exists() and (site.out / "tok").exists()
    shutil.rmtree(site.out / "bin")
    (site.out / "bin").write_text("a file")
    assert "bin was not made here" in site.prepare().lines[-1]
    (site.out / "bin").unlink()
    for name in ("manifest.json", "manifest.json.bak"):
        (site.out / name).write_text('{"name": "of a program"}')
        assert (site.prepare().code == 0) == name.endswith("bak")
        assert (site.out / name).read_text() == '{"name": "of a program"}'
        (site.out / "manifest.json").unlink()


@pytest.fixture
def own(tmp_path, prepare):
    """Runs the command on text written by `own.write(NAME, lines)`."""

    def write(name, rows):
        data = b"".join(row + b"\n" for row in rows)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    def both(split, pairs):
        pairs = list(pairs)
        for side, lang in enumerate(("de", "en")):
            write(f"{split}.{lang}", [pair[side] for pair in pairs])

    def run(
        *more, corpus=(), train=("train.de", "train.en"), valid=("valid.de", "valid.en"), **how
    ):
        command = [*corpus, "--train", *(tmp_path / name for name in train)]
        command += ["--valid", *(tmp_path / name for name in valid), "--processes", "2"]
        return prepare(*command, "--subwords", "120", "--output", tmp_path / "out", *more, **how)

    both("train", lines(400))
    both("valid", lines(20, seed=2))
    return SimpleNamespace(write=write, both=both, run=run, out=tmp_path / "out")


def test_own_text(own, tmp_path):
    ok(own.run())
    plain = snapshot(own.out)
    assert read(own.out / "raw" / "valid.de") == [p[0].decode() for p in lines(20, seed=2)]
    own.write("train.de.gz", [pair[0] for pair in lines(400)])
    ok(own.run(train=("train.de.gz", "train.en")))
    assert {
        k: v for k, v in snapshot(own.out).items() if "made" not in str(k) and k != "manifest"
    } == {k: v for k, v in plain.items() if "made" not in str(k) and k != "manifest"}
    ok(own.run(corpus=["iwslt14_de_en"]))
    assert read(own.out / "tok" / "train.de")[0].startswith("satz 0 ")
    assert "e @-@ mail" not in (own.out / "tok" / "train.de").read_text()
    ok(own.run(corpus=["wmt14_en_de"]))
    assert "e @-@ mail" in (own.out / "tok" / "train.de").read_text()
    ok(own.run())
    assert snapshot(own.out) == plain
    own.both("test", lines(7))
    ok(own.run("--test", tmp_path / "test.de", tmp_path / "test.en"))
    assert binarized(own.out, "test", "en")[3].startswith("Line 3 ")
    own.both("train", [(a + b" &apos; &lt;", b + b" &apos; &lt;") for a, b in lines(400)])
    ok(own.run("--tokenized"))  # other text under the same names
    escaped = [pair[1].decode() + " &apos; &lt;" for pair in lines(400)]
    assert read(own.out / "tok" / "train.en") == escaped == binarized(own.out, "train", "en")
    assert not (own.out / "raw" / "test.de").exists()


def test_sides_exchanged_are_noticed(own):
    own.write("train.de", [pair[1] for pair in lines(400)])
    own.write("train.en", [pair[0] for pair in lines(400)])
    ok(own.run())
    own.both("train", lines(400))
    ok(own.run())
    assert read(own.out / "tok" / "train.en")[0].startswith("Line 0")


def test_mistakes_with_own_text(own, prepare):
    def last(*args, **kwargs):
        result = own.run(*args, **kwargs)
        assert result.code and "Traceback" not in result.output
        assert not (own.out / "manifest.json").exists()
        return result.lines[-1]

    assert "none.de" in last(train=("none.de", "train.en"))
    assert "two files of the language en" in last(train=("train.en", "train.en"))
    own.write("text", [])
    assert "call it NAME.LANGUAGE" in last(train=("text", "train.en"))
    own.write("train.DE", [b"a"])
    assert "'DE' is no language code" in last(train=("train.DE", "train.en"))
    own.write("empty.de", [])
    own.write("empty.en", [])
    assert "no text in" in last(train=("empty.de", "empty.en"))
    own.write("short.de", [b"a"] * 399)
    assert "ends after 399 lines" in last(train=("short.de", "train.en"))
    own.write("bad.de", [b"\xff"] * 400)
    assert '"no UTF-8": 400' in last("--unreadable", "1", train=("bad.de", "train.en"))
    own.write("half.de", [*[b"\xff"] * 200, *[pair[0] for pair in lines(400)][200:]])
    ok(own.run("--unreadable", "0.5", train=("half.de", "train.en")))
    assert "200 of 400 lines" in last(train=("half.de", "train.en"))  # also when made before
    assert "invalid share value: '2'" in last("--unreadable", "2")
    own.write("long.de", [b"a " * 300] * 400)
    assert "no pair for train" in last(train=("long.de", "train.en"))
    own.write("cut.de.gz", [b"a b c"] * 400)
    data = (own.out.parent / "cut.de.gz").read_bytes()
    (own.out.parent / "cut.de.gz").write_bytes(data[:-9])
    assert "cut.de.gz is damaged" in last(train=("cut.de.gz", "train.en"))
    for wrong in ("0", "100000"):
        assert "subwords" in last("--subwords", wrong)
    assert "--sample and --train" in last("--sample")
    named = ["--train", *([own.out / "x"] * 2), "--valid", *([own.out / "x"] * 2)]
    told = "your own text is not multi30k_de_en: give --output"
    assert told in prepare("multi30k_de_en", *named).lines[-1]
    assert "goes by --train" in prepare("own", "--output", own.out).lines[-1]
    assert "no corpus none" in prepare("none", "--output", own.out).lines[-1]


GENERATOR = """
import sys
from pathlib import Path

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for start, split in ((0, "train"), (500, "valid"), (600, "test")):
    for lang, word in (("de", "Satz"), ("en", "Line")):
        rows = (f"{word} {i * i}, don't; {i}.\\n" for i in range(start, start + 30 + start // 9))
        (folder / f"{split}.{lang}").write_text("".join(rows))
"""


def test_generated_text(prepare, tmp_path):
    folder, out = tmp_path / "data" / "made", tmp_path / "out"
    folder.mkdir(parents=True)
    described = {s: [{"files": [f"{s}.de", f"{s}.en"]}] for s in ("train", "valid", "test")}
    described.update(languages=["de", "en"], generator="make.py", moses=False, subwords=60)
    OmegaConf.save({**described, "symbols": [".", ","]}, folder / "corpus.yaml")
    script = folder / "make.py"

    def run(*more):
        return prepare("made", "--output", out, *more, data=tmp_path / "data")

    assert refused(run(), out, "make.py") == set()
    script.write_text("import sys; sys.exit('make.py: these are other libraries')")
    assert refused(run(), out, "make.py: these are other libraries") == set()
    script.write_text("import os; os.kill(os.getpid(), 9)")
    refused(run(), out, "failed with -9")
    script.write_text(GENERATOR)
    ok(run())
    before = snapshot(out)
    for split, last in (("tok/train", 29), ("raw/valid", 584), ("raw/test", 695)):  # as it was
        assert read(out / f"{split}.en")[-1] == f"Line {last * last}, don't; {last}."
    assert read(out / "bpe" / "valid.de")[0].endswith(" .")
    assert json.loads(before["manifest"])["bpe"]["pairs"] == {"train": 30, "valid": 85, "test": 96}
    assert str(tmp_path) not in before["manifest"].decode()
    ok(run())
    assert snapshot(out) == before
    refused(run("--sample"), tmp_path / "none", "made is generated")
    script.write_text(GENERATOR.replace("don't", "do not"))
    ok(run())
    assert read(out / "tok" / "train.de")[3] == "Satz 9, do not; 3."


def test_no_package_to_generate_by_is_one_line(prepare, own, tmp_path):
    """And none is asked for where nothing is generated."""

    def before():
        corpora.prepare.find_spec = lambda name: None if name == "num2words" else name
        sys.modules.update(babel=None, num2words=None)  # an import fails

    for command in (["phrases"], ["iwslt14_de_en", "--sample"]):
        result = prepare(*command, "--output", tmp_path / "out", before=before)
        refused(result, tmp_path / "out", "no num2words here", "fairseq_admin[demo]")
    assert not (tmp_path / "out").exists()
    ok(own.run(before=before))


def test_speed_is_told_as_in_the_record(own):
    """Of scripts/bench.py --prepare; "1 process", "2 processes" are of the machine."""
    text = [own.out.parent / name for name in ("train.de", "train.en")]
    made = bench_preparation(Namespace(prepare=text, corpus="wmt14_en_fr", subwords=120))
    committed = json.loads((DATA.parent / "results" / "bench" / "prepare_cpu.json").read_text())
    assert made.keys() == committed.keys() and "400 pairs of train.de" in made["what"]
    for step, like in zip(made["steps"], committed["steps"]):
        assert step.keys() == like.keys() and step["step"] == like["step"]
        numbers = [n for n in step.values() if not isinstance(n, (str, dict))]
        assert numbers and all(n > 0 for n in numbers)
        assert all("1 process" in n for n in step.values() if isinstance(n, dict))


NO_UTF_8 = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def test_command_line_and_sample(lab, tmp_path):
    """The shell's own, in its own process, in a locale of ASCII."""
    command = ["bash", SCRIPTS / "prepare.sh", "wmt14_en_fr", "--sample", "--output", tmp_path]
    assert lab.run(command, env=NO_UTF_8).ok().last_line.endswith("test 20 pairs")


@pytest.mark.slow  # the locale is that of real starts
def test_fairseq_writes_utf8_in_a_locale_of_ascii(own, lab, tmp_path):
    """fairseq-preprocess and fairseq-generate, as back-translation starts them; whose manifest says
    of the text what that of the bitext does."""
    ok(own.run())
    types = len(Dictionary.load(str(own.out / "bin" / "dict.de.txt"))) - len(dictionary(0))
    state = checkpoint_of(*randomized(types=types))
    state["cfg"]["task"].update(source_lang="en", target_lang="de")
    torch.save(state, tmp_path / "reverse.pt")
    own.write("mono", [b"Line %d" % i for i in range(30)])
    command = [sys.executable, "-W", "ignore", SCRIPTS / "back_translate.py"]
    command += [tmp_path / "reverse.pt", "--data", own.out, "--output", tmp_path / "translated"]
    command += ["--monolingual", tmp_path / "mono", "--cpu"]
    command += ["--decoding=--beam 1 --sampling --seed 1 --max-len-b 2"]
    run = lab.run(command, env=NO_UTF_8).ok()
    assert "pairs beside the bitext" in run.last_line
    translations = read(tmp_path / "translated" / "translations" / "00000")
    assert len(translations) == 30 and any("\u2581" in line for line in translations)
    said = [
        json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["corpus"]
        for folder in (own.out, tmp_path / "translated")
    ]
    assert said[0] == said[1]
