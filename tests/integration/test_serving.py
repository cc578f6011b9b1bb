"""Export and translate: the real commands, against `fairseq-generate` on the same sentences."""

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary, indexed_dataset

from corpora.corpus import Corpus
from corpora.prepare import write_manifest
from corpora.text import Treatment
from fairseq_admin.data_files import described
from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import Detokenizer, TextSteps, Tokenizer
from fairseq_admin.serving.export import export_model
from fairseq_admin.serving.pieces import check_sentencepiece
from fairseq_admin.serving.served import SETTINGS, Settings
from fairseq_admin.serving.translate import LineTranslator
from fairseq_admin_cli import main as cli
from tests.helpers import limited

SECONDS = 180  # until a process that waits for input counts as hanging
EVERY_SENTENCE = ["--required-batch-size-multiple", "1"]


def export(lab, checkpoint, data, output, *options):
    command = [lab.bin / "fairseq-admin", "export", checkpoint, "--data", data]
    return lab.run([*command, "--output", output, *options], cwd=output.parent)


@pytest.fixture(scope="module")
def served(admin, corpus, lab, tmp_path_factory):
    """The Admin model as a folder to serve, far from where its data is."""
    folder = tmp_path_factory.mktemp("export")
    export(lab, admin.checkpoints[120], corpus, folder / "model").ok()
    assert [path.name for path in folder.iterdir()] == ["model"]  # nothing half-written is left
    return shutil.move(str(folder / "model"), str(tmp_path_factory.mktemp("server") / "model"))


@pytest.fixture
def translate(lab, tmp_path):
    """Run the command on bytes: lines of standard output, standard error, exit code."""

    def run(folder, text, *options):
        (tmp_path / "in").write_bytes(text)
        script = 'exec "$@" < in > out'
        command = ["bash", "-c", script, "-", lab.bin / "fairseq-admin", "translate", folder]
        process = lab.run([*command, *options], cwd=tmp_path)
        output = (tmp_path / "out").read_bytes().decode()
        return SimpleNamespace(lines=output.split("\n"), told=process.output, code=process.code)

    return run


def test_translations_are_those_of_fairseq_generate(served, translate, admin, corpus, lab):
    """All of them by greedy search. Within a beam CTranslate2 forbids the end of the sentence in
    the first step before the softmax, fairseq after it: two hypotheses of different length whose
    scores lie closer than that can change places, in a model that has learned as little as this."""
    text = (corpus.parent / "test.de").read_bytes()
    same = {}
    for beam in ("1", "5"):
        generate = [lab.bin / "fairseq-generate", corpus, "--path", admin.checkpoints[120], "--cpu"]
        generate += ["--user-dir", lab.plugin, "--beam", beam, *EVERY_SENTENCE]
        found = lab.run(generate).ok().translations()
        expected = [*(found[i] for i in range(30)), ""]
        translated = translate(served, text, "--beam", beam)
        assert translated.code == 0, translated.told
        assert len(translated.lines) == len(expected) == 31
        same[beam] = sum(map(str.__eq__, translated.lines, expected))
        assert len(set(translated.lines)) > 10  # else any model would do
        assert "30 lines" in translated.told.splitlines()[-1]
        assert "\r" not in translated.told
    assert same["1"] == 31 and same["5"] >= 28


def test_a_model_of_moses_tokens_takes_and_gives_raw_text(
    admin, corpus, lab, served, translate, tmp_path
):
    how = ["--moses", "aggressive", "lowercase"]
    export(lab, admin.checkpoints[120], corpus, tmp_path / "model", *how).ok()
    words = (corpus.parent / "test.de").read_text().split()[:12]
    first, last = " ".join(words[:4]).upper(), " ".join(words[7:])
    raw = f"{first}, \u201e{words[5]}-{words[6]}\u201c.\r\n{last}."
    of_raw = translate(tmp_path / "model", raw.encode())
    assert of_raw.code == 0, of_raw.told
    tokenize, detokenize = Tokenizer("de", aggressive=True), Detokenizer("en")
    tokens = [tokenize(line).lower() for line in raw.split("\r\n")]
    assert f"{words[5]} @-@ {words[6]}" in tokens[0] and tokens[0].startswith(words[0])
    of_tokens = translate(served, "\n".join(tokens).encode())
    assert of_raw.lines == [*map(detokenize, of_tokens.lines[:-1]), ""]
    assert of_raw.lines != translate(served, raw.encode()).lines


