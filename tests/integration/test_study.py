"""scripts/study.sh: every study in small, and one whose trainings end in all three ways. The slow
test kills it again and again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fairseq_admin.errors import UserError
from recipes import processes
from records.record import data_sha256
from studies import main as script
from studies import study as definitions
from studies import trial
from studies.study import known_studies, load_study

ROOT = Path(__file__).resolve().parents[2]
STUDIES = [name for name in known_studies() if name != "demo"]  # that is the same on other text
TINY = """
title: Three ends
asks: What becomes of a training.
corpus: none
conditions: [multi30k_admin_6l]
overrides:
  - common.log_interval=5
  - dataset.max_tokens=500
  - dataset.validate_interval_updates=79
  - optimization.max_update=240
  - checkpoint.save_interval_updates=79
  - lr_scheduler.warmup_updates=10
  - model.encoder_embed_dim=32
  - model.encoder_ffn_embed_dim=64
  - model.encoder_layers=2
  - model.decoder_layers=2
grids:
  - optimization.lr: [0.01, 1e-9, 1e30]
    common.seed: [1]
evaluate: --to score --decoding "--max-tokens 2000"
table: method lr failed ppl bleu
figure: {x: lr, y: ppl}
"""


@pytest.fixture(scope="module")
def data(corpus, tmp_path_factory):
    """The tests' corpus as prepare.sh leaves one."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "raw").mkdir()
    (folder / "bin").symlink_to(corpus)
    (folder / "raw" / "test.en").symlink_to(corpus.parent / "test.en")
    return folder


