"""Checkpoints under torch's weights_only protection: what fairseq saves loads, code does not."""

import argparse
import collections
import fractions
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import fairseq_admin  # noqa: F401  allow-lists the classes

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
