"""Studies: which trainings they are, how these end, and that pages hold their records alone."""

import json
import math
import random
import re
import sys
from collections import Counter
from dataclasses import asdict
from functools import lru_cache
from itertools import combinations, count
from pathlib import Path

import pytest
import torch
from fairseq.data import indexed_dataset

from corpora.corpus import load_corpus
from fairseq_admin import outcome
from fairseq_admin.analysis import plotting
from fairseq_admin.analysis.course import Curves
from fairseq_admin.analysis.logs import parse
from fairseq_admin.errors import UserError
from fairseq_admin.outcome import is_near, stuck, unigram_entropy
from fairseq_admin.text import read_json
from fairseq_admin.watch import FALLS
from recipes.ends import outcome_of, target_entropy
from records.columns import TOGETHER, last_fifth
from records.record import data_sha256
from records.table import rewritten, table
from studies import main
from studies import study as module
from studies.main import is_made, take_over
from studies.page import draw, page, records_of, write_page
from studies.study import RESULTS, Setting, choices, known_studies, load_study
from studies.trial import NEEDED, POINTS, Trial, read_record, thinned

STUDIES = {name: load_study(name) for name in known_studies()}
RECORDS = sorted(RESULTS.glob("*/*.json"))


NUMBERS = count()  # of definitions
# better than the unigrams after a third that was not: from update 650 of 750 on; in one stretch
LATE = {"lr_limit/post-ln_0.001", "lr_limit/analytic_0.016"}


@lru_cache(maxsize=None)  # a study has up to two hundred
def committed(name):
    """The trainings of a study by the file of their record."""
    return {trial.path: trial for trial in trials(STUDIES[name])}


def trials(study, results=RESULTS):
    nowhere = Path("/nowhere")
    return [Trial(study, s, nowhere, nowhere, results / study.name) for s in study.settings()]


# how a training ends


def test_entropy_is_that_of_a_hand_count():
    assert unigram_entropy([2, 1, 1, 0]) == pytest.approx(1.5)
    assert unigram_entropy([7]) == 0
    with pytest.raises(ValueError, match="no token"):
        unigram_entropy([])


def points(*bits, every=10):
    """A curve of perplexities of so many *bits*, a point each *every* updates."""
    return [(every * i, 2.0**b) for i, b in enumerate(bits, 1)]


def test_stuck_is_within_three_percent_from_a_third_on():
    assert stuck(points(9, 8, 7.8, 7.77), 8, after=30) == 30
    assert stuck(points(9, 8, 7.8, 7.75), 8, after=30) is None  # 8 * 0.97 = 7.76
    assert stuck(points(7, 7, 8), 8, after=30) == 30  # what was before does not count
    assert stuck(points(8, 8), 8, after=30) is None  # not known yet


@pytest.mark.parametrize("end", [(), (256,), (4096, 4096, 4096), (4,), ("nan",), (256, "crash")])
def test_what_comes_after_it_was_known_changes_nothing_where_it_is_stopped(end):
    """It may be stopped at once or some time later. What goes on to its end is judged by all."""
    crash = "FloatingPointError: gradients are Nan/Inf" if "crash" in end else ""
    curves = log(256, 256, *(x for x in end if x != "crash"), end=crash)
    assert outcome_of(curves, 8.0, updates=60, stopped=True) == ("stuck", 20)
    whole = {(4,): ("trained", 30), ("nan",): ("diverged", 30), (256, "crash"): ("diverged", 30)}
    assert outcome_of(curves, 8.0, updates=60) == whole.get(end, ("stuck", 20))


def test_a_crash_before_a_third_is_one_where_it_is_stopped_too():
    curves = log(256, end="FloatingPointError: gradients are Nan/Inf")
    assert outcome_of(curves, 8.0, updates=60, stopped=True) == ("diverged", 10)


