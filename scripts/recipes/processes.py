"""Processes that run for long: started together, watched, their output in logs."""

import os
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Callable, Dict, List, NamedTuple, Optional, Sequence

from fairseq_admin.errors import UserError

PROGRESS_S = 15  # seconds between two lines of progress
END_S = 60  # seconds that a process has to end when it is told to
TAIL = 5  # lines of a log in a message


class Job(NamedTuple):
    """A command, and the open files that its output goes to. A lock on one of these is held by the
    process itself: its launcher may be killed, and it goes on."""

    name: str
    command: Sequence[str]
    log: IO[str]
    output: Optional[IO[str]] = None  # of stdout, where that is not to be in the log
    folder: Optional[Path] = None  # where it runs


def run_together(
    jobs: Sequence[Job],
    tell: Callable[[float], None] = lambda seconds: None,
    env: Optional[Dict[str, str]] = None,
    keep: Sequence[int] = (),
) -> None:
    """Run *jobs* at the same time.

    Args:
        tell: called now and then with the seconds that have passed.
        env: of all of them.
        keep: file descriptors that they hold open too, of locks for example.

    Raises:
        UserError: when one fails, with the end of its log; the others are ended.
    """
    running: List[subprocess.Popen] = []
    popen = partial(subprocess.Popen, env=env, pass_fds=keep)
    start = told = time.monotonic()
    try:
        for job in jobs:
            stdout = job.output or job.log
            running.append(popen(job.command, stdout=stdout, stderr=job.log, cwd=job.folder))
        while any(process.poll() is None for process in running):
            check(jobs, running)
            time.sleep(0.2)
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                tell(told - start)
        check(jobs, running)
    finally:
        for process in running:
            process.terminate()  # nothing where it has ended
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)


def check(jobs: Sequence[Job], running: Sequence[subprocess.Popen]) -> None:
    """Raise UserError where one of the processes has failed."""
    for job, process in zip(jobs, running):
        if process.poll():
            lines = Path(job.log.name).read_text(errors="replace").splitlines()
            told = f"{job.name} failed with {process.returncode}, see {job.log.name}:"
            raise UserError("\n".join([told, *lines[-TAIL:]]))


def share_of_cores(processes: int) -> Dict[str, str]:
    """The environment of each of *processes*: more threads than cores are far slower."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}
