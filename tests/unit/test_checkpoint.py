"""Checkpoints under torch's weights_only protection: what fairseq saves loads, code does not."""

import argparse
import collections
import fractions
import os
import pickle
import resource
import subprocess

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fairseq_admin.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from fairseq_admin.errors import UserError
from tests.helpers import checkpoint_of, randomized

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.6", reason="before torch 2.6 nothing is protected by default"
)


def reloaded(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    return torch.load(path, weights_only=True)


def test_options_of_a_model_without_a_dataclass(tmp_path):
    args = argparse.Namespace(arch="transformer", lr=[1e-3], dropout=0.1, data=None)
    assert reloaded(tmp_path, {"args": args}) == {"args": args}


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.int32, np.bool_])
def test_numpy_numbers_and_arrays(tmp_path, kind):
    content = {"scalar": kind(1), "array": np.array([[0, 1], [2, 3]], dtype=kind)}
    got = reloaded(tmp_path, content)
    assert got["scalar"] == kind(1)
    assert got["scalar"].dtype == got["array"].dtype == np.dtype(kind)
    np.testing.assert_array_equal(got["array"], content["array"])


def test_omegaconf_trees(tmp_path):
    """What rank 0 sends to the other ranks at a resume."""
    tree = OmegaConf.create({"model": {"layers": 2, "name": "m"}, "lr": [0.1, 0.2], "none": None})
    assert reloaded(tmp_path, {"cfg": tree})["cfg"] == tree


def test_profile_and_optimizer_history(tmp_path):
    content = {
        "model": collections.OrderedDict(weight=torch.ones(2)),
        "task_state": {"profile": {"stacks": {"encoder": {"sublayers": []}}, "meta": {"seed": 1}}},
        "optimizer_history": [{"num_updates": 3, "lr_scheduler_state": {"best": np.float64(2.5)}}],
    }
    got = reloaded(tmp_path, content)
    assert torch.equal(got.pop("model")["weight"], torch.ones(2))
    assert got == {key: content[key] for key in got}


class Attack:
    """Runs a command of the machine when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, subprocess.getoutput, eval, exec])
def test_foreign_code_is_refused_and_not_run(tmp_path, function):
    mark = tmp_path / "mark"
    command = f"open({str(mark)!r}, 'w')" if function in (eval, exec) else f"touch {mark}"
    path = tmp_path / "checkpoint.pt"
    torch.save({"args": argparse.Namespace(), "extra": Attack(function, command)}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the same file does harm without the protection
    assert mark.exists()


@pytest.mark.parametrize("content", [argparse.ArgumentParser, os.system, fractions.Fraction(1, 2)])
def test_only_the_classes_of_a_checkpoint_are_allowed(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint file, and what is in it."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    state = checkpoint_of(*randomized())
    torch.save(state, path)
    return path, state


def test_a_checkpoint_comes_back(whole):
    path, state = whole
    got = read_checkpoint(str(path))
    assert got["cfg"] == state["cfg"]
    assert all(torch.equal(got["model"][key], state["model"][key]) for key in state["model"])


@pytest.mark.parametrize("kept", [0, 1, 100, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(whole, tmp_path, kept):
    content = whole[0].read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    path = tmp_path / "cut.pt"
    path.write_bytes(content[:size])
    with pytest.raises(UserError, match="cut.pt cannot be read: it is damaged, cut short"):
        read_checkpoint(str(path))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_foreign_class_is_named_and_not_run(whole, tmp_path, old_format):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    state = {**whole[1], "extra_state": {"meter": Attack(os.system, f"touch {mark}")}}
    torch.save(state, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match=r"evil.pt holds (posix|nt)\.system, .* nothing in it was"):
        read_checkpoint(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"weight": torch.ones(2)}},
        {"model": {"weight": torch.ones(2)}},
        {"model": {"weight": "text"}, "cfg": {"model": {}}},
        {"model": {}, "cfg": {"model": {}}},
        [torch.ones(2)],
        torch.ones(2),
    ],
)
def test_a_file_of_another_project_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="other.pt is no checkpoint of fairseq"):
        read_checkpoint(str(tmp_path / "other.pt"))


def test_a_text_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "text.pt").write_text("some words\n" * 100)
    with pytest.raises(UserError, match="no file of torch.save"):
        read_checkpoint(str(tmp_path / "text.pt"))
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(str(tmp_path))


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path):
    path = tmp_path / "out.pt"
    path.write_text("what was there before")
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint({"model": lambda: None}, str(path))
    assert path.read_text() == "what was there before"
    assert os.listdir(tmp_path) == ["out.pt"]
    with pytest.raises(UserError, match="cannot write"):
        write_checkpoint({}, str(tmp_path / "no such folder" / "out.pt"))


def test_a_full_disk_is_one_line(tmp_path):
    """The same to a program: a limit on the size of its files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*out.pt: is the disk full"):
            write_checkpoint({"model": torch.ones(10**5)}, str(tmp_path / "out.pt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []
