"""Real command lines, each in its own process, and what tests of several files share of them.

`lab.bin` has commands that start at once (see ../forks.py), `lab.real` those of the environment,
for tests of the start itself.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer

import fairseq_admin
from fairseq_admin.omega_file import Profile

BIN = Path(sys.executable).parent
PLUGIN = Path(fairseq_admin.__file__).parent
# fairseq asks for GPUs, and counts them, whatever --cpu says
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
HANGS = 240  # seconds; a process of these tests takes 5 to 20 on a busy machine

LAYERS = ["--encoder-layers", "3", "--decoder-layers", "3"]
SIZES = ["--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64", "--share-all-embeddings"]
SIZES += ["--encoder-attention-heads", "2", "--decoder-attention-heads", "2"]
MODEL = [*LAYERS, *SIZES]
RECIPE = ["--optimizer", "adam", "--lr", "5e-3"]
RECIPE += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10", "--max-tokens", "500"]
RECIPE += ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"]
# else fairseq 0.12.3 forms other batches after a resume than a run that never stopped
RECIPE += ["--update-epoch-batch-itr", "True"]
RECIPE += ["--log-format", "json", "--log-interval", "1", "--num-workers", "0", "--cpu"]


@dataclass
class Run:
    """How a process ended: its exit code, and stdout and stderr as a terminal shows them."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""

    def ok(self) -> "Run":
        """Itself; an AssertionError with the output where the process failed."""
        assert self.code == 0, self.output[-4000:]
        return self

    def records(self, tag: str):
        """What `--log-format json` logged under *tag*, `train_inner` or `valid`; by hydra too."""
        head = rf"(?:\| {tag} \||\[{tag}\]\[INFO\] -)"
        rows = re.findall(rf"{head} (\{{.*\}})$", self.output, flags=re.MULTILINE)
        return [json.loads(row) for row in rows]

    def losses(self):
        """Training loss by update, as logged."""
        return {int(r["num_updates"]): float(r["loss"]) for r in self.records("train_inner")}

    def translations(self, kind="H"):
        """Text by sentence as fairseq-generate prints it: H in the words of the dictionary, D
        without subwords."""
        rows = (line.split("\t") for line in self.output.splitlines())
        return {int(row[0][2:]): row[2] for row in rows if row[0].startswith(f"{kind}-")}

    def table(self):
        """The omega table as logged, or None."""
        lines = self.output.splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith("sublayer ")]
        if not starts:
            return None
        assert len(starts) == 1, "more than one omega table"
        rows = takewhile(lambda line: "INFO" not in line, lines[starts[0] :])
        return "\n".join(rows)


def run_process(command, cwd=None, stdin="", env=None, hangs=HANGS) -> Run:
    """Run *command* to its end; one that takes longer than *hangs* seconds is killed with all its
    children."""
    on_cpu = "--cpu" in map(str, command)
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(NO_GPU if on_cpu else {}), **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(stdin, timeout=hangs)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"hangs: {command}\n{output[-4000:]}")
    return Run(process.returncode, output)


def train_command(bin, data, save_dir, *extra, task="translation_admin", arch="transformer_admin"):
    """A command line of *bin*'s fairseq-train; later options win over those of the recipe."""
    command = [bin / "fairseq-train", data, "--user-dir", PLUGIN, "--task", task, "--arch", arch]
    return [*command, *MODEL, *RECIPE, "--save-dir", save_dir, *extra]


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def omegas(state_dict):
    """Omegas of a model's state dict by sublayer, as `profile.stacks` names them."""
    end = "_residual.omega"
    return {k[: -len(end)]: v.float() for k, v in state_dict.items() if k.endswith(end)}


def profile_of(checkpoint) -> Profile:
    """The profile that a checkpoint holds."""
    return Profile.from_dict(checkpoint["task_state"]["profile"])


def profiled(profile: Profile):
    """Omegas of a profile by sublayer."""
    return {s.name: s.omega for stack in profile.stacks.values() for s in stack.sublayers}


def same_tensors(a, b) -> bool:
    """Whether two state dicts hold the same keys and bit-equal tensors."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def load(path):
    """A checkpoint file, under torch's protection."""
    return torch.load(path, map_location="cpu", weights_only=True)


def build_trainer(data, *extra) -> SimpleNamespace:
    """cfg, task, model and trainer, made in the order of fairseq_cli/train.py (0.12.3)."""
    arguments = [str(part) for part in train_command(BIN, data, "unused", *extra)[1:]]
    args = options.parse_args_and_arch(options.get_training_parser(), arguments)
    cfg = convert_namespace_to_omegaconf(args)
    np.random.seed(cfg.common.seed)
    utils.set_torch_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    profile = Profile.from_dict(task.state.state_dict["profile"])
    return SimpleNamespace(cfg=cfg, task=task, model=model, trainer=trainer, profile=profile)


@pytest.fixture(scope="session")
def lab(commands):
    """The helpers of this file, which tests cannot import."""
    return SimpleNamespace(
        bin=commands,
        real=BIN,
        plugin=PLUGIN,
        model_options=MODEL,
        sizes=SIZES,
        recipe=RECIPE,
        run=run_process,
        train_command=partial(train_command, commands),
        free_port=free_port,
        omegas=omegas,
        profile_of=profile_of,
        profiled=profiled,
        same_tensors=same_tensors,
        load=load,
        build_trainer=build_trainer,
    )


@pytest.fixture(scope="session")
def workers():
    """A pool as wide as the machine: independent processes need not wait for each other."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield pool


@pytest.fixture(scope="session")
def admin(corpus, lab, shared):
    """The run that most tests look at: Admin, 120 updates, checkpoints after 20, 60 and all."""
    every_20 = ["--save-interval-updates", "20", "--save-interval", "99"]
    every_20 += ["--validate-interval", "99", "--max-update", "120"]

    def train(folder):
        command = lab.train_command(corpus, folder, *every_20)
        (folder / "printed").write_text(lab.run(command, cwd=folder).ok().output)

    folder = shared("admin", train)
    checkpoints = {n: next(folder.glob(f"checkpoint_*_{n}.pt")) for n in (20, 60)}  # mid-epoch
    checkpoints[120] = folder / "checkpoint_last.pt"
    run = Run(0, (folder / "printed").read_text())
    return SimpleNamespace(run=run, folder=folder, checkpoints=checkpoints)


@pytest.fixture(scope="session")
def transformer(corpus, lab, shared):
    """A checkpoint of fairseq's own transformer, trained without the plugin, 4 updates."""

    def train(folder):
        command = [lab.bin / "fairseq-train", corpus, "--task", "translation"]
        command += ["--arch", "transformer", *lab.model_options, *lab.recipe]
        lab.run([*command, "--save-dir", folder, "--max-update", "4"], cwd=folder).ok()

    return shared("transformer", train) / "checkpoint_last.pt"


def pytest_generate_tests(metafunc):
    """Give a test's `case` the keys of its module's CASES, unless it names some itself."""
    marks = metafunc.definition.iter_markers("parametrize")
    if "case" in metafunc.fixturenames and all("case" not in mark.args[0] for mark in marks):
        metafunc.parametrize("case", list(metafunc.module.CASES))


@pytest.fixture(scope="module")
def in_background(request, workers):
    """Start `make(case)` for every selected case of the module at once; futures by case."""

    def start(make):
        items = (item for item in request.session.items if item.module is request.module)
        cases = [i.callspec.params["case"] for i in items if "case" in i.fixturenames]
        return {case: workers.submit(make, case) for case in dict.fromkeys(cases)}

    return start
