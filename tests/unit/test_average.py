"""The mean of checkpoints, in precision, memory and what it refuses."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch

from fairseq_admin.checkpoints.average import average, last_checkpoints
from fairseq_admin.checkpoints.checkpoint import read_checkpoint
from fairseq_admin.errors import UserError
from fairseq_admin_cli import main as cli
from tests.helpers import checkpoint_of, randomized

JOINED = {"share_all_embeddings": True}


def saved(tmp_path, name, seed=1, dtype=torch.float32, given=JOINED, **more):
    """A file with a random model; its path and its weights."""
    model, cfg = randomized(seed=seed, **given)
    path = tmp_path / name
    state = checkpoint_of(model.to(dtype), cfg, **more)
    torch.save(state, path)
    return str(path), state["model"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_mean_of_each_weight(tmp_path, dtype):
    files = [saved(tmp_path, f"{seed}.pt", seed, dtype) for seed in (1, 2, 3)]
    got = average([path for path, _ in files])["model"]
    for key, tensor in got.items():
        kept = files[0][1][key].dtype  # fp32 of omegas that lie in an fp16 model
        mean = torch.stack([weights[key].double() for _, weights in files]).mean(0)
        atol = {torch.float16: 0, torch.float32: 1e-6, torch.float64: 1e-14}[kept]
        torch.testing.assert_close(tensor, mean.to(kept), rtol=0, atol=atol)


def test_checkpoints_of_other_dictionaries_have_no_mean(tmp_path):
    """Of as many types each, in another order; one that tells nothing of its text is not asked."""
    paths = []
    for name in ("a", "b", ""):
        text = {"languages": ["de", "en"], "dictionaries": [name, name]}
        told = {"text": text} if name else {}
        paths.append(saved(tmp_path, f"of_{name}.pt", task_state=told)[0])
    with pytest.raises(UserError, match="of_b.pt was trained with other dictionaries than those"):
        average([paths[2], *paths[:2]])
    assert average(paths[1:])["task_state"]["text"]["dictionaries"] == ["b", "b"]


def test_everything_else_is_of_the_first_file(tmp_path):
    history = [{"num_updates": 9}]
    first, _ = saved(
        tmp_path, "a.pt", optimizer_history=history, last_optimizer_state={"state": {}}
    )
    second, _ = saved(tmp_path, "b.pt", seed=2)
    got = average([first, second])
    assert got["optimizer_history"] == history
    assert got["task_state"] == {"profile": {"format": "p"}}
    assert got["cfg"]["task"]["data"] == "data-bin" and got["cfg"]["model"]["encoder_layers"] == 2
    folder = tmp_path.name
    assert got["extra_state"]["averaged"] == [f"{folder}/a.pt", f"{folder}/b.pt"]
    assert "last_optimizer_state" not in got


def test_the_command_takes_fairseqs_spelling(tmp_path):
    """`--inputs`, without which fairseq's own script does not run."""
    paths = [saved(tmp_path, f"{seed}.pt", seed)[0] for seed in (1, 2)]
    outputs = [str(tmp_path / f"mean{i}.pt") for i in range(2)]
    cli.main(["average", "--inputs", *paths, "--output", outputs[0]])
    cli.main(["average", *paths, "--output", outputs[1]])
    first, second = (read_checkpoint(path)["model"] for path in outputs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    for wrong in ([], [paths[0], "--inputs", paths[1]]):
        with pytest.raises(SystemExit, match="give checkpoints, or one folder, once"):
            cli.main(["average", *wrong, "--output", outputs[0]])


def test_tied_embeddings_stay_one(tmp_path):
    paths = [saved(tmp_path, f"{seed}.pt", seed)[0] for seed in (1, 2)]
    got = average(paths)["model"]
    table = got["encoder.embed_tokens.weight"].data_ptr()
    assert got["decoder.output_projection.weight"].data_ptr() == table


@pytest.mark.parametrize(
    "given, message",
    [
        ({**JOINED, "encoder_ffn_embed_dim": 48}, r"encoder\.layers\.0\.fc1\.weight is \(48, 16\)"),
        ({**JOINED, "encoder_layers": 3}, r"has encoder\.layers\.2\."),
        ({**JOINED, "encoder_attention_heads": 4}, "encoder_attention_heads is 4"),
        ({**JOINED, "activation_fn": "gelu"}, "activation_fn is gelu"),
        ({}, "is tied to"),
        ({**JOINED, "learn_first_omega": True}, "learn_first_omega is True"),
    ],
)
def test_a_mixture_is_refused(tmp_path, given, message):
    paths = [saved(tmp_path, "a.pt")[0], saved(tmp_path, "b.pt", given=given)[0]]
    with pytest.raises(UserError, match=message):
        average(paths)


@pytest.mark.parametrize(
    "option, value, told",
    [
        ("_name", "transformer_admin_wmt_en_de", "architecture is transformer_admin_wmt_en_de"),
        ("activation_fn", ["relu"], r"activation_fn is \['relu'\]"),
    ],
)
def test_another_option_of_any_kind_is_refused(tmp_path, option, value, told):
    path, _ = saved(tmp_path, "a.pt")
    state = torch.load(path)
    state["cfg"]["model"][option] = value
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(UserError, match=told):
        average([path, str(tmp_path / "b.pt")])


def test_nan_is_refused(tmp_path):
    path, _ = saved(tmp_path, "a.pt")
    state = torch.load(path)
    state["model"]["decoder.layers.1.fc2.bias"][0] = float("nan")
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"decoder\.layers\.1\.fc2\.bias is not finite"):
        average([path, str(tmp_path / "b.pt")])


