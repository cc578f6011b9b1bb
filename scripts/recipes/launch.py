"""How a training is started on given hardware: the effective batch kept, the right launcher."""

import shlex
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import torch
from omegaconf import DictConfig

from corpora.steps import BIN
from fairseq_admin.errors import UserError
from recipes.code import ROOT
from recipes.configs import load_config, quoted
from recipes.training import Training

PORTS = (20000, 30000)  # one of these for the ranks of a SLURM job to meet
RESTARTS = 3  # of all processes by torchrun after one has died
# else torchrun (seen with torch 2.13) gives restarted processes the addresses of those that died
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
BF16 = {"amx_bf16", "avx512_bf16"}  # flags of processors that multiply matrices in it
WIDE = 256  # channels from which on a training step in bf16 is the faster one there
WORKER = str(ROOT / "scripts" / "recipes" / "worker.py")


@dataclass
class Hardware:
    """Where a training runs.

    Args:
        gpus: a machine, processes where *cpu*; None: as many in all as the recipe has.
        nodes: machines; they share the folder of the runs.
        rendezvous: HOST:PORT of one of several machines.
        slurm: options of hydra's submitit launcher, `partition=gpu`; not None: run by SLURM.
    """

    gpus: Optional[int] = None
    nodes: int = 1
    cpu: bool = False
    max_tokens: Optional[int] = None
    rendezvous: Optional[str] = None
    slurm: Optional[List[str]] = None

    def __post_init__(self) -> None:
        counts = {"--gpus": self.gpus, "--nodes": self.nodes, "--max-tokens": self.max_tokens}
        for option, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"{option} {count}: give 1 or more")
        if self.slurm is None:
            if self.nodes > 1 and not self.rendezvous:
                raise UserError("--nodes: give --rendezvous HOST:PORT, the address of one of them")
            return
        if self.cpu:
            raise UserError("fairseq takes GPUs under SLURM: leave out --slurm, --cpu and --smoke")
        for option in self.slurm:
            if "=" not in option:
                raise UserError(f"--slurm {option}: give KEY=VALUE")
        if not any(option.startswith("timeout_min=") for option in self.slurm):
            # hydra's default is an hour: where an epoch takes longer, no job comes any further
            raise UserError("--slurm: give timeout_min=MINUTES of a job, long enough for an epoch")

    def flags(self) -> List[str]:
        """Of scripts/run.sh, for another recipe on the same."""
        values = {"--gpus": self.gpus, "--max-tokens": self.max_tokens}
        values["--rendezvous"] = self.rendezvous
        flags = [str(word) for pair in values.items() if pair[1] is not None for word in pair]
        flags += ["--nodes", str(self.nodes)] + ["--cpu"] * self.cpu
        return flags + (["--slurm", *self.slurm] if self.slurm is not None else [])

    def a_machine(self, config: DictConfig) -> int:
        """Processes a machine."""
        if self.gpus is not None:
            return self.gpus
        world = self.nodes if self.cpu else world_of(config)
        if world % self.nodes:
            raise UserError(
                f"the recipe's {world} GPUs are not {self.nodes} equal machines: --gpus"
            )
        return world // self.nodes


def world_of(config: DictConfig) -> int:
    """GPUs of the recipe."""
    return config.get("distributed_training", {}).get("distributed_world_size", 1)


def tokens_of(config: DictConfig) -> int:
    """Most tokens of an update."""
    freq = (config.optimization.get("update_freq") or [1])[0]
    return world_of(config) * config.dataset.max_tokens * freq


def update_freq(config: DictConfig, world: int, max_tokens: int, nodes: int = 1) -> int:
    """Batches that each of *world* processes adds up before an update, so that
    processes x tokens x batches is the recipe's.

    Raises:
        UserError: where no whole number does that, with the nearest choices.
    """
    recipe = (world_of(config), config.dataset.max_tokens)
    freqs = config.optimization.get("update_freq") or [1]
    if len(freqs) > 1:
        raise UserError(f"optimization.update_freq={freqs}: give one, for all epochs")
    total = recipe[0] * recipe[1] * freqs[0]
    found, rest = divmod(total, world * max_tokens)
    if not rest and found:
        return found
    worlds = range(nodes, total // max_tokens + 1, nodes)
    whole = [n for n in worlds if total % (n * max_tokens) == 0]
    near = sorted(sorted(whole, key=lambda n: abs(n - world))[:3])
    choices = [f"--gpus {n // nodes} (update-freq {total // (n * max_tokens)})" for n in near]
    tokens = [t for t in range(1, recipe[1] + 1) if total % (world * t) == 0]
    if tokens:
        best = tokens[-1]
        choices.append(f"--max-tokens {best} (update-freq {total // (world * best)})")
    raise UserError(
        f"{world} x {max_tokens} tokens do not add up to the recipe's {total:,} an update "
        f"({recipe[0]} x {recipe[1]} x {freqs[0]}); the nearest that do: "
        f"{', '.join(choices) or 'another number of --nodes'}"
    )


def multiplies_bf16() -> bool:
    """Whether this machine's processor has instructions for it."""
    return bool(BF16 & set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split()))


