"""What decides which text becomes of a corpus: cleaning, formats, order, steps."""

import gzip
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from argparse import Namespace
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary, data_utils
from tqdm import tqdm
from tqdm.std import TqdmDefaultWriteLock

from corpora import parallel, subwords
from corpora.corpus import SPLITS, Clean, Text, corpus_of, known_corpora, load_corpus
from corpora.parallel import AHEAD, batches, in_order, progress
from corpora.prepare import as_tokenized, own_text
from corpora.reading import read_pairs
from corpora.sample import write_sample
from corpora.steps import MADE, combined, run_step
from corpora.text import Treatment, readable
from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import TextSteps, single_spaced
from fairseq_admin.text import KINDS


def test_cleaning_at_its_limits():
    clean = Clean((1, 175), 1.5)
    kept = [(1, 1), (2, 3), (3, 2), (116, 174), (117, 175), (175, 175)]
    assert all(clean.keeps(*pair) for pair in kept)
    left_out = [(0, 0), (0, 1), (1, 2), (2, 1), (4, 7), (175, 176), (176, 176), (116, 175)]
    assert not any(clean.keeps(*pair) for pair in left_out)
    assert Clean((1, 80)).keeps(1, 80) and not Clean((1, 80)).keeps(1, 81)
    assert 25 * Fraction("1.16") == 29 and Clean((1, 99), 1.16).keeps(25, 29)  # not so in floats


def write_pair(folder, *sides):
    paths = [folder / "text.de", folder / "text.en"]
    for path, data in zip(paths, sides):
        path.write_bytes(data)
    return paths


def texts(folder, form, data, other=None):
    pairs = read_pairs(*write_pair(folder, data, other or data), form)
    return [line.decode() for (_, line), _ in pairs]


def test_segments(tmp_path):
    """As in IWSLT's XML and NIST's SGML; the text to the letter."""
    data = """<?xml version="1.0" encoding="UTF-8"?>
<mteval><refset setid="x" srclang="any" trglang="de">
<doc docid="535" genre="lectures"><talkid>535</talkid><title>No text</title>
<seg id="1"> It’s “so” &amp; <b>so</b>. </seg>
  <seg id="2">tight</seg>\r
<SEG ID=3>\tupper  </SEG>
<seg id = "n-4"   ></seg>
<hl><seg id="no">never</seg></hl>
</doc></refset></mteval>
"""
    data = data.replace("<hl>", "").replace("</seg></hl>", "</seg>")
    expected = ["It’s “so” &amp; <b>so</b>.", "tight", "upper", "", "never"]
    assert texts(tmp_path, "segments", data.encode()) == expected
    assert texts(tmp_path, "plain", "It’s\n".encode()) == ["It’s"]
    for broken in (
        "<seg id='1'> a",
        "<seg id=1> a </seg> <seg id=2> b </seg>",
        "x <seg id=1>a</seg>",
    ):
        with pytest.raises(UserError, match="text.de, line 2: not one whole <seg>"):
            texts(tmp_path, "segments", f"<doc>\n{broken}\n".encode())


def test_talks(tmp_path):
    data = b"""\xef\xbb\xbf<url>http://x</url>
<keywords>a</keywords>
 <speaker>b</speaker>
<talkid>7</talkid>
<title>A title</title>
<description>TED Talk: of it.</description>
<reviewer href="x">r</reviewer>
<translator href="x">t</translator>
 First line.
<i>no markup</i> of ours

<talkid> 8 </talkid>
Last, no end"""
    expected = ["A title", "TED Talk: of it.", "First line.", "<i>no markup</i> of ours", ""]
    assert texts(tmp_path, "talks", data) == [*expected, "Last, no end"]
    with pytest.raises(UserError, match="not aligned in talk 7: line 12 .* line 12 "):
        texts(tmp_path, "talks", data, data.replace(b" 8 ", b"9"))
    with pytest.raises(
        UserError, match="not aligned in talk 8: .*text.en ends .*text.de goes on at line 13"
    ):
        texts(tmp_path, "talks", data, data.replace(b"Last, no end", b""))


