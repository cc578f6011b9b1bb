"""scripts/bench.py: each method against fairseq's own Post-LN, a row a size and method."""

import runpy
from argparse import Namespace
from itertools import cycle

import pytest
import torch

from bench import commits, training
from bench import main as bench
from fairseq_admin.profiling import named_junctions
from fairseq_admin.text import read_json
from recipes.code import ROOT

OPTIONS = {"layers": ["1", "2-1"], "widths": [16], "pairs": 2, "warmup": 0, "tokens": 80}
OPTIONS = Namespace(**OPTIONS, methods=["admin"], dropout=0.1, dtype="fp32", options="")
OPTIONS.against, OPTIONS.against_dtype = "fairseq", None


def test_a_row_a_size_and_method(monkeypatch):
    monkeypatch.setattr(training, "peak_memory", lambda method, *_: len(method))
    rows = list(training.bench_training(OPTIONS))
    assert [(r["method"], r["layers"]) for r in rows] == [("admin", "1-1"), ("admin", "2-1")]
    for row in rows:
        assert (row["peak_mb"], row["against_peak_mb"]) == (len("admin"), len("fairseq"))


def test_twice_the_time_is_half_the_speed(monkeypatch):
    """Pairs in turn: against, own, own, against."""
    seconds = cycle([1.0, 2.0, 2.0, 1.0])
    monkeypatch.setattr(training, "timed", lambda _: next(seconds))
    monkeypatch.setattr(training, "peak_memory", lambda *_: 1)
    row = training.bench("admin", "1", 16, OPTIONS)
    assert (row["ratio"], row["step_s"]) == (0.5, 2)
    assert row["tokens_per_s"] == pytest.approx(row["against_tokens_per_s"] / 2, abs=1)


def test_an_option_against_its_absence(monkeypatch):
    monkeypatch.setattr(training, "peak_memory", lambda *model: len(model[-1].options))
    options = Namespace(**{**vars(OPTIONS), "layers": ["1"], "against": "admin"})
    options.options = "--learn-first-omega"
    (row,) = training.bench_training(options)
    assert (row["method"], row["options"], row["against"]) == ("admin", options.options, "admin")
    assert (row["peak_mb"], row["against_peak_mb"]) == (len(options.options), 0)


def test_two_precisions(monkeypatch):
    made = []
    make = training.make_trainer
    monkeypatch.setattr(
        training, "make_trainer", lambda *model: made.append(make(*model)) or made[-1]
    )
    monkeypatch.setattr(training, "peak_memory", lambda *model: 1)
    options = Namespace(**{**vars(OPTIONS), "layers": ["1"], "dtype": "bf16"})
    options.against, options.against_dtype = "admin", "fp32"
    (row,) = training.bench_training(options)
    kinds = [next(trainer.model.parameters()).dtype for trainer in made]
    assert kinds == [torch.bfloat16, torch.float32] and row["against_dtype"] == "fp32"


@pytest.mark.parametrize("method", ["admin", "analytic"])
def test_omegas_have_values_that_need_the_multiplication(method):
    trainer = training.make_trainer(method, "2", 16, OPTIONS)
    for junctions in named_junctions(trainer.model).values():
        omegas = [junction.omega.unique().tolist() for junction in junctions.values()]
        assert omegas == [[pytest.approx((1 + 0.4 * i) ** 0.5)] for i in range(len(omegas))]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--before", "HEAD"], "give both"),
        (["--commands", "x: ls"], "give both"),
        (["--before", "HEAD", "--commands", "ls"], "ls: give NAME: COMMAND"),
    ],
)
def test_nothing_to_time_is_told(words, told, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.py", *words])
    with pytest.raises(SystemExit):
        bench.main()
    assert told in capsys.readouterr().err


def test_rows_are_kept_when_a_later_one_fails(monkeypatch, tmp_path):
    sizes = ["--count", "--layers", "1", "none", "--widths", "16", "--tokens", "80"]
    monkeypatch.setattr("sys.argv", ["bench.py", *sizes, "--output", str(tmp_path / "rows.json")])
    monkeypatch.setattr(bench.logging, "disable", lambda level: None)  # of all tests that follow
    with pytest.raises(ValueError, match="none"):
        bench.main()
    rows = read_json(tmp_path / "rows.json.partial")["rows"]
    assert {row["layers"] for row in rows} == {"1-1"} and not (tmp_path / "rows.json").exists()


def test_a_process_that_it_spawns_measures_nothing():
    """As multiprocessing runs the main file there, for the engines of --decode."""
    runpy.run_path(str(ROOT / "scripts" / "bench.py"), run_name="__mp_main__")


@pytest.mark.slow  # two installations
def test_a_commit_against_this_checkout():
    told = [
        "where: test -e $CHECKOUT/scripts/bench.py && fairseq-admin --version && "
        "python -c 'import fairseq_admin, os; "
        'assert os.environ["PYTHONPATH"] in fairseq_admin.__path__[0]\'',
        "place: test ! -e here; touch here",
    ]
    options = Namespace(before="HEAD", commands=told, warmup=1, pairs=2)
    rows = list(commits.bench_commits(options))
    assert [(row["name"], row["pairs"]) for row in rows] == [("where", 2), ("place", 2)]
    for row in rows:
        assert row["before_s"] > 0 and row["ratio_quartiles"][0] <= row["ratio"]
    for before, command, why in [
        ("x", "true", "no commit x"),
        ("HEAD", "x: false", "false failed"),
    ]:
        with pytest.raises(SystemExit, match=why):
            options = Namespace(before=before, commands=[command], warmup=0, pairs=1)
            list(commits.bench_commits(options))