def test_one_line_out_for_each_line_in(served, translate, corpus):
    a, b, c = (corpus.parent / "test.de").read_bytes().splitlines()[:3]
    clean = translate(served, b"\n".join([a, b, c, b"\xef\xbf\xbd " + a])).lines
    messy = [
        b"",
        a + b"\r",
        b"",
        b" \t",
        b + "\u2028\x85 ".encode(),
        c,
        b"\r",
        b"\xff " + a,
        b,
        b"",
    ]
    result = translate(served, b"\n".join(messy) + b"\n" + a, "--batch-tokens", "8")
    assert result.code == 0, result.told
    of_a, of_b, of_c, of_bad, end = clean
    assert result.lines == ["", of_a, "", "", of_b, of_c, "", of_bad, of_b, "", of_a, end]
    assert len({of_a, of_b, of_c}) == 3 and all(clean[:4])


def test_nothing_in_nothing_out(served, translate):
    result = translate(served, b"")
    assert (result.lines, result.code) == ([""], 0)


def test_what_is_cut_is_told(served, translate, corpus):
    lines = (corpus.parent / "test.de").read_text().splitlines()[:10]
    words = " ".join(lines * 20).split()
    text = "\n".join([*lines, "", " ".join(words), " ".join(words[:1023])]).encode()
    greedy = ["--beam", "1"]  # a wider beam may prefer a shorter translation to one that is cut
    whole, cut = (translate(served, text, *greedy, "--max-len", n) for n in ("200", "1"))
    assert (whole.code, cut.code) == (0, 0), cut.told
    assert len(words) > 1023 and whole.lines[11] == whole.lines[12]
    for told in (whole.told, cut.told):
        assert [line for line in told.splitlines() if "model takes" in line] == [
            f"line 12: {len(words)} tokens, the model takes 1023: "
            "the rest of the line is not translated"
        ]
    assert [line.split() for line in cut.lines] == [line.split()[:1] for line in whole.lines]
    longer = [n for n, line in enumerate(whole.lines, 1) if len(line.split()) > 1]
    told = [line for line in cut.told.splitlines() if "is cut" in line]
    assert told == [f"line {n}: its translation is cut at 1 tokens" for n in longer]
    assert longer


def test_reading_ahead_is_bounded(served, corpus):
    translator = LineTranslator(served, beam=1, batch_tokens=16, threads=2)
    sentences = (corpus.parent / "test.de").read_text().splitlines()
    taken = given = ahead = 0

    def source():
        nonlocal taken, ahead
        for line in (sentences + [""] * 30) * 40:
            taken += 1
            ahead = max(ahead, taken - given)
            yield line

    for _ in translator.translate(source()):
        given += 1
    assert given == taken == 60 * 40
    assert ahead < taken / 2


def test_a_closed_pipe_ends_it_quietly(served, lab, corpus, tmp_path):
    (tmp_path / "in").write_text((corpus.parent / "test.de").read_text() * 50)
    script = 'set -o pipefail; "$@" < in 2> err | head -n 1 > out'
    command = [lab.bin / "fairseq-admin", "translate", served, "--batch-tokens", "16"]
    run = lab.run(["bash", "-c", script, "-", *command, "--beam", "1"], cwd=tmp_path)
    assert run.code == 141, run.output  # of translate, as a program that SIGPIPE ended
    assert (tmp_path / "out").read_text().count("\n") == 1
    err = (tmp_path / "err").read_text()
    assert "Error" not in err and "Traceback" not in err and "Exception" not in err, err