XML = """<?xml version="1.0" encoding="UTF-8"?>
<mteval>
<refset setid="x" srclang="any" trglang="any">
<doc docid="1">
<url>http://x/1</url>
<talkid>1</talkid>
<seg id="1"> {0} one. </seg>
<seg id="2"> {0} two. </seg>
</doc>
</refset>
</mteval>
"""
TAGS = """<url>http://x/1</url>
<keywords>talks</keywords>
<talkid>1</talkid>
<title>{0} one.</title>
 {0} two.
"""
MARKED = {
    "train.tags": ("talks", TAGS),
    "train.tags, later": ("talks", '<doc docid="1" genre="lectures">\n' + TAGS),
    "XML": ("segments", XML),
    "XML with a mark": ("segments", "\ufeff" + XML),
    "SGML": ("segments", XML[XML.index("<refset") : XML.index("</mteval>")].replace("ref", "src")),
    "segments alone": ("segments", XML[XML.index("<seg") : XML.index("</doc>")]),
    "text": ("plain", "{0} one.\n{0} two.\n"),
    "text that begins like a tag": ("plain", "<url> {0}\n{0} <url> two\n<keywords> b</url>\n"),
}


def own(folder, train, **more):
    """The format and the text of the files *train* by their content, as prepare.sh takes them."""
    options = {"train": train, "valid": train, "test": None, "tokenized": False, **more}
    for split in SPLITS:
        files = options[split]
        for path, content in (files or {}).items():
            content = content.encode() if isinstance(content, str) else content
            (folder / path).write_bytes(content)
        options[split] = [folder / path for path in files] if files else None
    texts, languages = own_text(Namespace(**options))
    texts = load_corpus("own").with_texts(texts, languages).sides()
    (text,) = texts["train"]
    pairs = read_pairs(*map(Path, text.files), text.format)
    return languages, text.format, [tuple(line.decode() for _, line in pair) for pair in pairs]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", MARKED)
def test_markup_is_read_whatever_the_name(tmp_path, kind, zipped):
    form, content = MARKED[kind]
    german, english = (content.format(word).encode() for word in ("Satz", "Line"))
    pack = gzip.compress if zipped else bytes
    found = own(tmp_path, {"a.de": pack(german), "a.en": pack(english)})
    texts = [content.format(word).splitlines() for word in ("Satz", "Line")]
    pairs = [("Satz one.", "Line one."), ("Satz two.", "Line two.")]
    assert found == (("de", "en"), form, [*zip(*texts)] if form == "plain" else pairs)


@pytest.mark.parametrize("kind", ["train.tags", "XML"])
def test_sides_of_two_kinds_are_one_line(tmp_path, kind):
    form, content = MARKED[kind]
    plain = MARKED["text"][1]
    for first, second in ((content, plain), (plain, content)):
        kinds = ".*".join([KINDS[form], "plain text"][:: 1 if first is content else -1])
        with pytest.raises(UserError, match=f"not alike: .*{kinds}"):
            own(tmp_path, {"a.de": first, "a.en": second})
    paths = write_pair(tmp_path, content.encode(), content.encode())
    for other in {*KINDS} - {form}:  # what a corpus.yaml may say
        with pytest.raises(UserError, match=f"are {KINDS[form]}, not {KINDS[other]}: .*`format`"):
            next(read_pairs(*paths, other))


