"""Each way to train that touches parameters, before or after the omegas are written to them."""

import math

import pytest
import torch

UPDATES = 4  # of each variant
STEPS = 6e-3  # Adam's four steps at lr 0.5, 1, 1.5, 2 e-3 add up to 5e-3

CASES = {
    "fp16": ["--fp16", "--fp16-no-flatten-grads"],  # flat copies need a GPU
    "memory-efficient fp16": ["--memory-efficient-fp16"],
    "ema": ["--store-ema", "--ema-fp32", "--ema-decay", "0.999"],
    "radam": ["--optimizer", "radam", "--radam-betas", "(0.9, 0.98)"],
    "learn-first-omega": ["--learn-first-omega"],
}


@pytest.fixture(scope="module")
def variants(corpus, lab, in_background, tmp_path_factory):
    def start(case):
        folder = tmp_path_factory.mktemp("variant")
        command = lab.train_command(corpus, folder, "--max-update", UPDATES, *CASES[case])
        return lab.run(command, cwd=folder).ok(), lab.load(folder / "checkpoint_last.pt")

    return in_background(start)


def test_trains_from_the_profiled_omegas(variants, lab, case):
    """Parameters that were copied before the profile would have put the omegas back to 1."""
    run, state = variants[case].result()
    losses = run.losses()
    assert set(losses) == {1, 2, 3, 4}
    assert all(math.isfinite(loss) and loss < 9 for loss in losses.values())  # bits
    profile = lab.profile_of(state)
    assert run.table() == profile.table()
    assert max(profile.omegas) > 1.2
    for name, omega in lab.omegas(state["model"]).items():
        moved = (omega - lab.profiled(profile)[name]).abs()
        first = name.endswith("layers.0.self_attn") and case != "learn-first-omega"
        least = 0 if case == "radam" else 1e-4  # its first steps are short
        assert (moved == 0).all() if first else least < moved.max() < STEPS, name


def test_variant_is_the_one_that_was_asked_for(variants, admin, lab, case):
    run, state = variants[case].result()
    model = state["model"]
    if "fp16" in case:
        first = run.records("train_inner")[0]
        weight = model["encoder.layers.1.fc1.weight"]  # saved as fp32
        assert torch.equal(weight.half().float(), weight)
        assert "loss_scale" in first
        assert float(first["loss"]) == pytest.approx(admin.run.losses()[1], abs=0.01)
    elif case == "ema":
        ema = state["extra_state"]["ema"]
        assert lab.omegas(ema).keys() == lab.omegas(model).keys()
        profile = lab.profiled(lab.profile_of(state))
        for name, omega in lab.omegas(ema).items():  # moved by a thousandth of the steps
            assert (omega - profile[name]).abs().max() < 1e-4, name
    elif case == "radam":
        assert state["optimizer_history"][-1]["optimizer_name"] == "FairseqRAdam"
    elif case == "learn-first-omega":
        for stack in ("encoder", "decoder"):
            omega = model[f"{stack}.layers.0.self_attn_residual.omega"]
            assert (omega != 1).any() and (omega - 1).abs().max() < STEPS


def test_a_whole_model_is_pruned_where_it_decodes(admin, corpus, lab, tmp_path):
    """What the refusal of a pruned training names."""
    generate = [lab.bin / "fairseq-generate", corpus, "--user-dir", lab.plugin, "--cpu"]
    generate += ["--required-batch-size-multiple", "1", "--path", admin.checkpoints[120]]
    outputs = [
        lab.run([*generate, "--model-overrides", f"{{{kept}}}"], cwd=tmp_path).ok().output
        for kept in ("", "'encoder_layers_to_keep': '0,2', 'decoder_layers_to_keep': '1'")
    ]
    whole, pruned = ([x for x in out.splitlines() if x.startswith("H-")] for out in outputs)
    assert len(whole) == len(pruned) == 30 and whole != pruned