def test_a_full_disk_is_told(served, lab):
    script = 'echo a | "$@" > /dev/full'
    command = [lab.bin / "fairseq-admin", "translate", served]
    run = lab.run(["bash", "-c", script, "-", *command])
    assert run.code == 1 and "No space left" in run.last_line and "Traceback" not in run.output


def test_where_input_pauses_what_has_come_is_translated(served, lab, corpus, tmp_path):
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [str(lab.bin / "fairseq-admin"), "translate", served],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
        )
        hangs = threading.Timer(SECONDS, process.kill)  # its output then ends
        hangs.start()
        try:
            for line in (corpus.parent / "test.de").read_bytes().splitlines()[:2]:
                process.stdin.write(line + b"\n\n")
                process.stdin.flush()
                assert process.stdout.readline().strip()
                assert process.stdout.readline() == b"\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
        finally:
            hangs.cancel()
            process.kill()
            process.communicate()
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.slow
def test_sentencepiece_models_come_along(corpus, lab, tmp_path, translate):
    text = corpus.parent
    sentencepiece.SentencePieceTrainer.train(
        input=f"{text}/train.de,{text}/train.en",
        model_prefix=str(tmp_path / "spm"),
        vocab_size=110,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,  # else the pieces differ from run to run
    )
    model = tmp_path / "spm.model"
    segment = sentencepiece.SentencePieceProcessor(model_file=str(model))
    preprocess = [lab.bin / "fairseq-preprocess", "-s", "de", "-t", "en", "--joined-dictionary"]
    preprocess += ["--destdir", tmp_path / "bin"]
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            lines = (text / f"{split}.{language}").read_text().splitlines()
            pieces = [" ".join(segment.encode(line, out_type=str)) + "\n" for line in lines]
            (tmp_path / f"{split}.{language}").write_text("".join(pieces))
        preprocess += [f"--{split}pref", tmp_path / split]
    lab.run(preprocess).ok()
    train = [lab.bin / "fairseq-train", tmp_path / "bin", "--arch", "transformer"]
    train += [*lab.sizes, *lab.recipe, "--encoder-layers", "1", "--decoder-layers", "1"]
    train += ["--task", "translation", "--max-tokens", "2000", "--max-update", "160"]
    train += ["--num-workers", "0", "--disable-validation", "--save-interval", "99"]
    lab.run([*train, "--save-dir", tmp_path]).ok()
    checkpoint = tmp_path / "checkpoint_last.pt"
    generate = [lab.bin / "fairseq-generate", tmp_path / "bin", "--path", checkpoint, "--cpu"]
    # stock fairseq: the plugin is what lets torch 2.6 load a checkpoint of fairseq-train
    generate += ["--user-dir", lab.plugin, "--remove-bpe", "sentencepiece", *EVERY_SENTENCE]
    found = lab.run(generate).ok().translations()
    reference = [found[i] for i in range(30)]

    folders = {"joint": [model], "two": [model, shutil.copy(model, tmp_path / "other.model")]}
    for name, models in folders.items():
        folder = tmp_path / name / "served"
        folder.parent.mkdir()
        export(lab, checkpoint, tmp_path / "bin", folder, "--sentencepiece", *models).ok()
        names = {path.name for path in folder.iterdir() if path.name.endswith(".model")}
        expected = {"spm.model"} if name == "joint" else {"source.spm.model", "target.spm.model"}
        assert names == expected
        result = translate(folder, (text / "test.de").read_bytes())
        assert result.lines == [*reference, ""], result.told
    assert len(set(reference)) > 3, reference