FILES = {  # of --train, of --valid, of the message
    "exchanged": ("a.de a.en", "v.en v.de", "v.en is en by its name, .* is de"),
    "zipped": ("a.de a.en.gz", "v.en.gz v.de", "v.en.gz is en by its name"),
    "one": ("a.de a.en", "v.de w.de", "w.de is de by its name, .* is en"),
    "another": ("a.de a.en", "v.de v.fr", "v.fr is fr by its name, .* is en"),
    "XML": ("a.de a.en", "v.de-en.en.xml v.de-en.de.xml", "is en by its name"),
    "text": ("a.de.txt a.en.txt", "v.en.txt v.de.txt", "is en by its name"),
    "three letters": ("a.gsw a.en", "v.en v.gsw", "v.en is en by its name, .* is gsw"),
    "regions": ("a.de_AT a.en-GB", "v.en v.de", "v.en is en by its name, .* is de_AT"),
    "only regions": ("a.pt_BR a.pt-PT", "v.pt_PT v.pt_BR", "v.pt_PT is pt_PT by its name"),
    "scripts": ("a.zh-Hans a.zh-Hant", "v.zh-Hant v.zh-Hans", "v.zh-Hant is zh_Hant by its name"),
    "codes of three letters": ("a.de a.en", "v.eng v.deu", "v.eng is eng by its name"),
    "right": ("a.de a.en", "v.de.gz v.en", ""),
    "the same, by three letters": ("a.de a.en", "v.ger v.eng", ""),
    "the same region or none": ("a.de_AT a.en", "v.de v.en-GB", ""),
    "no language": ("a.de a.en", "source target", ""),
    "no language in three letters": ("a.de a.en", "v.src v.trg", ""),
    "only one": ("a.de a.en", "v.txt v.en", ""),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_sides_exchanged_by_their_names_are_one_line(tmp_path, case, split):
    *names, message = FILES[case]
    train, other = (dict.fromkeys(name.split(), "x\n") for name in names)
    if message:
        with pytest.raises(UserError, match=f"{split}: .*{message}"):
            own(tmp_path, train, **{split: other})
    else:
        assert own(tmp_path, train, **{split: other})[2] == [("x", "x")]


def same(item):
    return os.getpid(), item


def fails(item):
    raise KeyError(item)


def dies(item):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 3])
def test_in_order_and_no_further_ahead(processes):
    """What bounds the memory: items that are read but not yet given back."""
    read, most = 0, 0

    def items():
        nonlocal read
        for item in range(1, 301):
            read = item
            yield item

    used = set()
    for given, (process, item) in enumerate(in_order(lambda: same, items(), processes), 1):
        assert item == given
        most = max(most, read - given)
        used.add(process)
    assert given == 300 and 0 < most <= AHEAD * processes
    assert os.getpid() not in used and len(used) <= processes


def test_errors_of_other_processes():
    with pytest.raises(KeyError, match="1"):
        list(in_order(lambda: fails, [1, 2], 1))
    with pytest.raises(UserError, match="a process was killed"):
        list(in_order(lambda: dies, range(9), 2))


def hold_lock_of_progress(held):
    with tqdm.get_lock():
        held.set()
        time.sleep(60)


def test_progress_outlives_a_fork_killed_while_it_writes():
    """tqdm's default lock is a semaphore that all forks share."""
    tqdm.set_lock(TqdmDefaultWriteLock())
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    process = fork.Process(target=hold_lock_of_progress, args=(held,))
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()

    def show():
        with progress("x") as show:
            show(1.0)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_batches(monkeypatch):
    monkeypatch.setattr(parallel, "BATCH", 2)
    assert list(batches(range(5))) == [[0, 1], [2, 3], [4]] and list(batches([])) == []


MISTAKES = {
    "tab": "languages: [de, en]\n\tx: 1",
    "brace": "languages: [de, en",
    "bytes": b"languages: [\xff]",
    "empty": "",
    "list": "- 1",
    "unknown key": "languages: [de, en]\nsubword: 3",
    "one language": "languages: [de]",
    "Norwegian": "languages: [no, en]",
    "no source": "languages: [de, en]\ntrain: [{archive: x, files: [a, b]}]",
    "one file": "languages: [de, en]\ntrain: [{files: [a]}]",
    "format": "languages: [de, en]\ntrain: [{files: [a, b], format: x}]",
    "no url": "languages: [de, en]\nsources: {x: {}}",
    "clean": "languages: [de, en]\nclean: {length: [1]}",
    "clean 0": "languages: [de, en]\nclean: {length: [0, 9]}",
    "ratio": "languages: [de, en]\nclean: {length: [1, 9], ratio: 0.5}",
    "ration": "languages: [de, en]\nclean: {length: [1, 9], ration: 1.5}",
    "subwords": "languages: [de, en]\nsubwords: many",
    "lines": "languages: [de, en]\nlines: {train: 160.239.1}",
    "split": "languages: [de, en]\nlines: {training: 3}",
    "every": "languages: [de, en]\nvalid_every: -1",
    "unreadable": "languages: [de, en]\nunreadable: few",
    "percent": "languages: [de, en]\nunreadable: 50",
    "no boolean": "languages: [de, en]\nlowercase: maybe",
    "no integer": "languages: [de, en]\nvalid_every: 10.5",
    "no list": "languages: de",
    "true": "languages: [de, en]\nsymbols: [yes]",
    "letters": "languages: [de, en]\nsymbols: abc",
    "no bytes": "languages: [de, en]\nsources: {x: {url: /x.gz, size: many}}",
    "one file of two urls": "languages: [de, en]\nsources: {x: {url: /x/a.gz}, y: {url: /y/a.gz}}",
}


