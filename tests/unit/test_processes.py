"""recipes.processes: several at once, their output where it belongs, none left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairseq_admin.errors import UserError
from recipes import processes
from recipes.processes import Job, run_job, run_queue

SCRIPTS = Path(processes.__file__).parents[1]


@pytest.fixture
def job(tmp_path):
    """A shell command as a job, with logs of its own."""

    def make(name, script, **files):
        log = open(tmp_path / f"{name}.log", "a")  # noqa: SIM115
        return Job(name, ["sh", "-c", script], log, folder=tmp_path, **files)

    return make


def test_output_and_log_are_apart_and_both_run_in_their_folder(job, tmp_path):
    with open(tmp_path / "out", "w") as output:
        run_job(job("a", "pwd; echo told >&2", output=output))
    run_job(job("b", "echo all"))
    assert (tmp_path / "out").read_text() == f"{tmp_path}\n"
    assert (tmp_path / "a.log").read_text() == "told\n"
    assert (tmp_path / "b.log").read_text() == "all\n"


def test_of_one_that_fails_the_last_lines_are_told(job, tmp_path):
    with pytest.raises(UserError) as refused:
        run_job(job("short", "for i in 1 2 3 4 5 6 7; do echo line $i; done; exit 3"))
    told = f"short failed with 3, see {tmp_path}/short.log:\n"
    assert refused.value.message == told + "\n".join(f"line {i}" for i in range(3, 8))


STARTER = """
import sys
from fairseq_admin.errors import UserError
from recipes.processes import Job, run_job

run_job(Job("a", ["sh", "-c", "echo $$; exec sleep 99"], sys.stderr, output=open(sys.argv[1], "w")))
"""


def test_what_was_started_ends_with_its_starter_and_is_of_this_checkout(tmp_path):
    """Told to end, as by a queue; beside another package of the same name."""
    (tmp_path / "starter.py").write_text(STARTER)
    (tmp_path / "fairseq_admin").mkdir()
    (tmp_path / "fairseq_admin" / "__init__.py").write_text("1 / 0")
    command = [sys.executable, str(SCRIPTS), "starter", str(tmp_path / "pid")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_progress_that_nobody_reads_ends_nothing(job, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROGRESS_S", 0)

    def tell(seconds):
        raise BrokenPipeError

    run_job(job("a", "sleep 0.5; echo all"), tell)
    assert (tmp_path / "a.log").read_text() == "all\n"


def test_a_lock_is_handed_on(job, tmp_path):
    with open(tmp_path / "lock", "w") as lock:
        check = f"{sys.executable} -c 'import os; os.write({lock.fileno()}, b\"held\")'"
        run_job(job("a", check, keep=[lock.fileno()]))
    assert (tmp_path / "lock").read_text() == "held"


def test_a_queue_runs_so_many_at_once_in_order_and_each_task_to_its_end(job, tmp_path):
    """Two at once: the third begins when one of the first has ended."""

    def task(name):
        begun.append(name)
        yield job(name, "echo a")
        yield None  # nothing yet
        yield job(name, f"cat {name}.log > {name}.done")

    begun = []
    assert run_queue(map(task, "xyz"), 2) == []
    assert begun == ["x", "y", "z"]
    assert [(tmp_path / f"{name}.done").read_text() for name in "xyz"] == ["a\n"] * 3


def test_a_failure_is_the_tasks_to_catch_and_keeps_no_other_back(job):
    def careful():
        with pytest.raises(UserError, match="bad failed with 3"):
            yield job("bad", "exit 3")
        yield job("more", "true")
        done.append("careful")

    def careless(end):
        yield job(f"end{end}", f"exit {end}")
        done.append(end)

    done = []
    errors = run_queue([careful(), careless(4), careless(0)], 1)
    assert [error.message.split(",")[0] for error in errors] == ["end4 failed with 4"]
    assert done == ["careful", 0]


def test_what_is_not_needed_any_more_is_ended_and_is_no_failure(job, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "OVER_S", 0.1)

    def task():
        yield job("long", "echo $$ > pid; exec sleep 100", over=(tmp_path / "pid").exists)
        done.append(True)

    done = []
    assert run_queue([task()], 1) == [] and done
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_queue_that_is_interrupted_leaves_nothing(job, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROGRESS_S", 0)

    def tell(seconds):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job("long", "echo $$ > pid; exec sleep 100"), tell)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