@pytest.fixture
def parts(transformer, corpus, tmp_path):
    """Arguments of an export that succeeds, in a folder where each may be spoilt."""
    shutil.copytree(corpus, tmp_path / "data")
    shutil.copy(transformer, tmp_path / "plain.pt")
    return SimpleNamespace(
        folder=tmp_path,
        checkpoint=tmp_path / "plain.pt",
        data=tmp_path / "data",
        output=tmp_path / "made" / "model",
        options={},
    )


def spoil_options(parts, **options):
    """Change options of the model in the checkpoint."""
    state = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)
    vars(state["cfg"]["model"]).update(options)
    torch.save(state, parts.checkpoint)


def no_dictionary(parts):
    (parts.data / "dict.en.txt").unlink()
    return "no such dictionary: .*dict.en.txt"


def other_dictionary(parts):
    with (parts.data / "dict.de.txt").open("a") as f:
        f.write("further 1\n")
    return "the encoder has 64 embeddings, but .*dict.de.txt makes 65"


def damaged_dictionary(parts):
    (parts.data / "dict.de.txt").write_text("no number\n")
    return "dict.de.txt is no dictionary"


def no_data(parts):
    parts.data = parts.folder / "nowhere"
    return "no such folder: .*nowhere"


def no_sentencepiece(parts):
    parts.options["sentencepiece"] = [str(parts.folder / "spm")]
    return "no such SentencePiece model: .*spm"


def damaged_sentencepiece(parts):
    parts.options["sentencepiece"] = [str(parts.checkpoint)]
    return "plain.pt is no SentencePiece model"


def other_sentencepiece(parts):
    text = parts.folder / "text"
    text.write_text("".join(f"{n} {n * n} {n**3}\n" for n in range(2000)))
    prefix = str(parts.folder / "spm")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=prefix, vocab_size=60, minloglevel=2
    )
    parts.options["sentencepiece"] = [f"{prefix}.model"]
    return "spm.model knows 0 of the 60 symbols in dict.de.txt"


def three_sentencepieces(parts):
    parts.options["sentencepiece"] = ["a", "b", "c"]
    return "or two"


def unequal_heads(parts):
    spoil_options(parts, encoder_attention_heads=4)
    return "CTranslate2 cannot run this model: .*heads"


def cross_self_attention(parts):
    spoil_options(parts, cross_self_attention=True)
    return "CTranslate2 leaves out what --cross-self-attention adds"


def quantization_noise(parts):
    state = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)
    state["model"]["encoder.quant_noise.weight"] = torch.eye(32)
    torch.save(state, parts.checkpoint)
    return "CTranslate2 leaves out what --quant-noise-pq adds"


def constants_of_a_fork(parts):
    spoil_options(parts, init_type="deepnet")
    return "is of a fork of fairseq that scales shortcuts or branches"


def not_to_be_folded(parts):
    spoil_options(parts, residual="keel")
    state = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)
    for layer in ("encoder.layers.%d", "decoder.layers.%d"):
        for name in ("self_attn", "ffn", *(["encoder_attn"] if "decoder" in layer else [])):
            for i in range(3):
                for part in ("weight", "bias"):
                    state["model"][f"{layer % i}.{name}_residual.norm.{part}"] = torch.ones(32)
    torch.save(state, parts.checkpoint)
    return "Keel does not fold into fairseq's transformer: it has two norms"


def weights_of_a_training_that_diverged(parts):
    state = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)
    state["model"]["encoder.layers.0.fc1.weight"][0, 0] = math.nan
    torch.save(state, parts.checkpoint)
    return "encoder.layers.0.fc1.weight holds NaN or infinity"


def symbols_in_another_order(parts):
    path = parts.data / "dict.de.txt"
    dictionary = [Dictionary.load(str(parts.data / f"dict.{lang}.txt")) for lang in ("de", "en")]
    state = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)
    state["task_state"] = {"text": described(("de", "en"), dictionary)}
    torch.save(state, parts.checkpoint)
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    return "was trained with other dictionaries than these data have"


