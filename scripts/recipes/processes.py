"""Processes that run for long: so many at once, watched, their output in logs."""

import subprocess
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Callable, Dict, Generator, Iterable, List, NamedTuple, Optional, Sequence

from fairseq_admin.errors import UserError

PROGRESS_S = 15  # seconds between two lines of progress
END_S = 60  # seconds that a process has to end when it is told to
OVER_S = 5  # seconds between two questions whether a process is needed still
TAIL = 5  # lines of a log in a message


class Job(NamedTuple):
    """A command, and the open files that its output goes to. A lock on one of these is held by the
    process itself: its launcher may be killed, and it goes on."""

    name: str
    command: Sequence[str]
    log: IO[str]
    output: Optional[IO[str]] = None  # of stdout, where that is not to be in the log
    folder: Optional[Path] = None  # where it runs
    over: Callable[[], bool] = lambda: False  # whether the rest of it is not needed
    keep: Sequence[int] = ()  # file descriptors that it holds open too, of locks for example


# of one task, one after another; None: it waits for something
Steps = Generator[Optional[Job], None, None]


def run_job(job: Job, tell: Callable[[float], None] = lambda seconds: None) -> None:
    """Run *job* to its end.

    Args:
        tell: called now and then with the seconds that have passed.

    Raises:
        UserError: when it fails, with the end of its log.
    """
    for error in run_queue([(only for only in [job])], 1, tell):
        raise error


def run_queue(
    queue: Iterable[Steps],
    at_once: int,
    tell: Callable[[float], None] = lambda seconds: None,
) -> List[UserError]:
    """Run the jobs of each task of *queue*, *at_once* tasks at a time, begun in their order.

    A job that fails is a UserError in its task, where the job was yielded; one that the task does
    not catch ends it, and is among those returned. The others go on. *tell* is that of
    :func:`run_job`.
    """
    waiting, errors = iter(queue), []
    running: Dict[Steps, Optional[Running]] = {}
    start = told = time.monotonic()
    try:
        while True:
            running.update((steps, None) for steps in islice(waiting, at_once - len(running)))
            if not running:
                return errors
            for steps, now in list(running.items()):
                if now is None or now.ended():
                    try:
                        job = steps.throw(now.error) if now and now.error else next(steps)
                        running[steps] = job and Running(job)
                    except StopIteration:
                        del running[steps]
                    except UserError as error:
                        errors.append(error)
                        del running[steps]
            time.sleep(0.2)
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                with suppress(OSError):  # nobody reads it any more, or the disk is full
                    tell(told - start)
    finally:
        for now in filter(None, running.values()):
            end(now.process)


class Running:
    """A job of :func:`run_queue` that was started."""

    error: Optional[UserError] = None

    def __init__(self, job: Job) -> None:
        self.job, self.asked = job, time.monotonic()
        how = {"stderr": job.log, "cwd": job.folder, "pass_fds": job.keep}
        self.process = subprocess.Popen(job.command, stdout=job.output or job.log, **how)

    def ended(self) -> bool:
        """Whether the process has ended, or has been for not being needed; sets `error`."""
        job = self.job
        if self.process.poll() is None:
            if time.monotonic() - self.asked < OVER_S:
                return False
            self.asked = time.monotonic()
            if not job.over():
                return False
            end(self.process)
        elif self.process.returncode:
            lines = Path(job.log.name).read_text(errors="replace").splitlines()
            told = f"{job.name} failed with {self.process.returncode}, see {job.log.name}:"
            self.error = UserError("\n".join([told, *lines[-TAIL:]]))
        return True


def end(process: subprocess.Popen) -> None:
    """End *process* if it still runs."""
    process.terminate()  # nothing where it has ended
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
