"""Files are written whole or not at all, whatever stands at their path, and no leftover stays."""

import os
import platform
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file, whole_files, whole_folder
from fairseq_admin_cli import main as cli
from tests.helpers import limited


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real", tmp_path / "link"
    link.symlink_to(real)  # first to nothing, then to a file
    for text in ("one", "two"):
        with whole_file(link) as f:
            f.write(text)
        assert link.is_symlink() and real.read_text() == text


def test_a_link_to_a_folder_is_followed(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with whole_folder(link) as folder:
        (folder / "a").touch()
    assert link.is_symlink() and os.listdir(real) == ["a"]


def test_a_pipe_is_written_through(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    with whole_file(pipe) as f:
        f.write("text")
    reader.join()
    assert got == ["text"] and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(os.getuid() != 0, reason="makes devices of its own, which only root may")
def test_a_device_is_written_through(tmp_path):
    null, full = tmp_path / "null", tmp_path / "full"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    with whole_file(null) as f:
        f.write("text")
    with pytest.raises(UserError, match="cannot write .*full: No space left"), whole_file(
        full
    ) as f:
        f.write("text")
    assert null.is_char_device() and full.is_char_device()


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    told = pytest.raises(UserError, match="cannot write .*folder: Is a directory")
    with told, whole_file(tmp_path / "folder") as f:
        f.write("text")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("sizes", [(10, 10_000), (10_000, 10)])
def test_two_files_are_written_both_or_none(tmp_path, sizes):
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_text("before")
    told = pytest.raises(UserError, match="cannot write .*a and .*b: File too large")
    with limited(5_000), told, whole_files(paths, "wb") as files:
        for file, size in zip(files, sizes):
            file.write(b"x" * size)
    assert os.listdir(tmp_path) == ["a"] and paths[0].read_text() == "before"


def leftovers(path, dead):
    """Names at *path* of dead processes, of one that runs, of another machine and of nobody."""
    node = platform.node()
    ends = {"dead": f"{node}.{dead}", "runs": f"{node}.{os.getppid()}", "far": f"other.{dead}"}
    ends["as this"] = f"{node}.{os.getpid()}"  # dead too, of a container that was started again
    return {k: Path(f"{path}.{end}.partial") for k, end in {**ends, "else": node}.items()}


def test_what_a_killed_process_left_of_a_file_goes(tmp_path, dead):
    left = leftovers(tmp_path / "out", dead)
    others = leftovers(tmp_path / "another", dead)
    for path in [*left.values(), *others.values()]:
        path.write_text("half")
    with whole_file(tmp_path / "out") as f:
        f.write("whole")
    gone = {left["dead"], left["as this"]}
    kept = {*left.values(), *others.values(), tmp_path / "out"} - gone
    assert set(tmp_path.iterdir()) == kept


def test_what_a_killed_process_left_of_a_folder_goes(tmp_path, dead):
    left = leftovers(tmp_path / "out", dead)
    for path in left.values():
        path.mkdir()
        (path / "half").touch()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    gone = {left["dead"], left["as this"]}
    assert set(tmp_path.iterdir()) == {*left.values(), tmp_path / "out"} - gone


def test_a_folder_that_was_moved_away_by_a_killed_process_comes_back(tmp_path, dead):
    old = Path(f"{tmp_path / 'out'}.{platform.node()}.{dead}.old")
    old.mkdir()
    (old / "before").touch()
    with pytest.raises(KeyError), whole_folder(tmp_path / "out"):
        raise KeyError
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["before"]


def test_an_analysis_writes_its_figure_and_its_numbers_or_neither(tmp_path):
    log = tmp_path / "train.log"
    line = "train_inner | epoch 001: {0} / 9 loss=2, ppl=9.{0}, num_updates={0}, lr=1\n"
    log.write_text("".join(line.format(i) for i in range(9)))
    (tmp_path / "out.json").write_text("before")
    command = ["analyze", "curves", str(log), "--output", str(tmp_path / "out")]
    with limited(5_000), pytest.raises(UserError, match="out.json and .*out.png: File too large"):
        cli.main(command)
    assert sorted(os.listdir(tmp_path)) == ["out.json", "train.log"]
    assert (tmp_path / "out.json").read_text() == "before"
    cli.main(command)
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.png", "train.log"]