def test_entropy_of_a_long_text_is_that_of_a_sample(tmp_path, monkeypatch):
    words, draw = [f"w{i}" for i in range(50)], random.Random(1)
    lines = [" ".join(draw.choices(words, k=draw.randrange(9))) for _ in range(4000)]
    for lang in ("de", "en"):
        made = indexed_dataset.make_builder(str(tmp_path / f"train.de-en.{lang}.bin"), "mmap", 99)
        for line in lines:
            made.add_item(torch.tensor([4 + words.index(w) for w in line.split()] + [2]))
        made.finalize(str(tmp_path / f"train.de-en.{lang}.idx"))
    target_entropy.cache_clear()
    exact = target_entropy(tmp_path, "de", "en")
    counts = Counter(" ".join(f"{line} </s>" for line in lines).split())
    assert exact == pytest.approx(unigram_entropy(list(counts.values())), rel=1e-9)
    monkeypatch.setattr(outcome, "SAMPLE", 500)
    target_entropy.cache_clear()
    sampled = target_entropy(tmp_path, "en", "de")  # the pair's other direction
    assert sampled == pytest.approx(exact, rel=0.02) and sampled != exact
    assert target_entropy(tmp_path, "de", "fr") is None


def log(*ppl, end=""):
    """A log of fairseq with these perplexities."""
    lines = (f"epoch 001: 1 / 9 ppl={x}, num_updates={10 * i}" for i, x in enumerate(ppl, 1))
    return parse("\n".join([*lines, end]))


def test_a_crash_is_told_before_all_else():
    curves = log(256, 256, 256, end="FloatingPointError: gradients are Nan/Inf")
    assert curves.crashed and outcome_of(curves, 8.0, 30) == ("diverged", 30)
    curves = log(256, 256, "nan")
    assert not curves.crashed and outcome_of(curves, 8.0, 90) == ("diverged", 30)


def test_one_that_learned_and_forgot_diverged_or_is_stuck():
    assert outcome_of(log(200, 20, 90, 90, 90), 8.0, 50) == ("diverged", 30)
    assert outcome_of(log(200, 20, 256, 256, 256), 8.0, 90) == ("stuck", 30)
    assert outcome_of(log(200, 20, 15, 14), 8.0, 40) == ("trained", 40)
    assert outcome_of(log(256, 256, 256), None, 30) == ("trained", 30)  # nothing to compare with
    assert outcome_of(log(256, 256, 256), 8.0, 900) == ("stuck", 10)  # ended before a third of 900


# which trainings a study is


