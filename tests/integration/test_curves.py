"""fairseq-admin analyze curves: what real trainings log, in every format, and some that diverge."""

import json
import math
import shutil
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest

from fairseq_admin.analysis import plotting
from fairseq_admin.analysis.curves import measure
from fairseq_admin.analysis.logs import read_curves
from fairseq_admin.analysis.plotting import plot_curves
from fairseq_admin.errors import UserError

STOCK = ["--task", "translation", "--arch", "transformer"]
CASES = {  # 12 updates, an epoch and a half
    "json": ["--log-format", "json", "--tensorboard-logdir", "events"],
    "simple": ["--log-format", "simple", "--log-file", "plain.log"],
    "epochs": ["--log-format", "tqdm", "--log-interval", "50"],
    "infinite": [*STOCK, "--lr", "3"],
}


@pytest.fixture(scope="module")
def trained(corpus, lab, in_background, tmp_path_factory):
    """A run by case: its folder, in which train.log is what it printed, and its command."""

    def start(case):
        folder = tmp_path_factory.mktemp(case)
        command = lab.train_command(corpus, folder, "--max-update", "12", *CASES[case])
        run = lab.run(command, cwd=folder)
        (folder / "train.log").write_text(run.output)
        return SimpleNamespace(folder=folder, run=run, command=command)

    return in_background(start)


@pytest.fixture
def run_of(trained):
    return lambda case: trained[case].result()


def logged(run, name="train_inner"):
    """(update, perplexity) of a run in json, read without the code that is tested."""
    prefix = "" if name == "train_inner" else f"{name}_"
    rows = run.records(name)
    return [(int(row[f"{prefix}num_updates"]), float(row[f"{prefix}ppl"])) for row in rows]


def options(*runs):
    return Namespace(runs=list(map(str, runs)))


@pytest.mark.parametrize("case", ["json", "simple"])
def test_every_format_gives_the_same_curves(run_of, case):
    run = run_of("json").run.ok()
    folder = run_of(case).folder
    given = {"json": [folder, folder / "events"], "simple": [folder, folder / "plain.log"]}[case]
    for path in given:
        curves = read_curves(str(path))
        assert [update for update, _ in curves.train] == list(range(1, 13))
        assert curves.train == logged(run) and curves.valid == logged(run, "valid")
        assert len(curves.valid) == 2 and curves.diverged is None


@pytest.mark.parametrize("case", ["epochs"])
def test_epochs_where_no_update_is_logged(run_of, case):
    run_of(case).run.ok()
    curves = read_curves(str(run_of(case).folder))
    assert [update for update, _ in curves.train] == [update for update, _ in curves.valid]
    assert curves.train[-1][0] == 12 and len(curves.train) == 2


@pytest.mark.parametrize("case", ["json"])
def test_tensorboard_files_in_a_folder(run_of, case, tmp_path, monkeypatch):
    shutil.copytree(run_of(case).folder / "events", tmp_path / "a" / "tensorboard")
    assert read_curves(str(tmp_path)) == read_curves(str(run_of(case).folder))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="holds several runs, give one: .*a/tensorboard, "):
        read_curves(str(tmp_path))
    event_accumulator = "tensorboard.backend.event_processing.event_accumulator"
    monkeypatch.setitem(sys.modules, event_accumulator, None)
    with pytest.raises(UserError, match=r"pip install 'fairseq_admin\[analysis\]'"):
        read_curves(str(tmp_path / "a"))


@pytest.mark.parametrize("case", ["json"])
def test_a_resumed_run(run_of, lab, case, tmp_path):
    """Stopped after 12 updates, it goes on from the checkpoint of update 8, with another seed."""
    first, folder = run_of(case), tmp_path / "run"
    shutil.copytree(first.folder, folder)
    (folder / "checkpoint_last.pt").unlink()
    (folder / "checkpoint1.pt").rename(folder / "checkpoint_last.pt")
    command = [*first.command, "--save-dir", folder, "--seed", "2", "--max-update", "10"]
    second = lab.run(command, cwd=folder).ok()
    with open(folder / "train.log", "a") as log:
        log.write(second.output)
    again = logged(second)
    assert [update for update, _ in again] == [9, 10]
    expected = logged(first.run)[:8] + again
    assert expected != logged(first.run)[:10]
    for path in (folder, folder / "events"):
        assert read_curves(str(path)).train == expected
        assert [update for update, _ in read_curves(str(path)).valid] == [8, 10]


@pytest.mark.parametrize("case", ["json"])
def test_runs_by_name_and_method(run_of, case):
    folder = run_of(case).folder
    log = folder / "train.log"
    runs = measure(options(folder, f"again={log}", f"events={folder / 'events'}"))["runs"]
    assert [run["label"] for run in runs] == [folder.name, "again", "events"]
    assert [run["method"] for run in runs] == ["admin", "admin", "events"]
    assert runs[0]["train"] == runs[1]["train"] == runs[2]["train"]
    with pytest.raises(UserError, match=f"are both {folder.name}: write LABEL="):
        measure(options(folder, log))


@pytest.mark.parametrize("case", ["infinite"])
def test_diverged(run_of, case, tmp_path, monkeypatch):
    folders = run_of(case).folder, run_of("json").folder
    result = measure(options(f"high lr={folders[0]}", folders[1]))
    result = json.loads(json.dumps(result, allow_nan=False))
    diverged, stable = result["runs"]
    assert (stable["diverged"], stable["reason"]) == (None, None)
    assert diverged["reason"] == "train perplexity is nan or inf"
    assert diverged["method"] == "post-ln"
    assert 2 <= diverged["diverged"] <= 6
    assert all(math.isfinite(ppl) for _, ppl in diverged["train"])

    plot_curves(result, str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, _: figures.append(figure))
    plot_curves(result, "")
    train, valid = figures[0].axes
    crosses = [line.get_xydata().tolist() for line in train.lines if line.get_marker() == "x"]
    assert crosses == [[diverged["train"][-1]]]
    told = f"high lr, diverged at {diverged['diverged']}"
    assert train.get_legend_handles_labels()[1] == [told, folders[1].name]
    assert (train.get_yscale(), valid.get_ylabel()) == ("log", "valid perplexity")