def test_what_corpus_yaml_says_is_of_its_type(tmp_path):
    """Not everything that is not empty is true; no language is False."""
    said = {
        "lowercase": '"false"',
        "normalize": '"no"',
        "subwords": '"963"',
        "languages": '[de, "no"]',
    }
    (tmp_path / "x").mkdir()
    text = "".join(f"{name}: {value}\n" for name, value in said.items())
    (tmp_path / "x" / "corpus.yaml").write_text(text)
    corpus = load_corpus("x", tmp_path)
    assert (corpus.lowercase, corpus.normalize, corpus.subwords) == (False, False, 963)
    assert corpus.languages == ("de", "no")


def test_files_of_a_corpus_may_have_other_codes(tmp_path):
    (tmp_path / "x").mkdir()
    said = "languages: [cs, ja]\ntrain: [{files: [a.cz, a.jp]}]\nvalid: [{files: [b.cs.lc, b.in]}]"
    (tmp_path / "x" / "corpus.yaml").write_text(said)
    assert load_corpus("x", tmp_path).train[0].files == ("a.cz", "a.jp")


@pytest.mark.parametrize("side", ["a.en, a.de", "/x/a.de, /x/b.de"])
def test_sides_of_a_corpus_are_those_of_its_languages(tmp_path, side):
    (tmp_path / "x").mkdir()
    said = f"languages: [de, en]\nvalid: [{{files: [{side}]}}]"
    (tmp_path / "x" / "corpus.yaml").write_text(said)
    with pytest.raises(UserError, match="valid: .* by its name, but this side is "):
        load_corpus("x", tmp_path)


def test_no_sample_of_files_of_ones_own(tmp_path):
    texts = {split: (Text(("a.de", "a.en")),) for split in ("train", "valid")}
    corpus = load_corpus("own").with_texts(texts, ("de", "en"))
    with pytest.raises(UserError, match="a.de is a file of yours: prepare it as it is"):
        write_sample(corpus, tmp_path)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_corpus_yaml(tmp_path, mistake):
    path = tmp_path / "x" / "corpus.yaml"
    path.parent.mkdir()
    content = MISTAKES[mistake]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        load_corpus("x", tmp_path)
    message = error.value.message
    assert message.startswith(f"{path} is not as it should be: ") and "\n" not in message


def test_digest_is_of_the_treatment():
    corpus = load_corpus("iwslt14_de_en")
    for other in (
        {"lowercase": False},
        {"clean": None},
        {"valid_every": 3},
        {"moses": False},
        {"tokenized": True},
    ):
        assert replace(corpus, **other).digest() != corpus.digest()
    for other in ({"lines": {}}, {"subwords": 3}, {"train": (Text(("a", "b")),)}, {"tolerance": 1}):
        assert replace(corpus, **other).digest() == corpus.digest()


def test_treatment_of_held_out_text():
    """Nothing is left out of it; raw text is as it was but for space."""
    corpus = replace(load_corpus("wmt14_en_fr"), languages=("de", "en"), clean=Clean((1, 2)))
    pairs = [((1, b" A\t\xc2\xa0b,\x01  c. "), (1, "„x“\u2028y".encode())), ((2, b""), (2, b"z"))]
    batch = Treatment(corpus, training=False, raw=True, test=True)(pairs)
    assert batch.raw == [("A b,\x01 c.", "„x“ y"), ("", "z")]
    assert batch.tokens[1] == ("", "z") and not batch.dropped
    batch = Treatment(corpus, training=True, raw=True)(pairs)
    assert batch.dropped == {"length or ratio": 1, "empty": 1}