def test_a_study_is_the_sum_of_products(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STUDIES", tmp_path)
    (tmp_path / "x.yaml").write_text(
        "{title: T, asks: A, corpus: c, conditions: [multi30k_admin_6l], table: method, "
        "overrides: [model.dropout=0.3], grids: [{optimization.lr: [0.1, 0.2], "
        "size: {big: [model.encoder_layers=2, ~optimizer.adam_betas]}, common.seed: [1, 2]}, "
        "{model.residual: [post-ln/pre-ln]}]}"
    )
    settings = load_study("x").settings()
    names = ["0.1_big_seed1", "0.1_big_seed2", "0.2_big_seed1", "0.2_big_seed2", "post-ln-pre-ln"]
    assert [s.name for s in settings] == names
    assert settings[1].labels == {"lr": "0.1", "size": "big", "seed": "2"}
    assert settings[1].arguments() == [
        *("common.seed=2", "model.dropout=0.3", "model.encoder_layers=2"),
        *("optimization.lr=[0.1]", "~optimizer.adam_betas"),
    ]
    assert len({s.digest for s in settings}) == 5
    assert len(load_study("x").settings(smoke=True)) == 2  # one a grid


RIGHT = "title: T, asks: A, corpus: c, conditions: [multi30k_admin_6l], table: method"


@pytest.mark.parametrize(
    "text,told",
    [
        ("[", "is no study"),
        ("title: only", "is no study: .*missing"),
        ("{}", "is no study"),
        (f"{{{RIGHT}, colour: red}}", "is no study: .*colour"),
        (f"{{{RIGHT}, grids: [{{optimization.lr: []}}]}}", "it has no training"),
        (f"{{{RIGHT}, grids: [{{optimization.lr: [1e-3, 0.001]}}]}}", "two .* are called 0.001"),
        (
            f"{{{RIGHT}, figure: {{x: lr, y: bleu}}}}",
            r"not every training has a label of lr: .*\[\]",
        ),
        (f"{{{RIGHT}, figure: {{x: lr}}}}", "a figure has x and y"),
        (f"{{{RIGHT} lr}}", "not every training has a label of lr"),
        (f"{{{RIGHT} highest_lr}}", "not every training has a label of lr"),
        (f"{{{RIGHT} blue}}", "no column blue: there are"),
        (
            f"{{{RIGHT}, grids: [{{optimization.lr: [1, 2]}}], figure: {{x: lr, y: best_bleu}}}}",
            "a figure's y is a column with a number, not best_bleu",
        ),
        (f"{{{RIGHT}, overrides: [optimization.max_update=0]}}", "no optimization.max_update"),
        (f'{{{RIGHT}, evaluate: "--decoding \'--beam 4"}}', "evaluate: No closing quotation"),
        (
            f"{{{RIGHT}, conditions: [nonesuch]}}".replace("conditions: [multi30k_admin_6l], ", ""),
            "no config",
        ),
    ],
)
def test_a_mistake_in_a_study_is_one_line(tmp_path, monkeypatch, text, told):
    monkeypatch.setattr(module, "STUDIES", tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=told) as refused:
        load_study("x")
    assert "\n" not in refused.value.message
    with pytest.raises(UserError, match="no study y: there are x"):
        load_study("y")


def test_what_two_studies_share_is_one_training():
    digests = {name: {s.digest for s in study.settings()} for name, study in STUDIES.items()}
    assert len(digests["mixed"] & digests["depth"]) == 9
    assert len(digests["init"] & digests["depth"]) == 9
    assert len(digests["encoder"] & digests["depth"]) == 3
    assert len(digests["no_warmup"]) == 45 and len(digests["warmup"]) == 54


@pytest.mark.parametrize("name", STUDIES)
def test_every_kind_of_training_composes(name, tmp_path):
    study = STUDIES[name]
    kinds = {tuple(setting.overrides): setting for setting in study.settings()}
    for trial in trials(study):
        if trial.setting in kinds.values():
            config = trial.training.composed(trial.launch().overrides())
            assert config.optimization.max_update and config.checkpoint.no_epoch_checkpoints


# records and pages


def test_what_is_no_record_is_passed_over_and_null_is_none(tmp_path):
    for text in ("[]", '{"rows": []}'):
        (tmp_path / "x.json").write_text(text)
        assert read_record(tmp_path / "x.json") is None
    whole = read_json(RECORDS[0])
    for key in NEEDED:
        for damaged in ({**whole, key: []}, {k: x for k, x in whole.items() if k != key}):
            (tmp_path / "x.json").write_text(json.dumps(damaged))
            assert read_record(tmp_path / "x.json") is None
    ((label, overrides),) = choices("model.x", [None])
    assert (label, overrides) == (("x", "null"), {"model.x": "null"})


def test_the_fall_over_the_last_fifth_is_that_of_a_hand_count():
    record = {"updates": 100, "valid_ppl": [[60, 50.0], [80, 20.0], [90, 18.0], [100, 15.0]]}
    assert last_fifth(record) == pytest.approx(25.0)
    assert last_fifth({**record, "valid_ppl": record["valid_ppl"][-1:]}) is None  # no fall


def test_a_curve_is_thinned_to_its_end():
    curve = [(i, float(i)) for i in range(1, 62)]
    assert len(thinned(curve, 61)) == POINTS and thinned(curve, 61)[-1] == (61, 61.0)
    assert thinned(curve, 7.5) == curve[:7] and thinned([], 5) == []


def of(seed, outcome="trained", bleu=None, lr="0.1", **more):
    """What a table takes of the record of a study."""
    scores = {"bleu": {"score": bleu, "signature": "s"}} if bleu is not None else None
    return {
        **{"study": "x", "method": "admin", "layers": "2-2", "seed": seed, "outcome": outcome},
        **{"labels": {"lr": lr}, "scores": scores, "config": "c", "data_sha256": "d"},
        **{"definition": f"{next(NUMBERS)}", "path": "x.json", **more},
    }


def rows(columns, records):
    lines = table(columns.split(), records).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]


def test_a_row_counts_failures_and_averages_what_trained():
    found = [of(1, bleu=10), of(2, bleu=14), of(3, "stuck")]
    assert rows("method failed bleu", found)[2:] == [
        ["Admin", "1 of 3 (1 stuck)", "12.00 ± 2.83", "3"]
    ]
    lost = [of(1, "stuck"), of(2, "diverged"), of(3, "stuck")]
    assert rows("method failed bleu best_bleu", lost)[2:] == [
        ["Admin", "3 of 3 (2 stuck, 1 diverged)", "–", "–", "3"]
    ]