def test_a_file_twice_and_two_precisions_are_refused(tmp_path):
    path, _ = saved(tmp_path, "a.pt")
    (tmp_path / "link.pt").symlink_to(path)
    with pytest.raises(UserError, match="the same file twice"):
        average([path, str(tmp_path / "link.pt")])
    half, _ = saved(tmp_path, "half.pt", dtype=torch.float16)
    with pytest.raises(UserError, match=r"is torch.float16 in .*half.pt and torch.float32 in"):
        average([path, half])


def test_the_other_mean_is_left_out(tmp_path):
    """--store-ema keeps one of its own, which is not that of the averaged weights."""
    extra = {"ema": {"weight": torch.ones(2)}, "train_iterator": {"epoch": 2}}
    path, _ = saved(tmp_path, "a.pt", extra_state=extra)
    assert average([path])["extra_state"].keys() == {"train_iterator", "averaged"}


def test_another_direction_is_refused_and_another_seed_told(tmp_path, caplog):
    paths = [saved(tmp_path, f"{name}.pt")[0] for name in "abc"]
    for path, part in ((paths[1], {"task": {"source_lang": "en"}}), (paths[2], {"seed": 7})):
        state = torch.load(path)
        for section in ("task", "common"):
            state["cfg"].setdefault(section, {}).update(part.get(section, {}))
        state["cfg"]["common"]["seed"] = part.get("seed", 1)
        torch.save(state, path)
    with pytest.raises(UserError, match="its source_lang is en"):
        average(paths[:2])
    state = torch.load(paths[1])
    state["cfg"]["task"].update(source_lang=None)
    torch.save(state, paths[1])
    assert not caplog.text and average(paths[:2])
    average([paths[0], paths[2]])
    assert "c.pt is of seed 7" in caplog.text and "the mean of two trainings" in caplog.text


NAMES = ["checkpoint8.pt", "checkpoint9.pt", "checkpoint10.pt", "checkpoint_best.pt"]
NAMES += [
    "checkpoint_last.pt",
    "checkpoint_9_900.pt",
    "checkpoint_10_1000.pt",
    "checkpoint9.pt.tmp",
]


@pytest.mark.parametrize(
    "count, updates, bound, expected",
    [
        (2, False, None, ["checkpoint10.pt", "checkpoint9.pt"]),
        (2, False, 9, ["checkpoint9.pt", "checkpoint8.pt"]),
        (2, True, None, ["checkpoint_10_1000.pt", "checkpoint_9_900.pt"]),
        (1, True, 999, ["checkpoint_9_900.pt"]),
    ],
)
def test_the_last_checkpoints_of_a_folder(tmp_path, count, updates, bound, expected):
    for name in NAMES:
        (tmp_path / name).touch()
    got = last_checkpoints(str(tmp_path), count, updates, bound)
    assert got == [str(tmp_path / name) for name in expected]


def test_fewer_checkpoints_than_asked_for(tmp_path):
    (tmp_path / "checkpoint3.pt").touch()
    with pytest.raises(UserError, match="has 1 checkpoints of epochs .* up to 5, not 2"):
        last_checkpoints(str(tmp_path), 2, upper_bound=5)


def test_checkpoints_of_a_course_that_was_given_up(tmp_path):
    """To update 24, then anew from 8 to 16; a kill between two copies is no other course."""

    def save(name, updates, time=1):
        torch.save({"optimizer_history": [{"num_updates": updates}]}, tmp_path / name)
        os.utime(tmp_path / name, (time, time))

    for updates in (8, 12, 16, 20, 24):
        save(f"checkpoint_1_{updates}.pt", updates)
    told = "checkpoint_1_24.pt is of update 24, and checkpoint_last.pt, which is later, of 16"
    save("checkpoint_last.pt", 16, time=2)
    with pytest.raises(UserError, match=told):
        last_checkpoints(str(tmp_path), 2, updates=True)
    kept = last_checkpoints(str(tmp_path), 2, updates=True, upper_bound=16)
    assert [os.path.basename(path) for path in kept] == ["checkpoint_1_16.pt", "checkpoint_1_12.pt"]
    save("checkpoint_1_24.pt", "many")  # nobody knows
    assert last_checkpoints(str(tmp_path), 1, updates=True)
    save("checkpoint_1_24.pt", 24, time=3)  # written after the last
    assert last_checkpoints(str(tmp_path), 1, updates=True)


def test_memory_of_two_checkpoints(tmp_path):
    """Four files of 15 MB: beside what small ones need, their sum and one file at a time."""
    script = textwrap.dedent("""
        import re, sys
        from fairseq_admin.checkpoints.average import average
        for paths in (sys.argv[1:5], sys.argv[5:]):
            average(paths)
            status = open("/proc/self/status").read()
            print(re.search(r"VmHWM:\\s*(\\d+) kB", status).group(1))
    """)

    def saved(name, types):
        model, cfg = randomized(types=types, encoder_embed_dim=64, **JOINED)
        torch.save(checkpoint_of(model, cfg), tmp_path / name)
        for i in range(3):
            shutil.copy(tmp_path / name, tmp_path / f"{i}_{name}")
        return [str(tmp_path / f) for f in (name, *(f"{i}_{name}" for i in range(3)))]

    run = subprocess.run(
        [sys.executable, "-c", script, *saved("small.pt", 100), *saved("large.pt", 60_000)],
        stdout=subprocess.PIPE,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # glibc keeps no large piece
        check=True,
        text=True,
    )
    small, large = (int(line) / 1024 for line in run.stdout.split()[-2:])
    assert large - small < 2.5 * 60_000 * 64 * 4 / 2**20  # of the embeddings, in MB