def test_tokens_of_segments_have_straight_apostrophes_and_references_their_own():
    corpus = load_corpus("iwslt14_de_en")
    pair = ((1, "so geht’s".encode()), (1, "it’s so".encode()))
    batch = Treatment(corpus, False, raw=True, test=True, form="segments")([pair])
    assert batch.raw == [("so geht’s", "it’s so")]
    assert batch.tokens == [("so geht &apos; s", "it &apos;s so")]
    assert Treatment(corpus, False, raw=True, test=True)([pair]).tokens == [
        ("so geht ’ s", "it ’ s so")
    ]


def test_entities_of_markup_are_characters_but_in_published_text():
    published = load_corpus("iwslt14_de_en")
    pair = ((1, b"R&amp;D &quot;so&quot;"), (1, b"a &lt;b&gt;"))
    own = load_corpus("own").with_texts({}, ("de", "en"))
    batch = Treatment(own, False, raw=True, test=True, form="segments")([pair])
    assert batch.tokens == batch.raw == [('R&D "so"', "a <b>")]
    assert Treatment(own, False, raw=True)([pair]).raw == [
        ("R&amp;D &quot;so&quot;", "a &lt;b&gt;")
    ]
    batch = Treatment(published, False, raw=True, test=True, form="segments")([pair])
    assert batch.tokens[0][1] == "a &amp; lt ; b &amp; gt ;"


def test_own_text_comes_back_from_its_pieces_in_every_language():
    """It is cut into subwords as it is: no tokens that only some languages give back."""
    corpus = replace(load_corpus("own"), languages=("hi", "fr"))
    lines = ("हिन्दी में लिखो।", "« l’eau », e\u0301te\u0301 d'hier\u2026")
    pair = tuple((1, line.encode()) for line in lines)
    batch = Treatment(corpus, training=True, raw=True)([pair])
    assert batch.tokens == batch.raw == [lines]


@pytest.mark.parametrize("side", ["de", "en"])
def test_pieces_given_as_text_are_refused(tmp_path, side):
    lines = {"a.de": "ein Satz\n", "a.en": "a sentence\n"}
    for split in ("valid", "test"):
        for pieces in ("a sen@@ tence\n", "\u2581a \u2581sen tence\n"):
            with pytest.raises(UserError, match=f"v.{side} is cut into subwords"):
                own(tmp_path, lines, **{split: {"v.de": "x\n", "v.en": "x\n", f"v.{side}": pieces}})


def test_tokens_given_as_text_are_told(tmp_path, caplog):
    own(tmp_path, {"a.de": "er sagte : &quot; ja\n", "a.en": "he\n"})
    assert "a.de looks like Moses' tokens (1 lines): give raw text, or" in caplog.text
    caplog.clear()
    own(tmp_path, {"a.de": "er sagte : &quot; ja\n", "a.en": "he\n"}, tokenized=True)
    assert not caplog.text


def test_raw_text_of_tokens_is_detokenized():
    """Else translations, which are, would be scored against tokens."""
    corpus = replace(load_corpus("own"), languages=("de", "en"), tokenized=True)
    pair = ((1, b"er sagte : &quot; ja . &quot;"), (1, b"it &apos;s fine , he said ."))
    batch = Treatment(corpus, training=False, raw=True)([pair])
    assert batch.raw == [('er sagte: "ja."', "it's fine, he said.")]
    assert batch.tokens == [tuple(line.decode() for _, line in pair)]


def test_text_without_moses_stays_as_it_is():
    corpus = load_corpus("phrases")
    pair = ((1, "Um 11:15  Uhr; „so“ & e-mail.".encode()), (2, b"At 11:15\tAM, don't."))
    for training in (True, False):
        batch = Treatment(corpus, training, raw=True, test=not training)([pair])
        assert batch.tokens == [("Um 11:15 Uhr; „so“ & e-mail.", "At 11:15 AM, don't.")]
        assert batch.raw == batch.tokens
    batch = Treatment(replace(corpus, normalize=True), training=True, raw=False)([pair])
    assert batch.tokens[0][0] == 'Um 11:15 Uhr; "so" & e-mail.'


def test_only_a_published_test_set_keeps_its_punctuation():
    published = replace(load_corpus("wmt14_en_de"), languages=("de", "en"))
    own = published.with_texts({}, ("de", "en"))
    pair = ((1, "„so“ – ja".encode()), (2, "don’t".encode()))
    treated = [
        Treatment(x, False, False, test)([pair]) for x in (own, published) for test in (1, 0)
    ]
    tokens = [batch.tokens[0] for batch in treated]
    assert tokens[0] == tokens[1] == tokens[3] != tokens[2]
    assert tokens[0][1] == "don &apos;t" and tokens[2][1] == "don ’ t"


