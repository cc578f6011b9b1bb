"""`fairseq-admin profile`: what training would set, as a table, as JSON and as PNG."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from fairseq_admin.errors import UserError
from fairseq_admin_cli import main as cli
from tests.helpers import limited

CASES = {
    "no omegas": (["DATA", "--arch", "transformer"], ["transformer has no residual methods"]),
    "another task": (
        ["DATA", "--arch", "transformer_admin", "--task", "translation"],
        ["leave --task out"],
    ),
}


@pytest.fixture(scope="module")
def command(lab):
    """The command from any folder: this checkout's, whatever else is installed."""
    env = {"PYTHONPATH": str(lab.plugin.parent)}
    python = [lab.bin / "python", "-m", "fairseq_admin_cli.main"]
    return lambda arguments, cwd: lab.run([*python, *arguments], cwd=cwd, env=env)


@pytest.fixture(scope="module")
def profiled(corpus, lab, command, tmp_path_factory):
    """The profile of the model that `admin` trains, as files."""
    folder = tmp_path_factory.mktemp("profile")
    arguments = [str(part) for part in lab.train_command(corpus, "unused", "--user-dir")[1:-1]]
    where = arguments.index("--user-dir")
    del arguments[where : where + 2]  # filled in
    files = ["--output", folder / "p.json", "--plot", folder / "p.png"]
    run = command(["profile", *arguments, *files], folder).ok()
    return SimpleNamespace(run=run, folder=folder, json=folder / "p.json", png=folder / "p.png")


def test_json_is_the_profile_that_training_stores(profiled, admin, lab):
    stored = lab.load(admin.checkpoints[20])["task_state"]["profile"]
    assert json.loads(profiled.json.read_text()) == stored


def test_table_is_the_one_that_training_logs(profiled, admin):
    assert admin.run.table() in profiled.run.output


def test_writes_nothing_but_what_was_asked_for(profiled):
    assert sorted(path.name for path in profiled.folder.iterdir()) == ["p.json", "p.png"]


def test_plot_is_a_png_no_wider_than_1200_pixels(profiled):
    data = profiled.png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert 300 < int.from_bytes(data[16:20], "big") <= 1200  # width in the first chunk


def test_a_full_disk_keeps_the_picture_of_before(corpus, lab, tmp_path, monkeypatch):
    """Files may grow to as much as the numbers take, not the picture."""
    picture = tmp_path / "p.png"
    picture.write_bytes(b"before")
    arguments = [str(corpus), "--arch", "transformer_admin", *lab.model_options]
    monkeypatch.setattr(sys, "argv", ["fairseq-admin"])
    arguments += ["--output", f"{tmp_path}/p.json", "--plot", str(picture)]
    with limited(12_000), pytest.raises(UserError, match="cannot write .*p.png: File too large"):
        cli.main(["profile", *arguments])
    assert sorted(os.listdir(tmp_path)) == ["p.json", "p.png"]
    assert picture.read_bytes() == b"before"


@pytest.fixture(scope="module")
def outcomes(corpus, lab, command, in_background, tmp_path_factory):
    def start(case):
        folder = tmp_path_factory.mktemp("mistake")
        arguments = [str(corpus) if word == "DATA" else word for word in CASES[case][0]]
        run = command(["profile", *arguments], folder)
        return run, list(folder.iterdir())

    return in_background(start)


def test_mistake_is_one_clear_line_and_writes_nothing(outcomes, case):
    run, written = outcomes[case].result()
    assert run.code != 0
    assert run.last_line.startswith("fairseq_admin: "), run.output
    assert "Traceback" not in run.output
    assert all(words in run.last_line for words in CASES[case][1])
    assert not written
