"""Training through `fairseq-train`: the profile, the omegas, and that it learns."""

import torch

UNIFORM = 6.0  # bits: 60 words and 4 symbols, each as likely as any other
LEARNED = 5.6  # bits; knowing only how frequent each word is gives about UNIFORM


def test_loss_falls_below_what_word_frequencies_give(admin):
    losses = admin.run.losses()
    assert set(losses) == set(range(1, 121))
    assert losses[1] > UNIFORM
    assert sum(losses[n] for n in range(101, 121)) / 20 < LEARNED
    assert float(admin.run.records("valid")[-1]["valid_loss"]) < LEARNED


def test_log_shows_the_profile_that_the_checkpoint_holds(admin, lab):
    profile = lab.profile_of(lab.load(admin.checkpoints[20]))
    assert admin.run.table() == profile.table()
    assert len(profile.omegas) == 3 * 2 + 3 * 3


def test_first_omega_of_each_stack_stays_1_and_the_others_train(admin, lab):
    state = lab.load(admin.checkpoints[120])
    profile = lab.profiled(lab.profile_of(state))
    omegas = lab.omegas(state["model"])
    assert omegas.keys() == profile.keys()
    for name, omega in omegas.items():
        if name.endswith("layers.0.self_attn"):
            assert torch.equal(omega, torch.ones(32)), name
        else:
            assert not torch.allclose(omega, torch.full((32,), profile[name]), atol=1e-3), name
            assert not torch.allclose(omega, torch.ones(32), atol=1e-3), name


def test_without_profile_it_says_so_once_and_loudly(corpus, lab, tmp_path):
    """`--task translation` knows no profile: an ordinary Post-LN model; a resume is silent."""
    warning = "NO OMEGA WAS PROFILED"
    run = [lab.train_command(corpus, tmp_path, "--max-update", n, task="translation") for n in "48"]
    first = lab.run(run[0], cwd=tmp_path).ok()
    assert first.output.count(warning) == 1
    line = next(line for line in first.output.splitlines() if warning in line)
    assert "WARNING" in line and "--task translation_admin" in line
    assert set(first.losses()) == {1, 2, 3, 4}
    assert "profile" not in lab.load(tmp_path / "checkpoint_last.pt")["task_state"]

    resumed = lab.run(run[1], cwd=tmp_path).ok()
    assert set(resumed.losses()) == {5, 6, 7, 8}
    assert warning not in resumed.output