NO_TEXT = {  # what the first bytes tell
    "UTF-16": ("ä b\nc d\n".encode("utf-16"), "UTF-16 or no text"),
    "UTF-16 without a mark": ("中b\nc d\n".encode("utf-16-be"), "UTF-16 or no text"),
    "UTF-32": ("a b\nc d\n".encode("utf-32"), "UTF-16 or no text"),
    "UTF-16 in XML": (XML.encode("utf-16"), "UTF-16 or no text"),
    "a program": (b"\x7fELF\2\1\1\0\n\n", "UTF-16 or no text"),
    "CR": (b"a b\rc d\r", "ends its lines with CR alone"),
    "CR but for the last": (b"a b\rc d\re f\n", "ends its lines with CR alone"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", NO_TEXT)
def test_what_is_no_text_is_one_line(tmp_path, kind, zipped):
    data, message = NO_TEXT[kind]
    data = gzip.compress(data) if zipped else data
    for files in ({"a.de": data, "a.en": b"a\nb\n"}, {"a.de": b"a\nb\n", "a.en": data}):
        with pytest.raises(UserError, match=f"a.(de|en) .*{message}"):
            own(tmp_path, files)


def test_a_single_line_may_end_in_cr(tmp_path):
    assert own(tmp_path, {"a.de": b"a\r", "a.en": b"b\r\n"})[2] == [("a", "b")]


@pytest.mark.parametrize("bad", [b"\xfc", b"a\0b"])
def test_unreadable_lines_are_told_above_a_share(bad, monkeypatch):
    """Wherever they are: the first is named, of either side."""
    monkeypatch.setattr(parallel, "BATCH", 7)
    corpus = replace(load_corpus("own"), languages=("de", "en"))
    paths = [Path("a.de"), Path("a.en")]

    def read(unreadable, training=True, lines=1000):
        pairs = [((i, b"ja"), (i, bad if i in unreadable else b"yes")) for i in range(1, lines + 1)]
        treated = map(Treatment(corpus, training, raw=False), batches(pairs))
        kept = readable(treated, paths, corpus, training)
        return sum(len(batch.tokens) for batch in kept)

    assert read({}) == 1000 and read({}, lines=0) == 0
    assert read({9, 500, *range(993, 1001)}) == 990
    with pytest.raises(UserError, match="a.en, line 9: .* 11 of 1,000 lines .*--unreadable SHARE"):
        read({9, 500, *range(992, 1001)})
    with pytest.raises(UserError, match="a.en, line 500: .* 1 of 1,000 lines") as error:
        read({500}, training=False)
    assert "--unreadable" not in error.value.message
    corpus = replace(corpus, unreadable=0.5)
    assert read(range(1, 501)) == 500
    with pytest.raises(UserError, match="a.en, line 1: .* 501 of 1,000"):
        read(range(1, 502))


TREATMENTS = [*known_corpora(), "own", "own tokenized", "iwslt14_de_en tokenized"]


@pytest.mark.parametrize("name", TREATMENTS)
def test_a_manifest_says_how_training_text_became_tokens(name):
    """Who serves a model of it has raw text, and these five entries, to do the same."""
    name, *tokenized = name.split()
    corpus = replace(load_corpus(name), languages=("de", "en"))
    if tokenized:
        corpus = replace(corpus, tokenized=True, moses=True)
    said = json.loads(json.dumps(asdict(corpus)))
    how = [said[key] for key in ("normalize", "moses", "aggressive", "lowercase")]
    texts = ["Er sagte: „Ja, e-mail“ \x85und ging\u2028–\xa0so.", "It’s “an e-mail”;\u200b no.\x0b"]
    steps = [TextSteps(lang, *how) for lang in corpus.languages]
    tokens = tuple(step(text) for step, text in zip(steps, texts))
    given = [TextSteps(lang)(line) for lang, line in zip(corpus.languages, texts)]
    given = given if tokenized else texts
    treatment = Treatment(corpus, training=True, raw=False)
    assert treatment([tuple((1, side.encode()) for side in given)]).tokens == [tokens]
    assert (tokens[1] == single_spaced(texts[1])) == (not corpus.moses)
    assert "“" in tokens[0] or said["normalize"]


TOKENIZED = {  # aggressive, lowercase
    "cased": ("Der e-mail Satz .", "An e-mail .", False, False),
    "of one side": ("der satz .", "A line .", False, False),
    "lowercased": ("der e-mail satz .", "an e-mail .", False, True),
    "hyphens": ("Ein e @-@ mail Satz .", "A line .", True, False),
    "both": ("der satz .", "an e @-@ mail .", True, True),
    "beside letters that have no case": ("der satz .", "漢字 。", False, True),
    "without letters that have a case": ("漢字 。", "漢字 。", False, False),
}


@pytest.mark.parametrize("case", TOKENIZED)
def test_how_tokens_were_made_shows_in_them(tmp_path, case):
    *sides, aggressive, lowercase = TOKENIZED[case]
    paths = write_pair(tmp_path, *(gzip.compress(f"{side}\n".encode() * 2) for side in sides))
    text = Text(tuple(map(str, paths)))
    corpus = as_tokenized(load_corpus("own").with_texts({"train": (text,)}, ("de", "en")))
    assert (corpus.tokenized, corpus.normalize, corpus.moses) == (True, False, True)
    assert (corpus.aggressive, corpus.lowercase) == (aggressive, lowercase)
    batch = Treatment(corpus, training=True, raw=False)([tuple((1, x.encode()) for x in sides)])
    assert batch.tokens == [tuple(sides)]


def test_tokens_without_escapes_are_refused(tmp_path):
    """What is translated later has them."""
    paths = write_pair(tmp_path, gzip.compress(b"so geht 's .\n"), gzip.compress(b"so it goes .\n"))
    text = Text(tuple(map(str, paths)))
    with pytest.raises(UserError, match="no character is escaped"):
        as_tokenized(load_corpus("own").with_texts({"train": (text,)}, ("de", "en")))


def test_tokens_of_a_corpus_of_raw_text_are_tokens(tmp_path):
    text = Text(tuple(map(str, write_pair(tmp_path, *(gzip.compress(b"a .\n"),) * 2))))
    corpus = load_corpus("multi30k_de_en").with_texts({"train": (text,)}, ("de", "en"))
    assert as_tokenized(corpus).moses and not corpus.moses


def test_steps_start_from_nothing(tmp_path):
    """What was made of something else is gone before, and after a failure."""
    folder = tmp_path / "tok"
    run_step(folder, combined(1), lambda f: (f / "a").write_text("one") and {})
    assert run_step(folder, combined(1), None)["files"]["a"]["bytes"] == 3

    def fail(partial):
        assert not folder.exists()
        (partial / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="cannot write .*tok: No space left on device"):
        run_step(folder, combined(2), fail)
    assert list(tmp_path.iterdir()) == []
    for left in ("tok.partial", "tok.node17.4242.partial"):  # of a process that was killed
        (tmp_path / left).mkdir()
        (tmp_path / left / "b").touch()
    run_step(folder, combined(2), lambda f: (f / "a").write_text("two") and {})
    assert sorted(p.name for p in folder.iterdir()) == ["a", MADE]
    assert [path.name for path in tmp_path.iterdir()] == ["tok"]
    assert json.loads((folder / MADE).read_text())["digest"] == combined(2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """BPE of a few words, with a rare character that no piece has."""
    folder = tmp_path_factory.mktemp("spm")
    rng = np.random.default_rng(1)
    for lang in ("de", "en"):
        words = rng.choice(["haus", "baum", "katze", "hund", "tisch"], (5000, 8))
        rows = [" ".join(row) for row in words] + ["漢字"]
        (folder / f"train.{lang}").write_text("".join(f"{row}\n" for row in rows))
    paths = [folder / "train.de", folder / "train.en"]
    subwords.train(paths, 5001, folder / subwords.MODEL, 50, 0.9999)
    return folder / subwords.MODEL


def test_dictionary_is_the_pieces(model, tmp_path):
    """Rare characters are <unk>: a dictionary of the text would have an entry for each word."""
    words = subwords.dictionary(model)
    assert len(words) % 8 == 0 and 50 <= len(words) < 50 + 1 + 8
    (row,), longest = subwords.Encoder(model, None)([("haus 漢字",)])
    assert row == ("▁haus ▁ 漢字",) and longest == (3, 0)
    assert words.index("漢字") == words.unk() != words.index("▁haus")
    words.save(str(tmp_path / "dict.txt"))
    assert Dictionary.load(str(tmp_path / "dict.txt")).symbols == words.symbols


def test_symbols_are_in_no_other_subword(tmp_path):
    paths = [tmp_path / "train.de", tmp_path / "train.en"]
    for path in paths:
        path.write_text("17. baum, haus 17:30\n" * 100)
    for symbols in ((), (".", ":", ",")):
        subwords.train(paths, 100, tmp_path / subwords.MODEL, 36, 1.0, symbols)
        pieces = subwords.dictionary(tmp_path / subwords.MODEL).symbols
        odd = [piece for piece in pieces if len(piece) > 1 and {*".:,"} & {*piece}]
        assert bool(odd) == (not symbols), odd
        assert {*".:,"} <= {*pieces}


def test_the_number_of_subwords_is_mended_in_the_right_direction(tmp_path):
    """As told, to the number: that is taken."""
    paths = [tmp_path / "train.de", tmp_path / "train.en"]
    for path in paths:
        path.write_text("haus baum katze hund\n" * 9)

    def train(types):
        subwords.train(paths, 9, tmp_path / "spm.model", types, 1.0)

    for types, wrong in ((1, "larger"), (2, "larger"), (5, "larger"), (9999, "smaller")):
        with pytest.raises(UserError, match=f"no {types} subwords from .* {wrong} number") as error:
            train(types)
        assert ("larger" in error.value.message) != ("smaller" in error.value.message)
        if number := re.search(r"--subwords (\d+)", error.value.message):
            train(int(number[1]))


def test_longest_line_and_its_index(model):
    encoded, longest = subwords.Encoder(model, Clean((1, 3), 1.5))(
        [("haus", "haus"), ("haus", "haus baum"), ("haus " * 4, "hund"), ("", "")]
    )
    assert encoded == [("▁haus", "▁haus"), None, None, None] and longest == (4, 2)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_binarized_as_by_fairseq(model, tmp_path, monkeypatch, count):
    """The bytes that fairseq's own binarizer writes."""
    from fairseq.binarizer import FileBinarizer, VocabularyDatasetBinarizer

    monkeypatch.setattr(parallel, "BATCH", 7)
    words, text = subwords.dictionary(model), tmp_path / "train.de"
    rows = ["▁haus ▁ 漢字 ▁baum", "", "▁hund", "nie 漢"]
    text.write_text("".join(f"{rows[i % 4]}\n" for i in range(count)))
    FileBinarizer.multiprocess_dataset(
        str(text), "mmap", VocabularyDatasetBinarizer(words), str(tmp_path / "a"), len(words)
    )
    subwords.binarize(text, count, model, tmp_path / "b", 2)
    for end in ("bin", "idx"):
        assert (tmp_path / f"b.{end}").read_bytes() == (tmp_path / f"a.{end}").read_bytes()
    assert len(data_utils.load_indexed_dataset(str(tmp_path / "b"), words)) == count


def test_segments_of_other_ids_are_not_aligned(tmp_path):
    for name, ids in (("a.sgm", (1, 2, 4)), ("b.sgm", (1, 3, 4))):
        (tmp_path / name).write_text("".join(f'<seg id="{i}"> x </seg>\n' for i in ids))
    with pytest.raises(UserError, match="line 2 of .*a.sgm is segment b'2', line 2 of .* b'3'"):
        list(read_pairs(tmp_path / "a.sgm", tmp_path / "b.sgm", "segments"))


@pytest.mark.parametrize("name", ["iwslt14_de_en", "wmt14_en_fr", "phrases", "own"])
def test_a_manifest_gives_the_treatment_back(name):
    corpus = load_corpus(name)
    entries = json.loads(json.dumps(asdict(corpus)))
    for split in SPLITS:
        entries.pop(split)
    assert corpus_of(entries) == replace(corpus, **{split: () for split in SPLITS})
