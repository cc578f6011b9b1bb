"""Perplexity curves of a training, from fairseq's logs or its TensorBoard files."""

import json
import math
import os
import re
from dataclasses import dataclass, replace
from glob import escape, glob
from typing import Dict, Iterator, List, Optional, Tuple

from fairseq_admin.errors import UserError
from fairseq_admin.outcome import ALARM, NAN, RANK

Points = List[Tuple[int, float]]  # (update, perplexity)

DIVERGED = 2.0  # times the best train perplexity before; noise of a stuck run is below 1.5
PATIENCE = 3  # last points above that: fewer may be noise
RISE = f"train perplexity rose above {DIVERGED:g} times its best"

# Lines of fairseq/logging/progress_bar.py (0.12.3), whatever a logger writes before them
INNER = re.compile(r"epoch \d+: +\d+ / \d+ (.*)")
SUMMARY = re.compile(r"epoch \d+ \| (?:valid on '(.+?)' subset \| )?(.*)")
JSON = re.compile(r'\{"epoch": \d+, .*\}')
CRASHES = {
    NAN: "gradients are nan or inf",
    "Minimum loss scale reached": "loss scale at its minimum",
}
TOLD = re.compile(rf"{ALARM} at update (\d{{1,15}}):")
EVENTS = "events.out.tfevents."  # begins the name of a TensorBoard file
LARGEST = 10**15  # update that a training may come to


@dataclass
class Curves:
    """Train and valid perplexity over updates, finite points only.

    A run diverged where its train perplexity rose above DIVERGED times its best before and stayed
    there to the end: for PATIENCE points, or becoming nan or inf, or until fairseq gave up. It also
    diverged where fairseq gave up for nan or inf gradients or for the loss scale, or where the last
    valid perplexity is nan or inf. A run that never learned, or recovered, did not diverge.

    Attributes:
        diverged: the first update of the rise, else the last one logged; None if it did not.
        reason: why it counts as diverged, in a few words.
        stuck: the update at which `translation_admin` told that the model does not learn.
    """

    train: Points
    valid: Points
    diverged: Optional[int] = None
    reason: Optional[str] = None
    stuck: Optional[int] = None

    def __bool__(self) -> bool:
        """Whether anything is known of the training."""
        return bool(self.train or self.valid or self.reason)

    @property
    def crashed(self) -> bool:
        """Whether fairseq gave up."""
        return self.reason in CRASHES.values()

    @property
    def rose(self) -> bool:
        """Whether it diverged by the rise of its perplexity alone, and went on."""
        return self.reason == RISE


def line_stats(line: str) -> Tuple[str, Dict[str, str]]:
    """What a line logs, train_inner, train or a valid subset, and its statistics by name."""
    found = JSON.search(line)
    if found:
        try:
            stats = json.loads(found.group())
        except (ValueError, RecursionError):
            return "", {}
        ends = (key[: -len("num_updates")] for key in stats if key.endswith("num_updates"))
        prefix = next(ends, "")
        named = {key[len(prefix) :]: str(x) for key, x in stats.items() if key.startswith(prefix)}
        return prefix[:-1] or "train_inner", named
    found = INNER.search(line)
    if found:
        return "train_inner", dict(part.partition("=")[::2] for part in found[1].split(", "))
    found = SUMMARY.search(line)
    if found:
        parts = found[2].split(" | ")
        return found[1] or "train", dict(part.partition(" ")[::2] for part in parts)
    return "", {}


def add(curves: Dict[str, Points], name: str, update: int, ppl: float) -> None:
    """Append a point to the curve *name*. What a resumed run does again takes the place of what was
    there, and so does a new one of all that came after."""
    points = curves.setdefault(name, [])
    for some in curves.values():
        while some and (some[-1][0] > update or (some is points and some[-1][0] == update)):
            some.pop()
    points.append((update, ppl))


def parse(text: str) -> Curves:
    """Curves of the text of a log, empty where it has none."""
    curves: Dict[str, Points] = {}
    crash = stuck = None
    for line in text.splitlines():
        name, stats = line_stats(line)
        told = TOLD.search(line)
        stuck = int(told[1]) if told else stuck
        try:
            update, ppl = float(stats["num_updates"]), float(stats["ppl"])  # 1e+06
            if not abs(update) <= LARGEST:
                raise ValueError(update)
        except (KeyError, ValueError):
            reasons = (reason for told, reason in CRASHES.items() if told in line)
            crash = next(reasons, CRASHES[NAN] if RANK.search(line) else crash)
        else:
            add(curves, name, int(update), ppl)
            crash = None  # a later start went on
            stuck = stuck if stuck and stuck <= update else None
    return replace(assemble(curves, crash), stuck=stuck)


