"""Going on from a checkpoint: the trained omegas come back, and nothing is lost."""

import os
import shutil

import pytest

# Each starts from the checkpoint after 20 updates, with a learning rate of 0 and another seed,
# hence another profile: what is saved after one update is what was loaded.
CASES = {
    "restore-file": ["--restore-file", "CHECKPOINT", "--max-update", "21"],
    "finetune": ["--finetune-from-model", "CHECKPOINT", "--max-update", "1"],
    "reset-optimizer": [
        *("--restore-file", "CHECKPOINT", "--max-update", "1", "--reset-optimizer"),
        *("--reset-lr-scheduler", "--reset-dataloader", "--reset-meters"),
    ],
}


@pytest.fixture(scope="module")
def continued(admin, corpus, lab, in_background, tmp_path_factory):
    def start(case):
        folder = tmp_path_factory.mktemp(case)
        extra = [str(admin.checkpoints[20]) if x == "CHECKPOINT" else x for x in CASES[case]]
        command = lab.train_command(corpus, folder, *extra, "--lr", "0", "--seed", "2")
        return lab.run(command, cwd=folder).ok(), lab.load(folder / "checkpoint_last.pt")

    return in_background(start)


def test_resume_equals_the_straight_run(admin, corpus, lab, tmp_path):
    """20 updates, a stop, 40 more: bit for bit what 60 updates in one go give."""
    shutil.copy(admin.checkpoints[20], tmp_path / "checkpoint_last.pt")
    run = lab.run(lab.train_command(corpus, tmp_path, "--max-update", "60"), cwd=tmp_path).ok()
    straight = admin.run.losses()
    assert run.losses() == {n: straight[n] for n in range(21, 61)}
    resumed = lab.load(tmp_path / "checkpoint_last.pt")
    expected = lab.load(admin.checkpoints[60])
    assert len(lab.omegas(resumed["model"])) == 15
    assert lab.same_tensors(resumed["model"], expected["model"])
    assert resumed["task_state"] == expected["task_state"]


def test_parameters_and_omegas_start_from_the_checkpoint(admin, continued, lab, case):
    run, state = continued[case].result()
    assert len(run.losses()) == 1
    assert lab.same_tensors(state["model"], lab.load(admin.checkpoints[20])["model"])


def test_kept_profile_is_the_one_the_omegas_started_from(admin, continued, lab, case):
    _, state = continued[case].result()
    if case != "restore-file":  # fairseq hands over weights alone: better none than a wrong one
        assert "profile" not in state["task_state"]
    else:
        assert lab.profile_of(state) == lab.profile_of(lab.load(admin.checkpoints[20]))


def test_resume_reads_no_omega_file_and_a_finished_training_does_nothing(corpus, lab, tmp_path):
    """The omega file is gone, and a kill left half of the last checkpoint; then once more."""
    ones = tmp_path / "ones"
    ones.write_text("1.0\n" * 15)
    command = lab.train_command(corpus, tmp_path / "run", "--omega-file", ones, "--max-update")
    lab.run([*command, "4"], cwd=tmp_path).ok()
    last = tmp_path / "run" / "checkpoint_last.pt"
    saved = lab.load(last)
    assert saved["task_state"]["profile"]["meta"]["omega_file"] == str(ones)
    ones.unlink()
    os.truncate(last, last.stat().st_size // 2)
    resumed = lab.run([*command, "8"], cwd=tmp_path).ok()
    assert f"{last} was cut off" in resumed.output
    assert set(resumed.losses()) == {5, 6, 7, 8} and resumed.table() is None
    assert lab.load(last)["task_state"] == saved["task_state"]

    def files():
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in last.parent.iterdir()}

    before = files()
    again = lab.run([*command, "8"], cwd=tmp_path).ok()
    assert again.output.count(f"training is finished already, by {last}") == 1
    assert again.losses() == {} and "Traceback" not in again.output
    assert files() == before


def test_fairseqs_own_transformer_goes_on_beside_the_plugin(transformer, corpus, lab, tmp_path):
    extra = ["--restore-file", transformer, "--max-update", "8", "--lr", "0"]
    command = lab.train_command(corpus, tmp_path, *extra, task="translation", arch="transformer")
    run = lab.run(command, cwd=tmp_path).ok()
    assert len(run.losses()) == 4
    state = lab.load(tmp_path / "checkpoint_last.pt")
    assert lab.same_tensors(state["model"], lab.load(transformer)["model"])