def sides_without_languages(parts):
    spoil_options(parts, source_lang="source", target_lang="target")
    state = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)
    state["cfg"]["task"] = None
    torch.save(state, parts.checkpoint)
    for side, language in (("source", "de"), ("target", "en")):
        (parts.data / f"dict.{language}.txt").rename(parts.data / f"dict.{side}.txt")
    parts.options["moses"] = []
    return "'source' is no language code: .*: give --source-lang"


def output_exists(parts):
    parts.output.mkdir()
    return "exists: .*--force"


def output_of_others(parts):
    parts.output.mkdir()
    (parts.output / "thesis.tex").touch()
    parts.options["force"] = True
    return "is no folder of fairseq-admin export"


def output_nowhere(parts):
    parts.output = parts.folder / "nowhere" / "model"
    return "no such folder: .*nowhere"


def pieces_of_subword_nmt(parts):
    path = parts.data / "dict.de.txt"
    path.write_text(path.read_text().replace(" ", "@@ "))
    parts.options["moses"] = []
    return "dict.de.txt holds subword-nmt's pieces"


def no_positions(parts):
    spoil_options(parts, max_source_positions=None)
    return "says nothing of its positions"


CASES = [
    no_dictionary,
    constants_of_a_fork,
    other_dictionary,
    damaged_dictionary,
    no_data,
    no_sentencepiece,
    damaged_sentencepiece,
    other_sentencepiece,
    three_sentencepieces,
    unequal_heads,
    cross_self_attention,
    quantization_noise,
    not_to_be_folded,
    sides_without_languages,
    weights_of_a_training_that_diverged,
    symbols_in_another_order,
    output_exists,
    output_of_others,
    output_nowhere,
    no_positions,
    pieces_of_subword_nmt,
]


def test_escapes_in_the_dictionary_are_told_where_nothing_says_moses(parts, caplog):
    path, text = parts.data / "dict.de.txt", parts.folder / "text"
    path.write_text("&apos; 9\n" + path.read_text().partition("\n")[2])
    shutil.copy(path, parts.data / "dict.en.txt")
    words = [line.split()[0] for line in path.read_text().splitlines()]
    text.write_text(" ".join(words) * 9)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(parts.folder / "spm"),
        vocab_size=100,
        hard_vocab_limit=False,
        user_defined_symbols=words,
        minloglevel=2,
    )
    (parts.folder / "made").mkdir()
    given = (str(parts.checkpoint), str(parts.data), str(parts.output))
    for moses, told in (([], False), (None, True)):
        export_model(*given, [str(parts.folder / "spm.model")], moses=moses, force=told)
        assert ("dict.de.txt holds &apos;: where the text was Moses-" in caplog.text) == told


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_refused_exports(case, parts):
    (parts.folder / "made").mkdir()
    message = case(parts)
    before = files_below(parts.folder)
    with pytest.raises(UserError, match=message) as error:
        export_model(str(parts.checkpoint), str(parts.data), str(parts.output), **parts.options)
    assert "\n" not in error.value.message and len(error.value.message) < 500
    assert files_below(parts.folder) == before


def test_a_full_disk_leaves_nothing(parts, monkeypatch):
    """The converter's checkpoint does not fit; it fits, but not the model, which has tables of
    positions too."""
    (parts.folder / "made").mkdir()
    (parts.folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parts.folder / "tmp"))
    weights = torch.load(parts.checkpoint, map_location="cpu", weights_only=True)["model"]
    size = sum(4 * tensor.numel() for tensor in weights.values())
    before = files_below(parts.folder)
    arguments = [str(x) for x in (parts.checkpoint, parts.data, parts.output)]
    for limit in (1000, size + 50_000):
        with limited(limit), pytest.raises(UserError, match="cannot write ") as error:
            export_model(*arguments)
        assert "\n" not in error.value.message
        assert files_below(parts.folder) == before