def test_rows_are_told_apart_by_the_labels_that_are_shown():
    found = [of(1, bleu=10, lr="0.1"), of(1, bleu=14, lr="0.02"), of(1, "stuck", lr="0.5")]
    assert len(rows("method lr bleu", found)) == 2 + 3
    for record, ppl in zip(found, (9, 8, 2)):
        record["valid_ppl"] = [[10, ppl], [20, ppl + 1]]
    (row,) = rows("method failed highest_lr best_bleu best_valid best_lr", found)[2:]
    assert row[1:6] == ["1 of 3 (1 stuck)", "0.1", "14.00", "8.00", "0.02"]
    assert rows("method best_lr", found[2:])[2] == ["Admin", "–"]
    assert set(TOGETHER) >= {"failed", "highest_lr", "best_bleu", "best_valid", "best_lr"}


def test_a_record_of_another_definition_stands_on_no_page(tmp_path):
    study = STUDIES["settings"]
    first, second = trials(study, tmp_path)[:2]
    record = {"wall_seconds": 1.0, "layers": "6-6", "updates": 2, "outcome": "trained"}
    record["method"] = "admin"
    first.save({**record, "data_sha256": "a"})
    second.save({**record, "data_sha256": "b"})
    with pytest.raises(UserError, match="are of different data"):
        records_of([first, second])
    second.path.unlink()
    assert first.record() and not second.record()
    second.path.write_text(first.path.read_text())  # by another name
    with pytest.raises(UserError, match="is of no training of the study as it is now"):
        records_of([first, second])
    second.path.unlink()
    first.path.unlink()
    with pytest.raises(UserError, match="no record of settings: run bash scripts/study.sh"):
        write_page(study, [first, second])


def test_a_record_of_another_text_is_none(tmp_path):
    """A corpus that was prepared anew, of other sources say, under the same name."""
    study = STUDIES["settings"]
    binarized = tmp_path / "bin"
    binarized.mkdir()
    (binarized / "train.de-en.de.bin").write_bytes(b"text")
    setting = study.settings()[0]
    trial = Trial(study, setting, tmp_path, tmp_path, tmp_path / "results")
    record = {"wall_seconds": 1.0, "layers": "6-6", "updates": 2, "outcome": "trained"}
    record["method"] = "admin"
    trial.save({**record, "data_sha256": "of another"})
    assert trial.record() is None
    take_over([trial])  # nor by another study's record
    assert trial.record() is None
    trial.save({**record, "data_sha256": data_sha256(binarized)})
    assert trial.record()
    with pytest.raises(UserError, match="nothing to score against later, no .*raw/test.en"):
        next(trial.jobs())


@pytest.mark.parametrize("change", [{}, {"subwords": 1}, {"normalize": True}])
def test_a_corpus_that_is_said_otherwise_now_is_made_anew(tmp_path, change):
    corpus = asdict(load_corpus("multi30k_de_en"))
    assert not is_made("multi30k_de_en", tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"corpus": {**corpus, **change}}))
    assert is_made("multi30k_de_en", tmp_path) == (not change)


def test_a_corpus_that_changed_is_made_anew_before_its_records_are_looked_at(tmp_path, monkeypatch):
    """Though all is recorded: of the text that was."""
    asked = []
    folder = tmp_path / "runs" / "data" / "multi30k_de_en"
    monkeypatch.setattr(main, "ROOT", tmp_path)
    monkeypatch.setattr(main, "prepare", lambda trials, _: asked.append(list(map(str, trials))))
    monkeypatch.setattr(main.logging.getLogger(), "setLevel", lambda level: None)
    monkeypatch.setattr(sys, "argv", ["study.sh", "settings", "--only", "0.0_0.0005"])
    main.main()
    folder.mkdir(parents=True)  # the manifest is removed first, and the rest made anew
    main.main()
    assert asked == [[], ["settings/0.0_0.0005"]]
    (folder / "manifest.json").write_text("{}")
    assert not is_made("multi30k_de_en", folder)  # of another program


def test_nothing_in_a_figure_hides_another(monkeypatch):
    """Neither the titles of panels nor methods of one score, nor those that failed."""
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, _: figures.append(figure))
    study = STUDIES["warmup"]
    settings = [asdict(s)["labels"] for s in study.settings()]
    found = [of(1, bleu=10, labels=x, method=x["residual"]) for x in settings]
    found += [of(1, "stuck", labels=x, method=x["residual"]) for x in settings]
    draw(study, found, Path())
    (figure,) = figures
    figure.draw_without_rendering()
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert len(titles) == 6 and not any(a.overlaps(b) for a, b in combinations(titles, 2))
    for axes in figure.axes:
        drawn = {(line.get_color(), x, y) for line in axes.lines for x, y in line.get_xydata()}
        assert len(drawn) == len({place[1:] for place in drawn}) == 18


