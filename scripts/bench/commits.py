"""Whole commands as an earlier commit installs them and as this checkout does, in turn, for
scripts/bench.py."""

import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

from bench.training import paired, timed
from recipes.code import ROOT

INSTALL = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]


def call(command: Sequence[Any], why: str, **given: Any) -> None:
    """Run *command*; SystemExit with what it printed, and *why*, where it fails."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ended = subprocess.run(list(map(str, command)), **output, **given)
    if ended.returncode:
        raise SystemExit(f"{ended.stdout}bench: {why}, see above")


def run(command: str, site: Path, more: Dict[str, str]) -> None:
    """Run *command* in an empty folder, with the package that lies in *site*, and *more* variables
    of the environment."""
    path = os.pathsep.join(
        [str(site / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(site), **more}
    with tempfile.TemporaryDirectory() as folder:
        call(["bash", "-c", command], f"{command} failed, {site.name}", cwd=folder, env=env)


def bench_commits(options: Namespace) -> Iterator[Dict[str, Any]]:
    """Run each of `options.commands`, "NAME: COMMAND", by `options.before` and by this checkout in
    turn, `options.pairs` times, and before that `options.warmup` times. In the environment CHECKOUT
    is the folder of its scripts/, and AFTER is 1 for the latter, for an option that it has to be
    given: `adam${AFTER:+_fused}`. The plugin is
    `--user-dir $PYTHONPATH/fairseq_admin`: fairseq looks for a bare name beside itself.

    Rows of seconds (medians) and of the ratio before / after (median and quartiles, pair by pair).
    """
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        call(["git", "clone", "-q", "-n", ROOT, old], "no clone")
        call(["git", "-C", old, "checkout", "-q", options.before], f"no commit {options.before}")
        sites = {old: Path(folder, "before"), ROOT: Path(folder, "after")}
        for checkout, site in sites.items():
            call([*INSTALL, "--target", site, checkout], f"{checkout} cannot be installed")
        for told in options.commands:
            name, _, command = told.partition(": ")
            seconds: Dict[Path, List[float]] = {checkout: [] for checkout in sites}
            for pair in range(options.warmup + options.pairs):
                for checkout in list(seconds)[:: -1 if pair % 2 else 1]:
                    more = {"CHECKOUT": str(checkout), "AFTER": "1" * (checkout is ROOT)}
                    seconds[checkout].append(timed(partial(run, command, sites[checkout], more)))
            before, after = (took[options.warmup :] for took in seconds.values())
            yield {
                "name": name,
                "command": command,
                "before_s": round(statistics.median(before), 2),
                "after_s": round(statistics.median(after), 2),
                **paired([x / y for x, y in zip(before, after)]),
            }