def assemble(curves: Dict[str, Points], crash: Optional[str] = None) -> Curves:
    """Curves of what was logged by name: train_inner else train, valid else the first subset."""
    train = curves.get("train_inner", [])
    begin = train[0][0] if train else math.inf  # before it a start may have logged by epochs alone
    train = [point for point in curves.get("train", []) if point[0] < begin] + train
    subsets = [name for name in curves if name not in ("train_inner", "train")]
    valid = curves["valid" if "valid" in subsets else subsets[0]] if subsets else []
    diverged, reason = divergence(train, valid, crash)
    finite = ([point for point in points if math.isfinite(point[1])] for points in (train, valid))
    return Curves(*finite, diverged, reason)


def divergence(
    train: Points, valid: Points, crash: Optional[str]
) -> Tuple[Optional[int], Optional[str]]:
    """When and why a run diverged, as Curves says; *crash* is why fairseq gave up, if it did."""
    best, high = math.inf, []
    for update, ppl in train:
        if math.isfinite(ppl) and ppl <= DIVERGED * best:
            best, high = min(best, ppl), []
        else:
            high.append((update, ppl))
    infinite = any(not math.isfinite(ppl) for _, ppl in high)
    if high and (crash or infinite or len(high) >= PATIENCE):
        return high[0][0], crash or ("train perplexity is nan or inf" if infinite else RISE)
    if crash:
        return max((points[-1][0] for points in (train, valid) if points), default=0), crash
    if valid and not math.isfinite(valid[-1][1]):
        return valid[-1][0], "valid perplexity is nan or inf"
    return None, None


def read_log(path: str) -> Curves:
    """Curves of a log file, empty where it has none or is not there; UserError if unreadable."""
    if not os.path.exists(path):
        return Curves([], [])
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return parse(f.read())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def event_files(folder: str) -> Iterator[str]:
    """The TensorBoard files beneath *folder*, those of a folder in order of time; through links,
    each folder once."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [n for n in folders if os.path.realpath(os.path.join(parent, n)) not in seen]
        paths = (os.path.join(parent, name) for name in sorted(names) if name.startswith(EVENTS))
        yield from filter(os.path.isfile, paths)


def read_events(folder: str) -> Curves:
    """Curves of the TensorBoard files beneath *folder*, in fairseq's folder a name.

    Raises:
        UserError: where they are of several runs, or damaged, or tensorboard is missing.
    """
    files = list(event_files(folder))
    if not files:
        return Curves([], [])
    runs = sorted({os.path.dirname(os.path.dirname(file)) for file in files})
    if len(runs) > 1:
        raise UserError(f"{folder} holds several runs, give one: {', '.join(runs[:3])}")
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise UserError(
            "TensorBoard files need tensorboard: pip install 'fairseq_admin[analysis]'"
        ) from None
    found: List[tuple] = []
    for file in files:
        events = EventAccumulator(file, size_guidance={"scalars": 0})  # 0: all of them
        try:
            events.Reload()
        except Exception as error:  # whatever a damaged file makes it stumble over
            raise UserError(f"{file} is damaged: {' '.join(str(error).split())[:200]}") from None
        if "ppl" in events.Tags()["scalars"]:
            name = os.path.basename(os.path.dirname(file))
            found += ((event.wall_time, name, event) for event in events.Scalars("ppl"))
    curves: Dict[str, Points] = {}
    for _, name, event in sorted(found, key=lambda point: point[0]):
        add(curves, name, event.step, float(f"{event.value:g}"))  # fp32, as exact as a log
    return assemble(curves)


def read_curves(path: str) -> Curves:
    """Curves of a training.

    Args:
        path: a log of fairseq, in `--log-format` simple, json or tqdm, by fairseq-train or hydra;
            the folder of a run: its train.log, else another *.log with curves, else TensorBoard
            files beneath it; or a `--tensorboard-logdir`, whose files do not say why a run ended.

    Raises:
        UserError: where *path* is missing or holds no curve.
    """
    if os.path.isdir(path):
        logs = sorted(filter(os.path.isfile, glob(os.path.join(escape(path), "*.log"))))
        logs.sort(key=lambda log: os.path.basename(log) != "train.log")
        found = next(filter(bool, map(read_log, logs)), None) or read_events(path)
    elif os.path.exists(path):
        found = read_log(path)
    else:
        raise UserError(f"no such log or folder: {path}")
    if not found:
        raise UserError(
            f"{path} holds no perplexity: give the log of a training (--log-format simple or json),"
            " the folder it is in, or a --tensorboard-logdir"
        )
    return found