def test_any_axis_is_a_column(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STUDIES", tmp_path)
    axis = "criterion.label_smoothing: [0.0, 0.1]"
    (tmp_path / "x.yaml").write_text(f"{{{RIGHT} label_smoothing bleu, grids: [{{{axis}}}]}}")
    found = [of(1, bleu=10 + i, labels=s.labels) for i, s in enumerate(load_study("x").settings())]
    assert [row[1:3] for row in rows("method label_smoothing bleu", found)[2:]] == [
        ["0.0", "10.00"],
        ["0.1", "11.00"],
    ]
    for i, record in enumerate(found):  # in a page of one's own, that knows no study
        (tmp_path / f"{i}.json").write_text(json.dumps(record))
    marker = "<!-- table: method label_smoothing bleu from *.json -->\n<!-- end of table -->\n"
    assert "| Admin | 0.1 | 11.00 |" in rewritten(marker, tmp_path)


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RECORDS, ids=name_of)
def test_a_committed_record_says_what_was_run(path):
    record = read_json(path)
    assert committed(path.parent.name)[path].record() == record
    assert len(record["commit"]) == 40 and record["hardware"] and record["seed"]
    assert {"torch", "fairseq", "fairseq_admin"} <= record["versions"].keys()
    study, curve = STUDIES[path.parent.name], record["train_ppl"]
    assert (record["scores"] is not None) == (
        record["outcome"] == "trained" and bool(study.evaluate)
    )
    assert len(curve) <= POINTS and all(math.isfinite(ppl) for _, ppl in curve)
    if record["outcome"] != "diverged":
        assert curve[-1][0] == record["updates"] >= record["known"]


@pytest.mark.parametrize("name", sorted({path.parent.name for path in RECORDS}))
def test_a_committed_page_is_that_of_its_records(name):
    found = trials(STUDIES[name])
    assert records_of(found)
    written = RESULTS / name / "README.md"
    assert written.read_text(encoding="utf-8") == page(STUDIES[name], found, written.parent)


def test_the_page_of_results_names_every_study_and_links_those_with_a_page():
    text = (RESULTS.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    for name in STUDIES.keys() - {"demo"}:
        assert re.search(rf"^\d+\. .*`{name}`", text, re.MULTILINE), name
        written = (RESULTS / name / "README.md").exists()
        assert (f"../results/studies/{name}/README.md" in text) == written, name


@pytest.mark.parametrize("path", [p for p in RECORDS if p.parent.name == "lr_limit"], ids=name_of)
def test_what_was_known_after_a_third_was_so_at_the_end(path):
    """The rule by which a training is stopped, on those that went on to their end: it is wrong of
    LATE."""
    record = read_json(path)
    if record["outcome"] == "diverged":
        return
    curve = [tuple(point) for point in record["train_ppl"]]
    points = Curves(curve, []), record["unigram_bits"], record["updates"]
    right = outcome_of(*points, stopped=True).kind == record["outcome"]
    assert right == (name_of(path) not in LATE)


LEARNED = [p for p in RECORDS if (r := read_json(p))["outcome"] == "trained" and r["updates"] > 300]


@pytest.mark.parametrize("path", LEARNED, ids=name_of)
def test_no_training_that_learned_would_have_been_told_to_be_stuck(path):
    """At the first point after 300 updates and the warmup of the studies: by SGD some are still no
    better than the unigrams there, and clearly better than at any point before. LATE would."""
    record = read_json(path)
    before = [ppl for update, ppl in record["train_ppl"] if update < 300]
    ppl, bits = record["train_ppl"][len(before)][1], record["unigram_bits"]
    learns = not is_near(ppl, bits) or ppl < min(before) * 2 ** (-FALLS * bits)
    assert learns == (name_of(path) not in LATE)


def test_a_setting_without_labels_is_called_by_its_config():
    assert Setting("demo_admin", {}, {}).name == "demo_admin"
    assert json.dumps(STUDIES["demo"].settings()[0].labels) == '{"config": "demo_post_ln"}'
