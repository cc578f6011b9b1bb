"""scripts/evaluate.sh: from a run folder to a record, once."""

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary

from corpora.corpus import Corpus
from corpora.prepare import write_manifest
from fairseq_admin.errors import UserError
from fairseq_admin.serving.served import Settings
from fairseq_admin_cli import main as cli
from records import evaluation
from records.options import check_scoring, parsed
from records.record import git, trained_record
from records.table import table

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DECODING = "--beam 4 --max-tokens 2000 --cpu"
MEAN = ["--num-update-checkpoints", "2"]
COMMIT = 40 * (SCRIPTS.parent / ".git").exists()  # characters of the record's


@pytest.fixture(scope="module")
def evaluate(corpus, lab):
    """Runs what the script does on a run folder; `by_script`, with a start of the script itself."""

    def run(folder, *options, by_script=False):
        start = [lab.bin / "python", "-W", "ignore", SCRIPTS, "records.evaluation"]
        if by_script:
            start = ["bash", SCRIPTS / "evaluate.sh"]
        command = [*start, folder, "--data", corpus, "--decoding", DECODING, *options]
        return lab.run(command, env={"PATH": f"{lab.real}:/usr/bin:/bin"})

    return run


@pytest.fixture
def main(monkeypatch):
    """`evaluate.sh` with these arguments in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.sh", *map(str, arguments)])
        evaluation.main()

    return run


@pytest.fixture(scope="module")
def evaluated(admin, evaluate, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    reference = corpus.parent / "test.en"
    run = evaluate(admin.folder, "--output", out, "--reference", reference, *MEAN).ok()
    record = json.loads((out / "record.json").read_text())
    return SimpleNamespace(folder=admin.folder, run=run, out=out, record=record)


def test_the_record_says_what_was_run(evaluated, admin, corpus, lab):
    record = evaluated.record
    assert record["unigram_bits"] > 1
    assert (record["method"], record["layers"], record["updates"]) == ("admin", "3-3", 120)
    assert record["config"]["optimizer"]["_name"] == "adam" and record["seed"] == 1
    assert [name.split("_")[-1] for name in record["averaged"]] == ["100.pt", "60.pt"]
    assert record["averaging"] == "--num-update-checkpoints 2"
    assert record["decoding"].startswith("--gen-subset test --beam 4")
    assert record["wall_seconds"] > 0 and len(record["commit"]) == COMMIT
    last = lab.load(admin.folder / "checkpoint_last.pt")
    assert record["profile"] == lab.profile_of(last).to_dict()
    assert record["versions"]["fairseq_admin"] and record["hardware"]
    for scores in record["scores"].values():
        assert scores["score"] >= 0 and "version:" in scores["signature"]
    assert "/" not in json.dumps(record["config"])  # no machine's paths
    assert not record["config"].keys() & record["config"]["task"].keys()  # an option once


def test_without_a_log_nothing_is_said_of_the_training(evaluated, keel):
    told = "the record will not tell how the training went and ended"
    line = f"evaluate: {told}: {evaluated.folder} holds no perplexity: give the log"
    assert line in evaluated.run.output
    assert (evaluated.record["outcome"], evaluated.record["train_ppl"]) == (None, [])
    assert told not in keel.output
    assert keel.record["outcome"] in ("trained", "stuck") and keel.record["train_ppl"]


@pytest.mark.parametrize(
    "wrong", ["--subset tset", "--tokenize fores", "--num-epoch-checkpoints 50"]
)
def test_a_mistake_removes_nothing(main, wrong, evaluated, admin, corpus, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(evaluated.out, out)

    def files():
        return {p.name: p.read_bytes() for p in out.iterdir() if p.suffix != ".lock"}

    before = files()
    with pytest.raises(UserError, match="no split tset|no tokenizer fores|not 50"):
        main(admin.folder, "--output", out, "--data", corpus, *wrong.split())
    assert files() == before


CASES = ["of others", "training text", "reference", "another reference", "dictionary", "link"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told_before_hours_of_decoding(main, case, admin, corpus, tmp_path):
    data, reference, out = tmp_path / "data", corpus.parent / "test.en", tmp_path / "out"
    shutil.copytree(corpus, data)
    out.mkdir()
    if case == "of others":
        (out / "mean.pt").write_text("mine")
        told = "mean.pt was not made by evaluate.sh: move it"
    elif case == "training text":
        with (data / "train.de-en.en.bin").open("r+b") as f:
            f.truncate(99)
        told = "train.de-en.en.bin is cut off"
    elif case == "another reference":
        reference = corpus.parent / "test.de"
        told = "T- lines of .*test.de-en.en differ from .*test.de for"
    elif case == "dictionary":  # as many symbols
        path = data / "dict.en.txt"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
        told = "checkpoint_.*pt was trained with other dictionaries than these data have"
    elif case == "link":
        (data / "train1.de-en.de.bin").symlink_to(tmp_path / "gone")
        told = "cannot read .*train1.de-en.de.bin"
    else:
        lines = [f"@@ {line}" for line in reference.read_text().splitlines()]
        reference = tmp_path / "test.bpe.en"
        reference.write_text("".join(f"{line}\n" for line in lines))
        told = "test.bpe.en is cut into subwords"
    given = [admin.folder, "--output", out, "--data", data, "--reference", reference, *MEAN]
    with pytest.raises(UserError, match=told):
        main(*given)
    assert not list(out.glob("generate*"))
    assert case != "of others" or (out / "mean.pt").read_text() == "mine"


def test_without_the_training_text_nobody_knows_whether_it_was_stuck(admin, corpus, tmp_path):
    checkpoint = admin.folder / "checkpoint_last.pt"
    shutil.copytree(admin.folder, tmp_path / "run")
    (tmp_path / "run" / "train.log").write_text(admin.run.output)
    shutil.copytree(corpus, tmp_path / "data")
    found = [trained_record(tmp_path / "run", checkpoint, corpus)]
    for path in (tmp_path / "data").glob("train.*"):
        path.unlink()
    found.append(trained_record(tmp_path / "run", checkpoint, tmp_path / "data"))
    assert [record["outcome"] for record in found] == ["trained", None]
    assert found[1]["known"] is None and found[1]["train_ppl"] == found[0]["train_ppl"]


def test_a_log_that_comes_later_is_told(evaluated, evaluate, admin, corpus, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(admin.folder, run)
    shutil.copytree(evaluated.out, out)
    inputs = (out / "inputs").read_text().replace(str(admin.folder), str(run))
    (out / "inputs").write_text(inputs.replace(str(evaluated.out), str(out)))
    (run / "train.log").write_text(admin.run.output)
    given = ["--output", out, "--reference", corpus.parent / "test.en", *MEAN]
    for to in ("score", "fold", "fold"):
        said = evaluate(run, *given, "--to", to).ok().output
        if to == "score":
            assert json.loads((out / "record.json").read_text()) == evaluated.record
            continue
        record = json.loads((out / "record.json").read_text())
        assert record["train_ppl"] and record["outcome"] and record["scores"]
    assert "was already there" in said


def test_the_folded_model_translates_the_same(evaluated):
    fold = evaluated.record["fold"]
    assert fold["same_translations"] == evaluated.record["sentences"] == 30
    assert "in fp64" in fold["difference"]
    assert (evaluated.out / "folded.pt").exists()


def test_the_score_is_that_of_the_score_command(evaluated, corpus, lab):
    command = [lab.bin / "fairseq-admin", "score", evaluated.out / "generate.txt"]
    run = lab.run([*command, "--target-lang", "en", "--reference", corpus.parent / "test.en"]).ok()
    text = run.output[run.output.index("{\n") :]
    assert json.loads(text)["scores"] == evaluated.record["scores"]


def test_nothing_is_done_twice(evaluated, admin, evaluate, corpus):
    before = {path: path.stat().st_mtime_ns for path in evaluated.out.iterdir()}
    options = ["--output", evaluated.out, "--reference", corpus.parent / "test.en", *MEAN]
    run = evaluate(admin.folder, *options).ok()
    assert "was already there" in run.output and "BLEU" in run.output
    after = {path: path.stat().st_mtime_ns for path in evaluated.out.iterdir()}
    assert {p: t for p, t in after.items() if p.name != "inputs"} == {
        p: t for p, t in before.items() if p.name != "inputs"
    }


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_and_another_option_starts_anew(
    admin, evaluate, evaluated, tmp_path
):
    first = evaluate(admin.folder, "--output", tmp_path, *MEAN).ok()
    assert first.output.count("evaluate: translating") == 2
    for name in ("record.json", "score.json"):
        (tmp_path / name).unlink()
    (tmp_path / "folded.txt").rename(tmp_path / "folded.txt.partial")  # as if killed while at it
    again = evaluate(admin.folder, "--output", tmp_path, *MEAN).ok()
    assert again.output.count("evaluate: translating") == 1
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["fold"] == evaluated.record["fold"]
    other = evaluate(admin.folder, "--output", tmp_path, "--num-update-checkpoints", "1").ok()
    assert other.output.count("evaluate: translating") == 2
    assert len(json.loads((tmp_path / "record.json").read_text())["averaged"]) == 1


@pytest.mark.slow
def test_a_baseline_has_a_record_too(transformer, evaluate, tmp_path):
    evaluate(transformer.parent, "--output", tmp_path, by_script=True).ok()
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["method"], record["fold"], record["profile"]) == ("post-ln", None, None)
    assert record["checkpoint"] == "checkpoint_best.pt" and record["averaged"] is None


@pytest.fixture(scope="module")
def keel(corpus, lab, evaluate, tmp_path_factory):
    """A run of a method that does not fold, evaluated, and what that printed."""
    folder, reference = tmp_path_factory.mktemp("keel"), corpus.parent / "test.en"
    command = lab.train_command(corpus, folder, "--residual", "keel", "--max-update", "4")
    lab.run([*command, "--log-file", folder / "train.log"]).ok()
    run = evaluate(folder, "--reference", reference, "--sentencepiece", reference).ok()
    record = json.loads((folder / "eval" / "record.json").read_text())
    return SimpleNamespace(folder=folder, output=run.output, record=record)


def test_a_method_that_does_not_fold_has_a_record_and_says_why(keel):
    (told,) = (line for line in keel.output.splitlines() if "Keel" in line)
    assert told.startswith("evaluate: no fold and no export: Keel does not fold into fairseq's")
    record, made = keel.record, {path.name for path in (keel.folder / "eval").iterdir()}
    assert (record["method"], record["fold"], record["profile"]) == ("keel", None, None)
    assert record["sentences"] == 30
    assert not made & {"folded.pt", "folded.txt", "fold.txt", "serve"}


def test_such_a_record_stands_in_table_and_report(keel, tmp_path, monkeypatch):
    assert "| Keel | 3-3 | 4 |" in table(["method", "layers", "updates"], [keel.record])
    monkeypatch.setattr(sys, "argv", ["fairseq-admin"])
    cli.main(["report", str(keel.folder), "--output", str(tmp_path / "report.html")])
    assert "Keel" in (tmp_path / "report.html").read_text()


def test_a_run_that_crashed_has_a_record_and_no_scores(main, admin, corpus, tmp_path, capsys):
    """As fairseq leaves it: its log ends with the reason, crash.pt beside it."""
    run = tmp_path / "run"
    run.mkdir()
    log = (admin.folder / "printed").read_text()
    (run / "train.log").write_text(f"{log}FloatingPointError: gradients are Nan/Inf\n")
    with pytest.raises(UserError, match="its record needs --data and .*crash.pt"):
        main(run, "--data", corpus)
    (run / "crash.pt").symlink_to(admin.folder / "checkpoint_last.pt")
    main(run, "--data", corpus)
    assert "run: diverged, known at update 120" in capsys.readouterr().out
    record = json.loads((run / "eval" / "record.json").read_text())
    assert (record["outcome"], record["known"], record["scores"]) == ("diverged", 120, None)
    assert record["unigram_bits"] > 1 and record["layers"] == "3-3"
    cli.main(["report", str(run), "--output", str(tmp_path / "report.html")])
    assert "diverged" in (tmp_path / "report.html").read_text()
    assert "| 1 of 1 (1 diverged) | – |" in table(["method", "failed", "bleu"], [record])


@pytest.mark.parametrize("name", ["run/checkpoint1.pt", "reference", "spm", "data/test.bin"])
def test_what_changed_is_evaluated_anew(tmp_path, name):
    files = ("run/checkpoint1.pt", "reference", "spm", "data/test.bin")
    for path in map(tmp_path.joinpath, files):
        path.parent.mkdir(exist_ok=True)
        path.write_text("a")
    given = {"reference": tmp_path / "reference", "sentencepiece": tmp_path / "spm"}
    options = Namespace(data=tmp_path / "data", to="fold", **given)
    one = SimpleNamespace(run=tmp_path / "run", options=options)
    before = evaluation.Evaluation.inputs(one)
    assert evaluation.Evaluation.inputs(one) == before
    (tmp_path / name).write_text("ab")
    assert evaluation.Evaluation.inputs(one) != before


def test_text_of_the_training_that_changed_is_evaluated_anew(transformer, corpus, lab, tmp_path):
    shutil.copytree(corpus, tmp_path / "data")
    state = lab.load(transformer)
    state["cfg"]["task"]["data"] = str(tmp_path / "data")
    torch.save(state, tmp_path / "checkpoint_best.pt")
    options = parsed([str(tmp_path)], "", evaluation.STEPS, evaluation.QUANTIZATIONS)
    one = evaluation.Evaluation(options, lock=0)
    before = one.inputs()
    assert one.inputs() == before
    (tmp_path / "data" / "test.de-en.en.bin").write_bytes(b"other text")
    assert one.inputs() != before


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    assert len(git("rev-parse", "HEAD")) == COMMIT
    monkeypatch.setattr("records.record.ROOT", tmp_path)  # within no repository, or in another's
    assert git("rev-parse", "HEAD") == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git("rev-parse", "HEAD") == ""


MISTAKES = {
    "which run?": [],
    "no such file or folder: /no/such/run": ["/no/such/run"],
    "no checkpoint": ["EMPTY"],
    "unknown option --lenpen": ["RUN", "--lenpen", "1"],
    "--data: expected one argument": ["RUN", "--data"],
    "no such file or folder: /no/such/file": ["RUN", "--reference", "/no/such/file"],
    "no binarized data in": ["RUN", "--data", "EMPTY"],
    "of updates (checkpoint_E_U.pt), not 9": ["RUN", "--num-update-checkpoints", "9"],
    "--quantization is of what is exported": ["RUN", "--quantization", "int8"],
    "--quantization int7: one of int8, ": [
        *("RUN", "--quantization", "int7", "--sentencepiece", "EMPTY")
    ],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_said_and_no_record_written(main, admin, tmp_path, message, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    words = {"RUN": admin.folder, "EMPTY": empty}
    arguments = [words.get(word, word) for word in MISTAKES[message]]
    if "RUN" in MISTAKES[message]:
        arguments = ["--output", tmp_path / "out", *arguments]
    with pytest.raises(SystemExit) as refused:
        main(*arguments)
    assert message in f"{refused.value} {capsys.readouterr().err}"
    assert not list(tmp_path.glob("**/record.json"))


def test_a_checkpoint_of_the_time_before_hydra_names_no_data(
    main, transformer, corpus, lab, tmp_path
):
    state = lab.load(transformer)
    state["args"], state["cfg"] = Namespace(arch="transformer"), None
    torch.save(state, tmp_path / "checkpoint_best.pt")
    with pytest.raises(UserError, match="no such data folder: .*: give --data"):
        main(tmp_path)
    record = trained_record(tmp_path, tmp_path / "checkpoint_best.pt", corpus)
    assert (record["method"], record["precision"]) == ("post-ln", "fp32") and record["hardware"]
    assert "| Post-LN | 0 of 1 |" in table(["method", "failed"], [record])


@pytest.fixture
def nameless(transformer, corpus, lab, tmp_path):
    """A run on data whose sides are called source and target; a function that gives the arguments
    of its evaluation."""
    state = lab.load(transformer)
    task = state["cfg"]["task"]
    task = vars(task) if isinstance(task, Namespace) else task
    task.update(source_lang="source", target_lang="target")
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "checkpoint_best.pt")
    (tmp_path / "bin").mkdir()
    for path in corpus.glob("[dt][ie]*.*"):
        name = path.name.replace(".de", ".source").replace(".en", ".target")
        shutil.copy(path, tmp_path / "bin" / name.replace("-en", "-target"))
    words = (corpus / "dict.de.txt").read_text().split()[::2]
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus.parent / "train.de"),
        model_prefix=str(tmp_path / "spm"),
        user_defined_symbols=words,
        vocab_size=200,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    given = [tmp_path / "run", "--data", tmp_path / "bin", "--moses"]
    return lambda *more: [*given, *more, "--sentencepiece", tmp_path / "spm.model"]


def test_sides_without_languages_are_asked_for_before_decoding(main, nameless, tmp_path):
    for given, told in ([], "--source-lang"), (["--source-lang", "de"], "--target-lang"):
        with pytest.raises(UserError, match=f"is no language code: .*: give {told}"):
            main(*nameless(*given))
    given = ["--source-lang", "de", "--target-lang", "ja", "--tokenize", "mine"]
    with pytest.raises(UserError, match="no tokenizer mine"):
        main(*nameless(*given))
    assert not list((tmp_path / "run" / "eval").glob("generate*"))


def test_languages_tokenizer_and_moses_are_handed_on(nameless, evaluate, tmp_path):
    given = ["--source-lang", "de", "--target-lang", "zh_CN", "--tokenize", "char"]
    run, *options = nameless(*given)
    evaluate(run, *options).ok()
    record = json.loads((run / "eval" / "record.json").read_text())
    assert list(record["scores"]) == ["bleu", "chrf", "ter"]
    assert "|tok:char|" in record["scores"]["bleu"]["signature"]
    settings = Settings.load(run / "eval" / "serve")
    assert (settings.text, settings.source_lang, settings.target_lang) == ("moses", "de", "zh_CN")


def test_a_manifest_says_whether_text_is_tokens(tmp_path):
    def checked(*arguments):
        options = parsed([str(tmp_path), *arguments], "", evaluation.STEPS, ["int8"])
        return check_scoring(options, tmp_path / "bin", ["de", "en"], Dictionary())

    (tmp_path / "bin").mkdir()
    assert (checked()["moses"], checked("--moses")["moses"]) == (False, True)
    write_manifest(Corpus("x", ("de", "en")), {}, tmp_path)
    assert checked()["moses"] and checked("--moses")["moses"]
    write_manifest(Corpus("x", ("de", "en"), moses=False), {}, tmp_path)
    assert not checked()["moses"]
    with pytest.raises(UserError, match="raw text by its manifest.json: leave --moses out"):
        checked("--moses")


@pytest.mark.slow  # its start
def test_a_mistake_of_the_script_is_one_line(lab):
    run = lab.run(
        ["bash", SCRIPTS / "evaluate.sh", "/no/such/run"], env={"PATH": f"{lab.real}:/usr/bin:/bin"}
    )
    assert run.code == 1 and run.output == "fairseq_admin: no such file or folder: /no/such/run\n"


def test_help_names_every_option(main, capsys):
    with pytest.raises(SystemExit) as end:
        main("--help")
    out = capsys.readouterr().out
    assert end.value.code == 0 and "--num-update-checkpoints" in out and "set -euo" not in out
