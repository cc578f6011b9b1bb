"""What a report says of run folders: what is there, what is missing, where runs differ."""

import argparse
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fairseq_admin.analysis.labels import shortest
from fairseq_admin.omega_file import Profile, StackProfile, SublayerProfile
from fairseq_admin.reporting import report
from fairseq_admin.reporting.page import page
from fairseq_admin.reporting.report import same_sentences
from fairseq_admin.reporting.run import Run, by_hand
from fairseq_admin.reporting.run_folder import read_run
from fairseq_admin_cli.main import main

PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\10\0\0\0\0\x3a\x7e\x9bU\0\0\0\nIDATx\x9cc`\0\0\0"
    b"\2\0\1H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82"
)
SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
STACK = StackProfile(1.0, [SublayerProfile("encoder.layers.0.self_attn", 1.0, 0.5)])
PROFILE = Profile({"encoder": STACK, "decoder": StackProfile()}).to_dict()
RECORD = {
    "method": "admin",
    "layers": "12-12",
    "width": 96,
    "seed": 1,
    "updates": 1000,
    "wall_seconds": 3725.4,
    "commit": "f" * 40,
    "dirty": True,
    "hardware": "2 cores",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "config": {"common": {"seed": 1}, "model": {"_name": "transformer_admin", "dropout": 0.1}},
    "checkpoint": "mean.pt",
    "averaging": None,
    "decoding": "--beam 5",
    "sentences": 30,
    "scores": {"bleu": {"score": 96.44, "signature": SIGNATURE}},
    "fold": None,
    "profile": PROFILE,
    "train_ppl": [[20, 100.5], [40, 3.5]],
    "valid_ppl": [[40, 4.5]],
}
LOG = "train_inner | epoch 001: 5 / 9 loss=2, ppl={ppl}, num_updates={update}, lr=1"


def write_record(folder, **changes):
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    (folder / "eval" / "record.json").write_text(json.dumps({**RECORD, **changes}))
    return str(folder)


MODEL = argparse.Namespace(
    arch="transformer", encoder_layers=3, decoder_layers=2, encoder_embed_dim=32, seed=7
)


def write_checkpoint(folder, name="checkpoint_last.pt", updates=70, **state):
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {"common": {"seed": 7, "user_dir": "/home/of/nobody/plugin"}, "model": MODEL}
    whole = {
        "args": None,
        "cfg": cfg,
        "model": {"encoder.embed_tokens.weight": torch.zeros(2, 2)},
        "optimizer_history": [{"num_updates": updates}],
        "extra_state": {"previous_training_time": 61.0},
        "task_state": {},
        **state,
    }
    torch.save(whole, folder / name)
    return str(folder)


def write_generated(folder, count=30, hypothesis="h{}"):
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    ids = sorted(range(count), key=lambda i: -(i % 7))  # by length, as fairseq prints them
    blocks = [f"S-{i}\ts{i}\nT-{i}\tt{i}\nH-{i}\t-0.1\tx\nD-{i}\t-0.1\t{hypothesis}" for i in ids]
    text = "".join(block.format(i) + "\n" for block, i in zip(blocks, ids))
    (folder / "eval" / "generate.txt").write_text(text)


def commands(run):
    return {what.split()[0].strip(":,"): command for what, command in run.missing}


def test_a_record_tells_all_of_a_run(tmp_path):
    run = read_run(write_record(tmp_path))
    assert run.facts["method"] == "admin" and run.facts["commit"] == "f" * 40 + " with changes"
    assert run.config == {
        "common.seed": 1,
        "model._name": "transformer_admin",
        "model.dropout": 0.1,
    }
    assert run.scores == {"bleu": (96.44, SIGNATURE)}
    assert run.profile.to_dict() == PROFILE
    assert run.curves["train"] == [(20, 100.5), (40, 3.5)] and run.curves["diverged"] is None
    assert list(commands(run)) == ["translations"]


def test_a_plain_training_tells_what_its_newest_checkpoint_knows(tmp_path):
    write_checkpoint(tmp_path, "checkpoint1.pt", updates=99)
    run = read_run(write_checkpoint(tmp_path, task_state={"profile": PROFILE}))
    assert run.facts == {
        "method": "post-ln",
        "layers": "3-2",
        "width": 32,
        "seed": 7,
        "updates": 70,
        "wall_seconds": 61.0,
        "checkpoint": "checkpoint_last.pt",
    }
    assert run.config["common.user_dir"] == "plugin"  # no machine's paths
    assert run.profile.to_dict() == PROFILE and not run.scores
    evaluate = f"bash scripts/evaluate.sh {tmp_path}"
    assert commands(run) == {
        "hardware": evaluate,
        "scores": evaluate,
        "translations": evaluate,
        "curves": f"fairseq-train --log-file {tmp_path}/train.log ...",
    }
    assert [command for _, command in report.missing(run)].count(evaluate) == 1


def test_data_of_one_name_in_two_folders_differ(tmp_path):
    folders = []
    for corpus in ("wmt14", "iwslt14"):
        task = {"_name": "translation", "data": f"/data/{corpus}/bin"}
        cfg = {"task": task, "model": MODEL}
        folders.append(write_checkpoint(tmp_path / corpus, cfg=cfg))
    assert dict(report.collect(folders)["differing"]) == {"task.data": ["wmt14/bin", "iwslt14/bin"]}


def test_of_a_log_no_option_is_compared(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "train.log").write_text(LOG.format(ppl=9, update=9))
    folders = [write_checkpoint(tmp_path / "run"), str(tmp_path / "log")]
    assert "No option that all of them have differs" not in page(report.collect(folders), "x")
    folders = [folders[0], write_checkpoint(tmp_path / "another")]
    assert "No option that all of them have differs" in page(report.collect(folders), "x")


def test_translations_that_are_not_there_yet_are_missing(tmp_path):
    folder = write_checkpoint(tmp_path)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "generate.txt").touch()  # as a shell makes it
    assert {"scores", "translations"} <= commands(read_run(folder)).keys()


def test_without_the_scripts_other_commands_are_named(tmp_path):
    run = read_run(write_checkpoint(tmp_path / "a run"))
    decode, score = by_hand(run)
    folder = f"'{tmp_path}/a run/eval"
    assert decode.startswith(
        f"mkdir -p {folder}' && fairseq-generate DATA --user-dir fairseq_admin"
    )
    assert decode.endswith(f"--required-batch-size-multiple 1 > {folder}/generate.txt'")
    assert score.startswith(f"fairseq-admin score {folder}/generate.txt' --target-lang LANG")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "train.log").write_text(LOG.format(ppl=9, update=9))
    assert by_hand(read_run(str(tmp_path / "log"))) == []


@pytest.mark.parametrize("arch", ["lstm", "fconv_wmt_en_de"])
def test_what_is_no_transformer_is_called_by_its_architecture(tmp_path, arch):
    model = argparse.Namespace(arch=arch, encoder_layers=1, decoder_layers=1)
    run = read_run(write_checkpoint(tmp_path, cfg={"model": model}))
    assert run.facts["method"] == arch
    assert report.fact_rows([run])[0] == ("Method", [arch])


def test_a_bart_is_a_transformer(tmp_path):
    weights = {"encoder.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)}
    model = argparse.Namespace(arch="bart_large", encoder_normalize_before=False)
    run = read_run(write_checkpoint(tmp_path, cfg={"model": model}, model=weights))
    assert run.facts["method"] == "post-ln"


def test_without_a_last_checkpoint_the_newest_counts(tmp_path):
    write_checkpoint(tmp_path, "checkpoint2.pt", updates=20)
    write_checkpoint(tmp_path, "checkpoint10.pt", updates=100)
    assert read_run(str(tmp_path)).facts["updates"] == 100


def test_a_log_alone_tells_curves_and_that_it_diverged(tmp_path):
    ppls = [900, 40, 30, "nan"]
    (tmp_path / "train.log").write_text(
        "\n".join(LOG.format(ppl=ppl, update=10 * i) for i, ppl in enumerate(ppls, 1))
    )
    run = read_run(str(tmp_path))
    assert run.curves["train"] == [(10, 900), (20, 40), (30, 30)]
    assert run.curves["diverged"] == 40 and "nan" in run.curves["reason"]
    assert commands(run)["scores"] == ""  # nothing is left to evaluate


def test_scores_without_a_record_are_those_of_the_score_command(tmp_path):
    write_checkpoint(tmp_path)
    write_generated(tmp_path)
    score = f"fairseq-admin score {tmp_path}/eval/generate.txt --target-lang {{}} --output "
    score += f"{tmp_path}/eval/score.json"
    assert commands(read_run(str(tmp_path)))["scores"] == score.format("LANG")
    write_checkpoint(tmp_path, cfg={"task": {"target_lang": "de"}, "model": MODEL})
    assert commands(read_run(str(tmp_path)))["scores"] == score.format("de")
    (tmp_path / "eval" / "score.json").write_text(json.dumps({"scores": RECORD["scores"]}))
    run = read_run(str(tmp_path))
    assert run.scores == {"bleu": (96.44, SIGNATURE)} and "scores" not in commands(run)


def test_a_folder_with_spaces_is_quoted_in_commands(tmp_path):
    run = read_run(write_checkpoint(tmp_path / "my run"))
    assert commands(run)["scores"] == f"bash scripts/evaluate.sh '{tmp_path}/my run'"


def test_a_training_that_went_on_after_its_evaluation_is_told(tmp_path):
    write_record(tmp_path)
    run = read_run(write_checkpoint(tmp_path, updates=1000))
    assert not any("update" in what for what, _ in run.missing)
    run = read_run(write_checkpoint(tmp_path, updates=2000))
    assert any("after update 2000" in what for what, _ in run.missing)
    assert run.facts["updates"] == 1000  # as the scores


def test_figures_are_whole_png_files(tmp_path):
    folder = write_record(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "norms.png").write_bytes(PNG)
    (tmp_path / "eval" / "half.PNG").write_bytes(PNG[:40])
    (tmp_path / "none.png").symlink_to("nowhere.png")
    run = read_run(folder)
    assert [path.name for path in run.figures] == ["norms.png"]
    assert any("half.PNG" in what for what, _ in run.missing)


HUGE = {"input_var": None, "sublayers": [{"name": "x", "omega": 1e300, "branch_var": None}]}
DAMAGES = {
    "type": {"width": {}},
    "infinity": {"wall_seconds": float("inf")},
    "nan": {"scores": {"bleu": {"score": float("nan"), "signature": ""}}},
    "nan in words": {"scores": {"bleu": {"score": "nan", "signature": ""}}},
    "infinity in words": {"train_ppl": [[1, "inf"]]},
    "half a character": {"hardware": "\ud800"},
    "huge update": {"train_ppl": [[10**400, 2.0]]},
    "huge omega": {"profile": {**PROFILE, "stacks": {**PROFILE["stacks"], "decoder": HUGE}}},
    "short point": {"train_ppl": [[1]]},
}


def user_error(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    told = str(caught.value)
    assert told.startswith("fairseq_admin: ") and "\n" not in told
    return told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"name": "x"}',
        "\xff",
        "[" * 100000,
        *(json.dumps({**RECORD, **change}) for change in DAMAGES.values()),
        json.dumps({**RECORD, "wall_seconds": 1}).replace(": 1,", ": 1e999,"),
    ],
    ids=["empty", "cut", "list", "bare", "other", "bytes", "deep", *DAMAGES, "1e999"],
)
def test_a_damaged_record_is_named(tmp_path, text):
    path = tmp_path / "eval" / "record.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    assert str(path) in user_error(tmp_path, "--output", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_scores_that_are_no_numbers(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "eval").mkdir()
    scores = tmp_path / "eval" / "score.json"
    for score in ("NaN", "-Infinity", "1e999", '"inf"', "[]", "{}"):
        scores.write_text(f'{{"scores": {{"bleu": {{"score": {score}, "signature": ""}}}}}}')
        assert str(scores) in user_error(tmp_path, "--output", tmp_path / "r.html")


NAMES = ["eval/record.json", "eval/score.json", "eval/generate.txt", "train.log", "x.png"]
NAMES += ["figures", "checkpoint_last.pt", "events.out.tfevents.1", "valid/events.out.tfevents.1"]
KINDS = {
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("nowhere"),
    "fifo": os.mkfifo,
    "around": lambda path: path.symlink_to(path.parent),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_is_called_as_a_file_is_left_out(tmp_path, kind):
    """Also what was deleted between its listing and its reading: a link to nowhere."""
    write_checkpoint(tmp_path, "checkpoint1.pt")
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        KINDS[kind](tmp_path / name)
    run = read_run(str(tmp_path))
    assert run.facts["checkpoint"] == "checkpoint1.pt" and not run.scores and not run.figures
    main(["report", str(tmp_path), "--output", str(tmp_path / "r.html")])


def test_names_that_are_no_utf_8_or_formulas_are_shown(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path / "run") + b"\xff $\\frac{$")
    write_record(Path(folder))
    main(["report", folder, "--output", str(tmp_path / "r.html")])
    assert "run\\udcff $" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_mistakes_are_one_line_and_write_nothing(tmp_path, monkeypatch):
    run = write_record(tmp_path / "run")
    output = tmp_path / "page.html"
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "checkpoint_last.pt").write_bytes(b"x")
    assert "no such folder" in user_error(tmp_path / "none", "--output", output)
    assert "holds no run" in user_error(tmp_path / "empty", "--output", output)
    assert "checkpoint_last.pt" in user_error(run, tmp_path / "bad", "--output", output)
    assert "given twice" in user_error(run, f"{run}/.", "--output", output)
    assert "no such folder" in user_error(run, "--output", tmp_path / "none" / "page.html")
    record = tmp_path / "run" / "eval" / "record.json"
    assert "is an input" in user_error(run, "--output", record)
    assert json.loads(record.read_text()) == RECORD
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'fairseq_admin[analysis]'" in user_error(run, "--output", output)
    assert not output.exists() and not list(tmp_path.glob("*.partial"))


def test_labels_are_as_short_as_they_tell_runs_apart(tmp_path):
    paths = [str(tmp_path / name) for name in ("a/checkpoints", "b/checkpoints", "c")]
    assert shortest(paths) == ["a/checkpoints", "b/checkpoints", "c"]


def with_config(**options):
    return Run("x", config={name.replace("__", "."): value for name, value in options.items()})


def test_options_that_differ_are_told_once():
    a = with_config(
        common__seed=1, model__seed=1, optimization__lr=[0.1], optimizer__lr=[0.1], task___name="t"
    )
    b = with_config(
        common__seed=2, model__seed=2, optimization__lr=[0.2], optimizer__lr=[0.2], task___name="u"
    )
    b.config["model.omega_file"] = None
    a.config["checkpoint.save_dir"], b.config["checkpoint.save_dir"] = "a", "b"
    everywhere, somewhere = report.differing([a, b, Run("no configuration")])
    none = report.NOT_THERE
    assert everywhere == [
        ("common.seed", [1, 2, none]),
        ("optimization.lr", [[0.1], [0.2], none]),
        ("task._name", ["t", "u", none]),
    ]
    assert somewhere == [("model.omega_file", [none, None, none])]
    assert report.differing([a]) == ([], [])


def test_a_repeated_option_that_has_another_value_is_told():
    a, b = with_config(common__seed=1, task__seed=1), with_config(common__seed=1, task__seed=3)
    assert report.differing([a, b])[0] == [("task.seed", [1, 3])]


def translated(count, reference="t{}"):
    texts = {i: (f"s{i}", reference.format(i), f"h{i}") for i in range(count)}
    return Run("x", label="x", translations=texts)


def test_translations_are_spread_evenly_and_of_one_test_set():
    runs = [translated(1000), translated(1000, reference="T{} !"), translated(30)]
    groups = report.same_sets([*runs, Run("none")])
    assert groups == [runs[:2], runs[2:]]  # punctuation and case do not tell sets apart
    rows = report.translations(groups[0])
    assert [row["id"] for row in rows] == list(range(0, 1000, 100))
    assert rows[1]["hypotheses"] == [("x", "h100"), ("x", "h100")]
    assert len(report.translations([translated(4)])) == 4


def test_translations_are_read_in_order(tmp_path):
    write_generated(tmp_path, count=12)
    run = read_run(write_record(tmp_path))
    assert list(run.translations) == list(range(12)) and run.translations[3] == ("s3", "t3", "h3")


def test_signatures_are_told_once_and_of_whom_where_runs_differ():
    runs = [SimpleNamespace(label=n, scores={"bleu": (1.0, s)}) for n, s in ("aX", "bX", "cY")]
    found = report.signatures(runs)
    assert found == [("BLEU", "X", ["a", "b"]), ("BLEU", "Y", ["c"])]


def test_facts_are_for_people(tmp_path):
    data = report.collect([write_record(tmp_path / "a"), write_record(tmp_path / "b", width=128)])
    assert data["facts"] == [("Width", ["96", "128"])]
    same = dict(data["same_facts"])
    assert same["Time of training"][0] == "1 h 2 min" and same["Method"][0] == "Admin"
    assert same["Updates"][0] == "1,000" and "Averaged by" not in same
    assert report.duration(59.6) == "1 min 0 s" and report.duration(3) == "3 s"


def test_how_it_ended_stands_in_the_record(tmp_path):
    run = read_run(write_record(tmp_path, outcome="diverged", known=40))
    assert run.facts["outcome"] == "diverged, known at update 40"


def test_without_references_sources_tell_test_sets_apart():
    ours, theirs = ({0: (f"{x} eins", "", "h")} for x in "ab")
    assert same_sentences(ours, ours) and not same_sentences(ours, theirs)


def test_the_command_for_translations_takes_any_subwords(tmp_path):
    write_checkpoint(tmp_path)
    (decode, _) = by_hand(read_run(str(tmp_path)))
    assert "--remove-bpe" not in decode
