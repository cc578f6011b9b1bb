"""How a training is started on given hardware: the effective batch kept, the right launcher."""

from dataclasses import dataclass
from typing import List, Optional

from omegaconf import DictConfig
from training import BIN, ROOT, Training

from fairseq_admin.errors import UserError

PORT = 29500  # of the meeting of several machines, where none is given
RESTARTS = 3  # of all processes by torchrun after one has died


@dataclass
class Hardware:
    """Where a training runs.

    Args:
        gpus: a machine, processes where *cpu*; None: as many in all as the recipe has.
        nodes: machines.
        rendezvous: HOST:PORT of one of several machines.
        slurm: options of hydra's submitit launcher, `partition=gpu`; not None: run by SLURM.
    """

    gpus: Optional[int] = None
    nodes: int = 1
    cpu: bool = False
    max_tokens: Optional[int] = None
    rendezvous: Optional[str] = None
    slurm: Optional[List[str]] = None

    def flags(self) -> List[str]:
        """Of scripts/run.sh, for another recipe on the same."""
        values = {"--gpus": self.gpus, "--rendezvous": self.rendezvous}
        flags = [str(word) for pair in values.items() if pair[1] is not None for word in pair]
        flags += ["--nodes", str(self.nodes)] + ["--cpu"] * self.cpu
        return flags + (["--slurm", *self.slurm] if self.slurm is not None else [])

    def a_machine(self, config: DictConfig) -> int:
        """Processes a machine."""
        if self.gpus is not None:
            return self.gpus
        world = 1 if self.cpu else world_of(config)
        if world % self.nodes:
            raise UserError(
                f"the recipe's {world} GPUs are not {self.nodes} equal machines: --gpus"
            )
        return world // self.nodes


def world_of(config: DictConfig) -> int:
    """GPUs of the recipe."""
    return config.get("distributed_training", {}).get("distributed_world_size", 1)


def update_freq(config: DictConfig, world: int, max_tokens: int) -> int:
    """Batches that each of *world* processes adds up before an update, so that
    processes x tokens x batches is the recipe's.

    Raises:
        UserError: where no whole number does that, with the nearest choices.
    """
    recipe = (world_of(config), config.dataset.max_tokens)
    freq = config.optimization.get("update_freq", [1])[0]
    total = recipe[0] * recipe[1] * freq
    found, rest = divmod(total, world * max_tokens)
    if not rest and found:
        return found
    worlds = [n for n in range(1, total // max_tokens + 1) if total % (n * max_tokens) == 0]
    near = sorted(sorted(worlds, key=lambda n: abs(n - world))[:3])
    choices = [f"{n} in all (update-freq {total // (n * max_tokens)})" for n in near]
    each = [f // world for f in divisors(total) if f % world == 0 and f // world <= recipe[1]]
    if each:
        best = max(each)
        choices.append(f"--max-tokens {best} (update-freq {total // (world * best)})")
    raise UserError(
        f"{world} x {max_tokens} tokens do not add up to the recipe's {total:,} an update "
        f"({recipe[0]} x {recipe[1]} x {freq}); the nearest that do: {', '.join(choices)}"
    )


def divisors(n: int) -> List[int]:
    """All of them, in order."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


class Launch:
    """The command that runs *training* on *hardware*."""

    def __init__(self, training: Training, hardware: Hardware) -> None:
        self.training, self.hardware = training, hardware
        config = training.config
        self.processes = hardware.a_machine(config)
        if self.processes < 1 or hardware.nodes < 1:
            raise UserError("--gpus and --nodes: give 1 or more")
        if hardware.nodes > 1 and not hardware.rendezvous and hardware.slurm is None:
            raise UserError("--nodes: give --rendezvous HOST:PORT, the address of one of them")
        if hardware.cpu and hardware.slurm is not None:
            raise UserError("fairseq takes GPUs under SLURM: leave out --cpu or --slurm")
        self.world = self.processes * hardware.nodes
        self.max_tokens = hardware.max_tokens or config.dataset.max_tokens
        self.freq = update_freq(config, self.world, self.max_tokens)

    def batch(self) -> str:
        """The effective batch, as a sum."""
        kind = "processes" if self.hardware.cpu else "GPUs"
        total = self.world * self.max_tokens * self.freq
        return (
            f"{self.world} {kind} x {self.max_tokens} tokens x update-freq {self.freq} = {total:,}"
        )

    def overrides(self) -> List[str]:
        """Of the config, for this hardware."""
        changed = [
            f"distributed_training.distributed_world_size={self.world}",
            f"dataset.max_tokens={self.max_tokens}",
            f"optimization.update_freq=[{self.freq}]",
        ]
        if self.hardware.cpu:
            changed += ["common.cpu=true", "common.fp16=false"]
            if self.world > 1:
                changed += [
                    "distributed_training.distributed_backend=gloo",
                    "distributed_training.ddp_backend=legacy_ddp",
                    "distributed_training.distributed_init_method='env://'",
                    "distributed_training.distributed_no_spawn=true",
                ]
        if self.hardware.slurm is not None:
            changed.append(f"distributed_training.distributed_port={PORT}")
        return changed

    def command(self) -> List[str]:
        """The command line, to be run on every machine (with SLURM: once)."""
        if self.hardware.slurm is not None:
            return self.slurm()
        worker = str(ROOT / "scripts" / "worker.py")
        arguments = [*self.training.arguments(), *self.overrides()]
        if self.world == 1:
            return [str(BIN / "python"), worker, *arguments]
        torchrun = [str(BIN / "torchrun"), f"--nproc-per-node={self.processes}"]
        torchrun.append(f"--max-restarts={RESTARTS}")
        if self.hardware.nodes > 1:
            torchrun += [f"--nnodes={self.hardware.nodes}", "--rdzv-backend=c10d"]
            torchrun += [f"--rdzv-endpoint={self.hardware.rendezvous}"]
            torchrun += [f"--rdzv-id={self.training.folder.name}"]
        else:
            torchrun.append("--standalone")
        return [*torchrun, worker, *arguments]

    def slurm(self) -> List[str]:
        """One job by hydra's submitit launcher, sent anew when it is preempted or out of time."""
        launcher = {
            "nodes": self.hardware.nodes,
            "tasks_per_node": self.processes,
            "gpus_per_node": self.processes,
            "max_num_timeout": 100,
            "name": self.training.name,
        }
        given = dict(option.partition("=")[::2] for option in self.hardware.slurm)
        options = [f"hydra.launcher.{k}={v}" for k, v in {**launcher, **given}.items()]
        return [
            str(BIN / "fairseq-hydra-train"),
            *("--multirun", "hydra/launcher=submitit_slurm"),
            *self.training.arguments(("run", "sweep")),
            *("hydra.sweep.subdir=.", *options),
            *self.overrides(),
        ]