class Launch:
    """The command that runs *training* on *hardware*."""

    def __init__(self, training: Training, hardware: Hardware) -> None:
        self.training, self.hardware = training, hardware
        config = training.config
        if not config.dataset.get("max_tokens"):
            raise UserError("dataset.max_tokens: the effective batch is counted in tokens")
        self.processes = hardware.a_machine(config)
        self.world = self.processes * hardware.nodes
        self.max_tokens = hardware.max_tokens or config.dataset.max_tokens
        self.freq = update_freq(config, self.world, self.max_tokens, hardware.nodes)

        chosen = any("common.bf16" in o or "common.fp16" in o for o in training.overrides)
        wide = config.model.get("encoder_embed_dim", WIDE) >= WIDE
        self.bf16 = hardware.cpu and wide and not chosen and multiplies_bf16()

    def check_gpus(self) -> None:
        """Raise UserError where this machine is to run it and has not that many GPUs."""
        here, elsewhere = torch.cuda.device_count(), self.hardware.slurm is not None
        if not self.hardware.cpu and not elsewhere and here < self.processes:
            raise UserError(
                f"{self.processes} GPUs: there are {here} here; give fewer --gpus, or --cpu"
            )

    def batch(self) -> str:
        """The effective batch, as a sum, and the recipe's where overrides made it another."""
        kind = "processes" if self.hardware.cpu else "GPUs"
        total = self.world * self.max_tokens * self.freq
        told = f"{self.world} {kind} x {self.max_tokens} tokens x update-freq {self.freq}"
        told += f" = {total:,} tokens an update" + ", in bf16" * self.bf16
        recipe = tokens_of(load_config(self.training.name))
        return told if total == recipe else f"{told} (not the recipe's {recipe:,})"

    def overrides(self) -> List[str]:
        """Of the config, for this hardware."""
        changed = [
            f"distributed_training.distributed_world_size={self.world}",
            f"dataset.max_tokens={self.max_tokens}",
            f"optimization.update_freq=[{self.freq}]",
        ]
        if self.hardware.cpu:
            changed += ["common.cpu=true", "common.fp16=false"]
            changed += ["common.bf16=true"] * self.bf16
            if self.world > 1:
                changed += [
                    "distributed_training.distributed_backend=gloo",
                    "distributed_training.ddp_backend=legacy_ddp",
                    "distributed_training.distributed_init_method='env://'",
                    "distributed_training.distributed_no_spawn=true",
                ]
        if self.hardware.slurm is not None:
            folder = str(self.training.folder).encode()
            port = PORTS[0] + zlib.crc32(folder) % (PORTS[1] - PORTS[0])  # two jobs share a machine
            changed.append(f"distributed_training.distributed_port={port}")
        return changed

    def command(self) -> List[str]:
        """The command line, to be run on every machine (with SLURM: once)."""
        if self.hardware.slurm is not None:
            return self.slurm()
        worker = [WORKER, str(self.training.folder)]
        arguments = [*self.training.arguments(), *self.overrides()]
        if self.world == 1:
            return [str(BIN / "python"), *worker, *arguments]
        torchrun = ["env", OWN_STORE, str(BIN / "torchrun"), f"--nproc-per-node={self.processes}"]
        torchrun.append(f"--max-restarts={RESTARTS}")
        if self.hardware.nodes > 1:
            torchrun += [f"--nnodes={self.hardware.nodes}", "--rdzv-backend=c10d"]
            torchrun += [f"--rdzv-endpoint={self.hardware.rendezvous}"]
            torchrun += [f"--rdzv-id={self.training.folder.name}"]
            arguments.append("hydra.job.name=train")  # rank 0, wherever it is, writes train.log
        else:
            torchrun.append("--standalone")
        return [*torchrun, *worker, *arguments]

    def slurm(self) -> List[str]:
        """One job by hydra's submitit launcher, sent anew when it is preempted or out of time."""
        folder = self.training.folder
        mend = shlex.join([str(BIN / "python"), WORKER, str(folder)])
        launcher = {
            "nodes": self.hardware.nodes,
            "tasks_per_node": self.processes,
            "gpus_per_node": self.processes,
            "max_num_timeout": 100,
            "name": f"{folder.name}-{zlib.crc32(str(folder).encode()):08x}",
            "setup": f'["{mend}"]',  # at each start of the job, before its processes
            # a second job of this name waits for the first, and then finds the training finished
            "additional_parameters.dependency": "singleton",
        }
        given = dict(option.partition("=")[::2] for option in self.hardware.slurm)
        options = []
        for key, value in {**launcher, **given}.items():
            # a comma would be several jobs; lists and dictionaries stay as they are
            value = value if str(value)[:1] in "[{" else quoted(str(value))
            new = "++" * ("." in key)  # a key of a dictionary
            options.append(f"{new}hydra.launcher.{key}={value}")
        return [
            str(BIN / "fairseq-hydra-train"),
            "--multirun",
            *self.training.arguments(("run", "sweep")),  # hydra takes overrides after options only
            *("hydra/launcher=submitit_slurm", "hydra.sweep.subdir=.", *options),
            "hydra.job.name=train",  # the job writes train.log
            *self.overrides(),
        ]