PIECES = [
    "„So“, sagte er",
    "it’s",
    "e-mail",
    "–",
    "\xa0",
    "\u200b",
    "z. B.",
    "\t ",
    "3,5\xa0%",
    "…",
]
PIECES += [
    "«\xa0oui\xa0»",
    "don‘t",
    "(a)",
    "&",
    "A.",
    "\u2028",
    "2\u2009000",
    "ÄÖ",
    "x--y",
    "\x85",
    "!",
]
TREATED = {
    "own": {"normalize": True},
    "wmt": {"normalize": True, "aggressive": True},
    "iwslt": {"lowercase": True},
    "tokenized": {"tokenized": True},
    "raw": {"moses": False},
}


@pytest.mark.parametrize("case", TREATED)
def test_served_text_is_prepared_text(case, parts):
    """1,000 lines: cut into the pieces that the same lines are after their preparation."""
    corpus = Corpus("x", ("de", "en"), **TREATED[case])
    (parts.folder / "made").mkdir()
    write_manifest(corpus, {}, parts.folder)
    words = (parts.data / "dict.de.txt").read_text().split()[::2]
    draw = random.Random(1)
    text = [" ".join(draw.choices(words + 3 * PIECES, k=12)) for _ in range(1000)]
    (parts.folder / "text").write_text("\n".join(text))
    sentencepiece.SentencePieceTrainer.train(
        input=str(parts.folder / "text"),
        model_prefix=str(parts.folder / "spm"),
        user_defined_symbols=words,
        vocab_size=300,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    model = str(parts.folder / "spm.model")
    arguments = [str(x) for x in (parts.checkpoint, parts.data, parts.output)]
    export_model(*arguments, sentencepiece=[model])
    translator = LineTranslator(str(parts.output), threads=1)
    source = text
    if corpus.tokenized:  # what was given to the preparation then
        source = list(map(TextSteps("de"), text))
    pairs = [((i, x.encode()), (i, x.encode())) for i, x in enumerate(source)]
    prepared = [pair[0] for pair in Treatment(corpus, training=False, raw=False)(pairs).tokens]
    pieces = sentencepiece.SentencePieceProcessor(model_file=model).encode(prepared, out_type=str)
    assert [translator.encode(line, i) for i, line in enumerate(text)] == pieces
    assert len(set(map(tuple, pieces))) > 900


def test_another_sentencepiece_model_of_the_same_text_is_told(tmp_path, caplog):
    """A larger one knows all pieces of the smaller one, and cuts otherwise."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdef", k=6)) for _ in range(60)]
    lines = [" ".join(draw.choices(words, k=8)) for _ in range(200)]
    (tmp_path / "text").write_text("\n".join(lines))
    for size in (40, 90):
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "text"),
            model_prefix=str(tmp_path / str(size)),
            vocab_size=size,
            model_type="bpe",
            minloglevel=2,
        )
    models = [str(tmp_path / f"{size}.model") for size in (40, 90)]
    own = sentencepiece.SentencePieceProcessor(model_file=models[0])
    dictionary = Dictionary()
    text = [
        dictionary.encode_line(" ".join(own.encode(line, out_type=str))).long() for line in lines
    ]
    for language in ("de", "en"):
        path = str(tmp_path / f"test.de-en.{language}")
        builder = indexed_dataset.make_builder(f"{path}.bin", "mmap", vocab_size=len(dictionary))
        for tokens in text:
            builder.add_item(tokens)
        builder.finalize(f"{path}.idx")
    data, nothing = str(tmp_path), str(tmp_path / "dictionaries alone")
    check_sentencepiece(models[0], dictionary, "en", data, ("de", "en"))
    check_sentencepiece(models[1], dictionary, "en", nothing, ("de", "en"))
    assert not caplog.text
    check_sentencepiece(models[1], dictionary, "en", data, ("de", "en"))
    assert "cuts 100 of 100 sentences of en in" in caplog.text


def test_languages_of_sides_that_are_called_otherwise(parts):
    (parts.folder / "made").mkdir()
    sides_without_languages(parts)
    arguments = [str(x) for x in (parts.checkpoint, parts.data, parts.output)]
    export_model(*arguments, moses=[], source_lang="de", target_lang="en")
    settings = Settings.load(parts.output)
    assert (settings.source_lang, settings.target_lang, settings.text) == ("de", "en", "moses")
    assert (parts.output / "dict.source.txt").exists()


def test_the_translation_is_detokenized_as_its_language_and_lengths_weigh_as_given(parts):
    (parts.folder / "made").mkdir()
    sides_without_languages(parts)
    arguments = [str(x) for x in (parts.checkpoint, parts.data, parts.output)]
    export_model(*arguments, moses=[], source_lang="de", target_lang="fr")
    translator = LineTranslator(str(parts.output), lenpen=0.3, threads=1)
    assert translator.text(["l&apos;", "homme", "."], 1) == "l'homme."
    assert translator.decoding["length_penalty"] == 0.3


def test_without_ctranslate2(parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2.converters", None)
    (parts.folder / "made").mkdir()
    with pytest.raises(UserError, match=r"pip install 'fairseq_admin\[serve\]'"):
        export_model(str(parts.checkpoint), str(parts.data), str(parts.output))
    assert not list((parts.folder / "made").iterdir())


def test_force_replaces_an_earlier_export(parts):
    (parts.folder / "made").mkdir()
    arguments = [str(parts.checkpoint), str(parts.data), str(parts.output)]
    export_model(*arguments)
    sizes = [(parts.output / "model.bin").stat().st_size]
    (parts.output / "of the old one").touch()
    export_model(*arguments, quantization="int8", force=True)
    sizes.append((parts.output / "model.bin").stat().st_size)
    assert sizes[1] < 0.7 * sizes[0]  # positions, half of this small model, stay float32
    assert Settings.load(parts.output).quantization == "int8"
    assert not (parts.output / "of the old one").exists()
    assert [path.name for path in parts.output.parent.iterdir()] == ["model"]


def test_the_folder_is_for_everyone_who_may_read(parts):
    (parts.folder / "made").mkdir()
    export_model(str(parts.checkpoint), str(parts.data), str(parts.output))
    ordinary = parts.folder / "ordinary"
    ordinary.mkdir()
    assert parts.output.stat().st_mode == ordinary.stat().st_mode


def test_refused_folders(translate, corpus, served, tmp_path):
    shutil.copytree(served, tmp_path / "damaged")
    model = tmp_path / "damaged" / "model.bin"
    data = model.read_bytes()
    model.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    shutil.copytree(served, tmp_path / "other")
    (tmp_path / "other" / "model.bin").write_bytes(b"nothing")
    settings = json.loads((tmp_path / "other" / SETTINGS).read_text())
    (tmp_path / "other" / SETTINGS).write_text(json.dumps({**settings, "sums": {}}))
    folders = {
        tmp_path / "nowhere": "no such folder",
        corpus: f"it has no {SETTINGS}",
        tmp_path / "damaged": "damaged: model.bin is not what was exported",
        tmp_path / "other": "CTranslate2 cannot load",
    }
    for folder, told in folders.items():
        result = translate(folder, b"a\n")
        assert result.code == 1 and result.lines == [""]
        last = result.told.splitlines()[-1]
        assert (
            last.startswith("fairseq_admin: ") and told in last and "Traceback" not in result.told
        )


@pytest.mark.parametrize("option", ["--beam", "--max-len", "--batch-tokens", "--threads"])
def test_numbers_below_one_are_refused(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["translate", "FOLDER", option, "0"])
    assert f"argument {option}: 0 is not above 0" in capsys.readouterr().err
