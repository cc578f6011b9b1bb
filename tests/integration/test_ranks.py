"""Two processes with gloo: one profile, the same omegas, and an end when rank 0 fails."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fairseq_admin.outcome import ALARM

# Ranks that start with other weights and another profile seed: only a broadcast makes them agree.
HOOK = """
import hashlib, os, sys
import numpy as np
import torch
from fairseq import options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils

def digest(tensors):
    return hashlib.sha256(torch.cat([t.flatten() for t in tensors]).numpy().tobytes()).hexdigest()

def main(cfg):
    rank = distributed_utils.get_global_rank()
    utils.set_torch_seed(cfg.common.seed + rank)
    cfg.task.seed = cfg.common.seed + rank
    task = tasks.setup_task(cfg.task)
    seen, make = [], task.make_profile

    def make_profile(*arguments):
        seen.append(torch.get_num_threads())
        return make(*arguments)

    task.make_profile = make_profile
    model = task.build_model(cfg.model)
    state = model.state_dict()
    omegas = [v for k, v in state.items() if k.endswith(".omega")]
    profile = task.state.state_dict["profile"]
    profile = hashlib.sha256(repr(profile).encode()).hexdigest()
    weights = digest([model.encoder.layers[0].fc1.weight.detach()])
    os.write(1, f"RANK {rank} {digest(omegas)} {profile} {weights}\\n".encode())  # at once
    cores = len(os.sched_getaffinity(0))
    assert seen == ([cores] if rank == 0 else []) and torch.get_num_threads() == 1, seen

args = options.parse_args_and_arch(options.get_training_parser())
distributed_utils.call_main(convert_namespace_to_omegaconf(args), main)
"""
# fairseq's own torchrun detection divides by the number of GPUs: on CPUs the rank is an option
RANKS = ["--distributed-world-size", "2", "--distributed-backend", "gloo"]
RANKS += ["--distributed-init-method", "env://", "--distributed-no-spawn"]
RANKS += ["--ddp-backend", "legacy_ddp"]


@pytest.fixture
def two_ranks(lab):
    """Run a command as two ranks without a launcher, and give both ends."""

    def run(command, cwd):
        port = lab.free_port()

        def start(rank):
            place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
            env = {"MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in place.items()}}
            return lab.run([*command, *RANKS, "--distributed-rank", rank], cwd=cwd, env=env)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(start, range(2)))

    return run


@pytest.fixture
def torchrun(lab):
    """Run a command line under torchrun with two ranks."""

    def run(command, cwd, **more):
        launch = [lab.real / "torchrun", "--no-python", "--nproc_per_node", "2"]
        launch += ["--master_port", lab.free_port(), "bash", "-c"]
        launch += ['exec "$@" --distributed-rank "$RANK"', "_"]
        return lab.run([*launch, *command, *RANKS], cwd=cwd, **more)

    return run


def test_ranks_that_would_profile_otherwise_hold_bit_equal_omegas(corpus, lab, torchrun, tmp_path):
    script = tmp_path / "hook.py"
    script.write_text(HOOK)
    command = [lab.bin / "python", script, *lab.train_command(corpus, tmp_path)[1:]]
    run = torchrun(command, tmp_path).ok()
    found = re.findall(r"RANK (\d) (\w+) (\w+) (\w+)", run.output)
    (_, omegas_0, profile_0, weights_0), (_, omegas_1, profile_1, weights_1) = sorted(found)
    assert weights_0 != weights_1, "the ranks are too alike to tell"
    assert profile_0 == profile_1
    assert omegas_0 == omegas_1
    ones = torch.ones(15 * 32).numpy().tobytes()
    assert omegas_0 != hashlib.sha256(ones).hexdigest()


def test_two_ranks_train_and_resume(corpus, lab, torchrun, tmp_path):
    command = [*lab.train_command(corpus, tmp_path), "--save-interval-updates", "3"]
    first = torchrun([*command, "--max-update", "6"], tmp_path).ok()
    assert set(first.losses()) == set(range(1, 7))
    state = lab.load(tmp_path / "checkpoint_last.pt")
    profile = lab.profiled(lab.profile_of(state))
    assert first.table() == lab.profile_of(state).table()  # of rank 0, and once
    for name, omega in lab.omegas(state["model"]).items():
        assert (omega - profile[name]).abs().max() < 2e-2, name  # 6 steps of warmup to 5e-3
    half = next(tmp_path.glob("checkpoint_*_3.pt"))  # mid-epoch

    again = tmp_path / "again"
    command = lab.train_command(corpus, again, "--restore-file", half, "--max-update", "6")
    resumed = torchrun(command, tmp_path).ok()
    assert resumed.losses() == {n: first.losses()[n] for n in (4, 5, 6)}
    assert lab.same_tensors(lab.load(again / "checkpoint_last.pt")["model"], state["model"])
    assert resumed.table() is None

    before = (again / "checkpoint_last.pt").read_bytes()
    finished = torchrun([*lab.train_command(corpus, again), "--max-update", "6"], tmp_path).ok()
    assert finished.output.count("training is finished already") == 1
    assert finished.losses() == {} and (again / "checkpoint_last.pt").read_bytes() == before


@pytest.mark.slow
def test_two_ranks_that_are_stuck_say_it_once(corpus, lab, torchrun, tmp_path):
    still = ["--lr", "0", "--warmup-updates", "1", "--max-update", "210", "--stuck-after", "50"]
    command = lab.train_command(corpus, tmp_path, *still, "--stop-when-stuck", "--no-save")
    run = torchrun(command, tmp_path).ok()
    assert run.output.count(ALARM) == 1 and "done training" not in run.output


@pytest.mark.slow  # each start compiles for minutes
@pytest.mark.timeout(1800)  # seconds
def test_compiled_layers_on_two_ranks(corpus, lab, torchrun, tmp_path):
    losses = []
    for compiled in ([], ["--compile-layers"]):
        options = ["--dropout", "0", "--max-update", "4", "--disable-validation", *compiled]
        command = lab.train_command(corpus, tmp_path / f"{len(losses)}", *options)
        losses.append(torchrun(command, tmp_path, hangs=1200).ok().losses())
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_error_of_rank_0_ends_both_ranks_with_its_line(corpus, lab, two_ranks, tmp_path):
    """Rank 0 alone opens the training set; without the message rank 1 would wait for ever."""
    command = lab.train_command(corpus, tmp_path, "--profile-tokens", "2")
    for run in two_ranks(command, tmp_path):
        assert run.code not in (0, None)
        assert run.last_line.startswith("fairseq_admin: nothing to measure: of 300 pairs")
        assert "Traceback" not in run.output
