"""fairseq-hydra-train, as one of the processes of a training that may have been killed before.

Usage:   scripts/run.sh runs it, by itself or under torchrun
         python scripts/recipes/worker.py RUN_DIR [ARGUMENTS OF fairseq-hydra-train]
         Without arguments it only mends the checkpoints there: before a SLURM job, which runs
         fairseq itself.

It does not import fairseq_admin: fairseq does, and takes no module twice.
"""

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

CPU = "common.cpu=true"
SAVED = re.compile(r"checkpoint(\d+|_\d+_\d+|_best)\.pt")  # what fairseq saves before the last


def mend(folder: Path) -> None:
    """Make checkpoint_last.pt of *folder* whole.

    fairseq writes a checkpoint to a file of its own and then copies that to checkpoint_best.pt and
    checkpoint_last.pt: a process killed while it copies leaves half a file, from which no training
    can go on. The newest of the others is the one that was being copied.
    """
    for name in ("checkpoint_best.pt", "checkpoint_last.pt"):
        path = folder / name
        if path.exists() and not zipfile.is_zipfile(path):
            path.unlink()
    last = folder / "checkpoint_last.pt"
    saved = [p for p in folder.glob("checkpoint*.pt") if SAVED.fullmatch(p.name)]
    if saved and not last.exists():
        partial = folder / "checkpoint_last.partial"
        shutil.copyfile(max(saved, key=lambda p: p.stat().st_mtime_ns), partial)
        os.replace(partial, last)


def main() -> None:
    rank = int(os.environ.get("RANK", 0))  # torchrun sets it, and runs this anew after a failure
    folder = Path(sys.argv.pop(1))
    if rank == 0:
        mend(folder)
    if len(sys.argv) == 1:
        return
    if CPU in sys.argv and "RANK" in os.environ:  # fairseq reads it itself on GPUs alone
        sys.argv.append(f"distributed_training.distributed_rank={rank}")
    from fairseq_cli.hydra_train import cli_main

    cli_main()


if __name__ == "__main__":
    main()
