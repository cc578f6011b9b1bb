"""scripts/table.py: the rows of a table are its records, no more and no fewer."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from records.table import main

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "table.py"
MARKERS = """before
<!-- table: run layers bleu from runs/*.json -->
old
<!-- end of table -->
after
"""
SIGNATURE = "nrefs:1|version:2.6.0"


def record(name, bleu, seed=1, width=64):
    """The fields of a record that tables look at."""
    config = {"common": {"seed": seed}, "task": {"seed": seed}, "checkpoint": {"save_dir": name}}
    return {
        "name": name,
        "layers": "6-6",
        "seed": seed,
        "updates": 10,
        "data_sha256": "d",
        "decoding": "--beam 5",
        "config": {**config, "model": {"width": width}},
        "scores": {"bleu": {"score": bleu, "signature": SIGNATURE}},
    }


@pytest.fixture
def page(tmp_path):
    """Makes a page with one table over the given records."""

    def make(*records, markers=MARKERS):
        (tmp_path / "runs").mkdir()
        for i, content in enumerate(records):
            (tmp_path / "runs" / f"{i}.json").write_text(json.dumps(content))
        (tmp_path / "page.md").write_text(markers)
        return tmp_path / "page.md"

    return make


@pytest.fixture
def table(monkeypatch):
    """Runs the script in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["table.py", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return SimpleNamespace(returncode=0 if end.code is None else 1, stderr=str(end.code))
        return SimpleNamespace(returncode=0, stderr="")

    return run


def test_a_row_a_record_with_the_signature_below(page):
    path = page(record("a", 20.5), record("b", 21, width=128))
    subprocess.run([sys.executable, str(SCRIPT), str(path)], check=True)
    rows = path.read_text().split("-->\n")[1].split("<!--")[0].strip().splitlines()
    assert rows[0] == "| run | layers | BLEU |"
    assert rows[2:4] == ["| [a](runs/0.json) | 6-6 | 20.50 |", "| [b](runs/1.json) | 6-6 | 21.00 |"]
    assert rows[-1] == f"n = 1; seed 1; BLEU `{SIGNATURE}`"
    assert path.read_text().startswith("before\n") and path.read_text().endswith("after\n")


@pytest.mark.parametrize("content", [[], None, {}, {"rows": "x"}, {"rows": None}, {"scores": {}}])
def test_what_is_no_record_is_told_in_one_line(page, table, content):
    path = page(content)
    before = path.read_text()
    done = table(path)
    assert done.returncode == 1 and "of runs/*.json is not as it should be" in done.stderr
    assert "\n" not in done.stderr and path.read_text() == before


def test_a_page_that_is_not_there_is_told(tmp_path, table):
    assert f"cannot read {tmp_path / 'page.md'}" in table(tmp_path / "page.md").stderr


def test_seeds_are_one_row_with_mean_and_spread(page, table):
    path = page(*(record(f"s{seed}", bleu, seed) for seed, bleu in ((1, 20), (2, 22), (3, 24))))
    table(path)
    runs = "[s1](runs/0.json) / [s2](runs/1.json) / [s3](runs/2.json)"
    assert f"| {runs} | 6-6 | 22.00 ± 2.00 | 3 |" in path.read_text()


def test_a_training_that_ended_early_is_no_other_seed(page, table):
    path = page({**record("a", 20, 1), "updates": 300}, {**record("b", 30, 2), "updates": 1000})
    told = "table: runs/0.json ended at update 300, runs/1.json at 1000: leave one out"
    assert table(path).stderr == told and path.read_text() == MARKERS


@pytest.mark.parametrize(
    "group, option", [("checkpoint", "patience"), ("optimization", "stop_min_lr")]
)
def test_seeds_that_stop_by_themselves_end_each_at_its_own_update(page, table, group, option):
    runs = [{**record(f"s{n}", 20 + n, n), "updates": 1000 * n} for n in (1, 2)]
    for run in runs:
        run["config"].setdefault(group, {})[option] = 5
    path = page(*runs)
    table(path)
    assert "| 21.50 ± 0.71 | 2 |" in path.read_text()


def of_study(bleu, **more):
    """The record of a study's training."""
    told = {"study": "x", "config": "c", "labels": {}, "outcome": "trained", "definition": bleu}
    return {**record("a", bleu), **told, **more}


def test_a_training_of_two_studies_is_counted_once(page, table):
    runs = [of_study(20, study=name) for name in ("depth", "encoder")]
    path = page(*runs, markers=MARKERS.replace("run ", ""))
    assert "runs/0.json and runs/1.json are of one seed, no two" in table(path).stderr


@pytest.mark.parametrize("axis", ["width", "optimizer", "corpus"])
def test_an_axis_called_as_a_column_makes_rows(page, table, axis):
    runs = [of_study(20 + i, labels={axis: label}) for i, label in enumerate(["wide", "deep"])]
    path = page(*runs, markers=MARKERS.replace("run layers", axis))
    table(path)
    assert "| wide | 20.00 |" in path.read_text() and "| deep | 21.00 |" in path.read_text()


def test_labels_of_other_axes_are_no_equal_rows(page, table):
    runs = [of_study(20, labels={"a": "0.1"}), of_study(30, labels={"b": "0.1"})]
    path = page(*runs, markers=MARKERS.replace("run layers", "a b"))
    table(path)
    assert "| 0.1 | – | 20.00 |" in path.read_text() and "| – | 0.1 | 30.00 |" in path.read_text()


def test_trainings_of_other_text_are_rows_of_their_own(page, table):
    path = page(of_study(20), of_study(30, data_sha256="e"), markers=MARKERS.replace("run ", ""))
    table(path)
    assert "| 6-6 | 20.00 |" in path.read_text() and "| 6-6 | 30.00 |" in path.read_text()


@pytest.mark.parametrize("columns, told", [("layers valid", True), ("layers best_valid", False)])
def test_a_mean_without_those_that_failed_is_told(page, table, columns, told):
    runs = [of_study(i, valid_ppl=[[9, 9]], scores=None) for i in range(2)]
    runs[1]["outcome"] = "stuck"
    path = page(*runs, markers=MARKERS.replace("run layers bleu", columns))
    table(path)
    assert ("means are of those that trained" in path.read_text()) == told
    assert "| 6-6 | 9.00 | 2 |" in path.read_text()


def test_what_a_record_does_not_tell_is_a_dash(page, table):
    columns = "distinct ppl valid last_fifth omegas branches chrf best_valid best_bleu"
    markers = MARKERS.replace("layers bleu", columns)
    nothing = {"train_ppl": [], "valid_ppl": [], "profile": None, "outcome": None}
    sublayers = {"sublayers": [{"omega": x, "branch_var": x} for x in (1, 2, 3)]}
    told = {
        "distinct": 9,
        "train_ppl": [[5, 9], [10, 8]],
        "valid_ppl": [[8, 4], [10, 3]],
        "profile": {"stacks": {"encoder": sublayers, "decoder": sublayers}},
        "scores": {**record("b", 21)["scores"], "chrf": {"score": 40, "signature": "x"}},
    }
    runs = [{**record("a", 20), **nothing}, {**record("b", 21, width=128), **told}]
    path = page(*runs, markers=markers)
    table(path)
    rows = [line.split(" | ")[1:] for line in path.read_text().splitlines() if "](runs/" in line]
    assert rows[0] == ["–"] * 8 + ["20.00 |"]
    assert rows[1][:4] == ["9", "8.00", "3.00", "25.0"]
    assert rows[1][4:] == ["2.00 to 3.00; 2.00 to 3.00", "1.00 to 3.00", "40.00", "3.00", "21.00 |"]


def test_ports_logs_and_updates_that_overflowed_are_no_other_training(page, table):
    """Of SLURM, a port a folder; in fp16, as many updates as the seed lets be."""
    runs = [{**record(f"s{seed}", 18 + 2 * seed, seed), "updates": 98 + seed} for seed in (1, 2)]
    for run, port in zip(runs, (20001, 20002)):
        run["config"]["distributed_training"] = {"distributed_port": port}
        run["config"]["common"]["log_file"] = f"runs/{run['name']}/train.log"
        run["outcome"] = "trained"
    path = page(*runs)
    table(path)
    assert "| 21.00 ± 1.41 | 2 |" in path.read_text()


def test_a_file_that_two_patterns_match_is_one_record(page, table):
    path = page(record("a", 20), markers=MARKERS.replace("runs/*.json", "runs/0.json runs/*.json"))
    table(path)
    assert "| [a](runs/0.json) | 6-6 | 20.00 |" in path.read_text()


@pytest.mark.parametrize("how", ["averaging", "signature"])
def test_runs_that_were_evaluated_otherwise_are_rows_of_their_own(page, table, how):
    other = record("b", 22, 2)
    if how == "averaging":
        other["averaging"] = "--num-epoch-checkpoints 5"
    else:
        other["scores"]["bleu"]["signature"] = "nrefs:2"
    path = page(record("a", 20, 1), other)
    table(path)
    assert "| 20.00 |" in path.read_text() and "| 22.00 |" in path.read_text()


def test_a_training_is_counted_once(page, table):
    """Evaluated half way and at its end, it is no two seeds."""
    path = page(record("a", 20), {**record("a", 22), "updates": 20}, markers=MARKERS)
    for run, file in zip((10, 20), sorted((path.parent / "runs").iterdir())):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "updates": run, "outcome": "trained"}))
    told = "table: runs/0.json and runs/1.json are of one seed, no two: leave one out"
    assert table(path).stderr == told and path.read_text() == MARKERS


def test_runs_that_did_not_start_alike_are_told(page, table):
    def of(method, **model):
        made = {**record(method, 20), "method": method}
        made["config"]["model"] = {"residual": method, **model}
        return made

    ours = [of("admin", parameter_init="paper"), of("post-ln", parameter_init="paper")]
    path = page(*ours)
    table(path)
    assert "is not all that differs" not in path.read_text()
    for i, method in enumerate(("post-ln", "post-ln/pre-ln"), len(ours)):
        (path.parent / "runs" / f"{i}.json").write_text(json.dumps(of(method)))
    table(path)
    (path.parent / "runs" / "of.json").write_text(json.dumps(of_study(20, method="keel")))
    patterns = "runs/of.json runs/[0-9].json"  # that of a study first
    path.write_text(MARKERS.replace("runs/*.json", patterns).replace("run layers", "method"))
    table(path)
    told = "The method is not all that differs: Post-LN and Post-LN/Pre-LN started from fairseq's"
    assert told in path.read_text()


def test_rows_of_the_bench_are_of_their_method(page, table):
    row = {"layers": "2-1", "width": 16, "method": "keel", "peak_mb": 6, "against_peak_mb": 4}
    path = page({"rows": [row]}, markers=MARKERS.replace("run layers bleu", "method size memory"))
    table(path)
    assert "| Keel | 2-1, 16 | 6 / 4 |" in path.read_text()


def test_check_finds_a_row_without_a_record(page, table):
    path = page(record("a", 20.5))
    table(path)
    assert table("--check", path).returncode == 0
    row = "| [a](runs/0.json) | 6-6 | 20.50 |\n"
    before = path.read_text()
    for wrong in (row + row.replace("20.50", "30.00"), row.replace("20.50", "20.51"), ""):
        path.write_text(before.replace(row, wrong))
        run = table("--check", path)
        assert run.returncode == 1 and "should be" in run.stderr
        assert path.read_text() == before.replace(row, wrong)  # nothing is written


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999"])
def test_a_score_that_is_no_number_is_told(page, table, score):
    path = page(record("a", 20.5))
    file = path.parent / "runs" / "0.json"
    file.write_text(file.read_text().replace("20.5", score))
    assert f"{file} is damaged: {score} is no finite number" in table(path).stderr
    assert path.read_text() == MARKERS


def test_a_table_without_its_end_takes_no_text_with_it(page, table):
    path = page(record("a", 20))
    whole = path.read_text()
    for text in (
        whole.replace("<!-- end of table -->\n", "") + whole,
        whole.replace(" -->", "-->", 1),
    ):
        path.write_text(text)
        assert "a table has no end, or its marker is not as" in table(path).stderr
        assert path.read_text() == text


def test_records_of_another_folder(page, table, tmp_path):
    path = page(record("a", 20))
    path.write_text(MARKERS.replace("runs/", f"{tmp_path}/runs/"))
    table(path)
    assert "| [a](runs/0.json) | 6-6 | 20.00 |" in path.read_text()


def test_no_record_and_no_column_are_errors(page, table):
    path = page(markers=MARKERS)
    assert "no record matches runs/*.json" in table(path).stderr
    path.write_text(MARKERS.replace("bleu", "blue"))
    assert "no column blue" in table(path).stderr
