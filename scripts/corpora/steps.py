"""Steps that leave a folder, whole or not at all, and know what they made it from."""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Callable, Dict, Optional, Sequence

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file, whole_folder, writing
from fairseq_admin.text import read_json

MADE = "made.json"  # in each folder: what it was made from, its files and their checksums
BIN = Path(sys.executable).parent  # of the console commands of this environment
BINARIZED = (".bin", ".idx", ".txt")  # endings of what fairseq-preprocess writes, but its log


def sha256(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def combined(*parts: Any) -> str:
    """One hash of several things in JSON's types."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any, sort_keys: bool = False) -> None:
    """Write *value* to the file *path*, whole or not at all."""
    with whole_file(path) as f:
        f.write(json.dumps(value, indent=1, sort_keys=sort_keys) + "\n")


def made(folder: Path) -> Dict[str, Any]:
    """What a finished step says of its folder; nothing where there is none."""
    path = folder / MADE
    if not path.exists():
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(f"{folder} was not made here: give another --output, or remove it")
        return {}
    try:
        facts = read_json(path)
        facts["digest"], facts["files"].items()
    except (UserError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: remove {folder} and run this again") from None
    return facts


def discard(folder: Path) -> None:
    """Remove *folder*, renamed first: what a kill leaves of it is no folder without made.json; and
    what kills on any machine left, since this one has the lock."""
    partial = folder.with_name(f"{folder.name}.partial")
    with writing(folder):
        for left in (partial, *folder.parent.glob(f"{glob.escape(folder.name)}.*.partial")):
            shutil.rmtree(left, ignore_errors=True)
        if folder.exists():
            folder.rename(partial)
            shutil.rmtree(partial)


def run_step(folder: Path, digest: str, make: Callable[[Path], Dict[str, Any]]) -> Dict[str, Any]:
    """What `made.json` of *folder* says, after making the folder unless it was made from the same.
    What was made from something else is removed before.

    Args:
        digest: of everything that the result depends on.
        make: fills the folder that it is given, and returns what to tell of it beside its files.

    Raises:
        UserError: when the disk is full or a file of a finished folder was changed since.
    """
    before = made(folder)
    if before.get("digest") == digest:
        return verified(folder, before)
    discard(folder)
    with whole_folder(folder) as partial, writing(folder):
        facts = make(partial)
        files = {p.name: describe(p) for p in sorted(partial.iterdir()) if p.is_file()}
        after = {"digest": digest, **facts, "files": files}
        (partial / MADE).write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")
    return after


def take_over(step: Path, folder: Path) -> Dict[str, Any]:
    """Put the files of the finished *step* into *folder*, where they stay when it is made anew:
    hard links, where there can be such."""
    for name in made(step)["files"]:
        try:
            os.link(step / name, folder / name)
        except OSError:  # another disk
            shutil.copyfile(step / name, folder / name)
    return {}


def run_command(
    command: Sequence[Any], output: Optional[IO] = None, env: Optional[Dict[str, str]] = None
) -> None:
    """Run *command*, what it prints to *output* if that is given; Python's text is UTF-8 there, in
    any locale.

    Raises:
        UserError: with its last words, when it fails.
    """
    done = subprocess.run(
        list(map(str, command)),
        stdout=output or subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**(os.environ if env is None else env), "PYTHONUTF8": "1"},
    )
    if done.returncode:
        tail = "".join(done.stderr.splitlines()[-1:])
        raise UserError(f"{Path(command[0]).name} failed with {done.returncode}: {tail}")


def describe(path: Path) -> Dict[str, Any]:
    """Size and checksum of a file."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def verified(folder: Path, facts: Dict[str, Any]) -> Dict[str, Any]:
    """*facts*, when the files of *folder* are still what they say."""
    for name, expected in facts["files"].items():
        path = folder / name
        if not path.is_file() or describe(path) != expected:
            raise UserError(f"{path} is not what was made: remove {folder} and run this again")
    return facts
