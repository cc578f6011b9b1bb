"""fairseq-hydra-train, as one of the processes of a training that may have been killed before.

Usage:   scripts/run.sh runs it, by itself or under torchrun
         python scripts/recipes/worker.py RUN_DIR [ARGUMENTS OF fairseq-hydra-train]
         Without arguments it only mends the checkpoints there: before a SLURM job, which runs
         fairseq itself.

It does not import fairseq_admin: fairseq does, and takes no module twice.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path

CPU = "common.cpu=true"
RESTORING = Path(__file__).resolve().parents[2] / "fairseq_admin" / "restoring.py"
mend = runpy.run_path(str(RESTORING))["mend"]


def main() -> None:
    rank = int(os.environ.get("RANK", 0))  # torchrun sets it, and runs this anew after a failure
    folder = Path(sys.argv.pop(1))
    if rank == 0:
        try:
            mend(folder, missing=True)
        except ValueError as error:
            sys.exit(f"worker: {error}")
    if len(sys.argv) == 1:
        return
    if CPU in sys.argv and "RANK" in os.environ:  # fairseq reads it itself on GPUs alone
        sys.argv.append(f"distributed_training.distributed_rank={rank}")
    from fairseq_cli.hydra_train import cli_main

    os.environ["HYDRA_FULL_ERROR"] = "1"  # else hydra ends the process itself
    try:
        cli_main()
    except Exception as error:
        cause = error  # fairseq's search for the first nan may stumble itself
        while cause and not isinstance(cause, FloatingPointError):
            cause = cause.__context__
        if cause is None:
            raise
        traceback.print_exc()  # it diverged, and would again if torchrun started it anew


if __name__ == "__main__":
    main()