@pytest.fixture
def main(monkeypatch, capsys, lab, data, tmp_path):
    """`study.sh` with these arguments in this process, whose own processes start at once."""

    def run(*arguments):
        for module in ("recipes.launch", "studies.trial"):
            monkeypatch.setattr(sys.modules[module], "BIN", lab.bin)
        monkeypatch.setattr(script.logging.getLogger(), "setLevel", lambda level: None)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        folders = ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
        words = ["study.sh", "--data", data, *folders, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        script.main()
        return capsys.readouterr().out

    return run


def test_other_data_is_recorded_elsewhere(monkeypatch, data):
    monkeypatch.setattr(sys, "argv", ["study.sh", "settings", "--data", str(data)])
    with pytest.raises(UserError, match="--data: give --results too"):
        script.main()


def records(folder):
    """Records by name, without the time that they took."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    for record in found.values():
        assert record.pop("wall_seconds", 0) is not None
    return found


def test_every_study_in_small(main, tmp_path):
    cores = len(os.sched_getaffinity(0))
    main(*STUDIES, "--smoke", "--jobs", min(cores, 2))
    main(*STUDIES, "--smoke", "--table")
    for name in STUDIES:
        folder, settings = tmp_path / "results" / name, load_study(name).settings(smoke=True)
        found = records(folder)
        assert found.keys() == {setting.name for setting in settings}
        for record in found.values():
            assert record["outcome"] in ("trained", "stuck") and record["study"] == name
        page = (folder / "README.md").read_text()
        assert page.startswith(f"# {load_study(name).title}\n")
        if load_study(name).figure:
            assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def three(tmp_path, monkeypatch):
    """The study of the three ends."""
    monkeypatch.setattr(definitions, "STUDIES", tmp_path)
    (tmp_path / "three.yaml").write_text(TINY)
    return "three"


def test_a_training_that_fails_is_a_result(main, three, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "OVER_S", 0.5)  # stuck at 80, long before the checkpoint of 158
    assert "3 of 3 trainings to run" in main(three, "--dry-run")
    told = main(three, "--jobs", "2")
    found = records(tmp_path / "results" / "three")
    ends = {name: (r["outcome"], r["known"], r["updates"]) for name, r in found.items()}
    assert ends["0.01_seed1"] == ("trained", 240, 240)
    assert ends["1e-09_seed1"] == ("stuck", 80, 80)
    assert ends["1e+30_seed1"][0] == "diverged" and ends["1e+30_seed1"][1] < 240
    for name, (outcome, update, _) in ends.items():
        assert f"three/{name}: {outcome}, known at update {update}" in told
    learned = found["0.01_seed1"]
    assert learned["scores"]["bleu"]["signature"] and learned["sentences"] == 30
    assert learned["train_ppl"][-1][1] < 2 ** (0.9 * learned["unigram_bits"])
    assert not found["1e-09_seed1"]["scores"] and not found["1e+30_seed1"]["scores"]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    main(three)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before
    main(three, "--table")
    page = (tmp_path / "results" / "three" / "README.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| Admin |")]
    assert [("stuck" in row, "diverged" in row) for row in rows] == [
        *((True, False), (False, False), (False, True))  # by learning rate
    ]
    assert "Not run yet" not in page

    runs, results = tmp_path / "runs" / "three", tmp_path / "results" / "three"
    (results / "1e-09_seed1.json").unlink()
    (runs / "1e-09_seed1" / "train.log").write_text("")  # hydra's own log is there still
    main(three)
    assert records(results) == found
    (results / "0.01_seed1.json").unlink()
    (runs / "0.01_seed1" / "train.log").write_text("")
    (runs / "0.01_seed1" / "hydra_train.log").unlink()
    with pytest.raises(UserError, match="1 of 1 trainings could not be run"):
        main(three)
    assert not (results / "0.01_seed1.json").exists()


def test_what_another_study_recorded_is_taken_over(main, three, data, tmp_path):
    (tmp_path / "other.yaml").write_text(TINY.replace("common.seed: [1]", "common.seed: [1, 2]"))
    assert "6 of 9 trainings to run" in main("other", three, "--dry-run")
    record = {"wall_seconds": 1, "method": "admin", "layers": "2-2", "updates": 5, "scores": None}
    record.update(outcome="stuck", known=5, train_ppl=[], data_sha256=data_sha256(data / "bin"))
    for setting in load_study(three).settings():
        made = trial.Trial(
            load_study(three), setting, tmp_path, tmp_path, tmp_path / "results/three"
        )
        made.save(record)
    told = main("other", "--only", "*seed1")
    assert told == "study: nothing to run, every training is recorded\n"
    assert len(records(tmp_path / "results" / "other")) == 3
    assert "3 of 6 trainings to run, as nothing was run yet" in main("other", "--dry-run")
    assert "Not run yet, 3 of 6" in page_of(main, "other", tmp_path)
    for path in tmp_path.glob("results/*/*.json"):  # of other text than is there
        path.write_text(json.dumps({**json.loads(path.read_text()), "data_sha256": "x"}))
    assert "6 of 6 trainings to run" in main("other", "--dry-run")
    first = next(tmp_path.glob("results/other/*_seed1.json"))
    right = json.loads(first.read_text())
    first.write_text(json.dumps({**right, "data_sha256": data_sha256(data / "bin")}))
    assert "5 of 6 trainings to run" in main("other", "--dry-run")
    assert "2 of 3 trainings to run" in main(three, "--dry-run")


def page_of(main, study, tmp_path):
    main(study, "--table")
    return (tmp_path / "results" / study / "README.md").read_text()


def test_mistakes_are_one_line(main, three):
    for arguments, told in {
        ("nonesuch",): "no study nonesuch: there are three",
        (three, "--only", "x*"): "--only x.: no training is called so",
        (three, "--jobs", "0"): "--jobs 0: give 1 or more",
        (three, "--nice", "-5"): "--nice -5: give 0 to 19",
        (three, "--results", "/proc/none"): "3 of 3 trainings could not be run, see",
        (three, "--data", "/nowhere"): "no data in /nowhere: give another --data",
        (three, "--table"): "no record of three: run bash scripts/study.sh three",
    }.items():
        with pytest.raises(script.UserError, match=told) as refused:
            main(*arguments)
        assert "\n" not in refused.value.message


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_twenty_moments_it_leaves_the_same_records(main, three, lab, data, tmp_path):
    """Sometimes with all its processes, sometimes alone, sometimes politely."""
    longer = TINY.replace("max_update=240", "max_update=1200")
    (tmp_path / "three.yaml").write_text(longer)
    main(three, "--jobs", "2")
    straight = records(tmp_path / "results" / "three")
    start = [
        *(lab.bin / "python", "-W", "ignore", "-c", f"{STARTED.format(tmp_path)}"),
        *(three, "--jobs", "2", "--data", data, "--runs", tmp_path / "again"),
        *("--results", tmp_path / "again"),
    ]
    draw, running = random.Random(1), 0
    for i in range(20):
        process = subprocess.Popen(
            list(map(str, start)), cwd=ROOT / "scripts", start_new_session=True
        )
        time.sleep(draw.uniform(0.5, 10))
        running += process.poll() is None
        with suppress(ProcessLookupError):
            if i % 3 == 0:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGKILL if i % 3 == 1 else signal.SIGTERM)
        process.wait(90)
    assert running >= 10, "it had come to its end too soon"
    lab.run(start, cwd=ROOT / "scripts").ok()
    assert records(tmp_path / "again" / "three") == straight


STARTED = """
import sys
sys.path.insert(0, "")
from pathlib import Path
from studies import main, study
study.STUDIES = Path("{}")
main.main()
"""
