"""Perplexity curves of a training, from fairseq's logs or its TensorBoard files."""

import json
import os
import re
from dataclasses import replace
from glob import escape, glob
from typing import Dict, Iterator, List, Tuple

from fairseq_admin.analysis.course import CRASHES, Curves, Points, add, assemble
from fairseq_admin.errors import UserError
from fairseq_admin.outcome import ALARM, NAN, RANK
from fairseq_admin.text import read_bytes

# Lines of fairseq/logging/progress_bar.py (0.12.3), whatever a logger writes before them
INNER = re.compile(r"epoch \d+: +\d+ / \d+ (.*)")
SUMMARY = re.compile(r"epoch \d+ \| (?:valid on '(.+?)' subset \| )?(.*)")
JSON = re.compile(r'\{"epoch": \d+, .*\}')
TOLD = re.compile(rf"{ALARM} at update (\d{{1,15}}):")
TWO_PASSES = "rdrop_kl_loss"  # logged by the criterion that adds up the loss of two
EVENTS = "events.out.tfevents."  # begins the name of a TensorBoard file
LARGEST = 10**15  # update that a training may come to


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


def parse(text: str) -> Curves:
    """Curves of the text of a log, empty where it has none."""
    curves: Dict[str, Points] = {}
    crash = stuck = None
    twice = False
    for line in text.splitlines(keepends=True):
        name, stats = line_stats(line.rstrip())
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
            if line == line.rstrip() and update < (curves.get(name) or [(0, 0)])[-1][0]:
                continue  # the last, of which the number was cut
            add(curves, name, int(update), ppl)
            twice = twice or TWO_PASSES in stats
            crash = None  # a later start went on
            stuck = stuck if stuck and stuck <= update else None
    return replace(assemble(curves, crash, twice), stuck=stuck)


def read_log(path: str) -> Curves:
    """Curves of a log file, empty where it has none or is not there; UserError if unreadable."""
    if not os.path.exists(path):
        return Curves([], [])
    return parse(log_text(path))


def log_text(path: str) -> str:
    """What a log file holds; UserError if unreadable."""
    return read_bytes(path).decode(errors="replace")


def read_logs(folder: str) -> Curves:
    """Curves of the logs in *folder*, as `read_curves` has it."""
    paths = list(filter(os.path.isfile, glob(os.path.join(escape(folder), "*.log"))))
    paths.sort(key=lambda path: (os.path.basename(path) != "train.log", path))
    first = next(filter(read_log, paths), None)
    text = log_text(first) if first else ""
    for path in sorted(paths, key=os.path.getmtime):
        if text and os.path.getmtime(path) >= os.path.getmtime(first):
            last, train = parse(text).train, read_log(path).train
            if last and train and train[0][0] > last[-1][0]:
                text = f"{text}\n{log_text(path)}"
    return parse(text)


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
    """Curves of the TensorBoard files beneath *folder*, where fairseq makes a folder for each
    curve. Raises UserError where they are of several runs, or damaged, or tensorboard is
    missing."""
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
    twice = False
    for file in files:
        events = EventAccumulator(file, size_guidance={"scalars": 0})  # 0: all of them
        try:
            check_records(file)
            events.Reload()
        except Exception as error:  # whatever a damaged file makes it stumble over
            raise UserError(f"{file} is damaged: {' '.join(str(error).split())[:200]}") from None
        twice = twice or TWO_PASSES in events.Tags()["scalars"]
        if "ppl" in events.Tags()["scalars"]:
            name = os.path.basename(os.path.dirname(file))
            found += ((event.wall_time, name, event) for event in events.Scalars("ppl"))
    curves: Dict[str, Points] = {}
    for _, name, event in sorted(found, key=lambda point: point[0]):
        add(curves, name, event.step, float(f"{event.value:g}"))  # fp32, as exact as a log
    return assemble(curves, twice=twice)


def check_records(file: str) -> None:
    """Raise tensorboard's error where a record of the *file* is damaged, which it takes for the
    end. The last one may be written still."""
    from tensorboard.compat.tensorflow_stub import errors
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    reader = PyRecordReader_New(file)
    try:
        while True:
            reader.GetNext()
    except errors.OutOfRangeError:
        pass
    except errors.DataLossError as error:
        if "truncated" not in str(error):
            raise


def read_curves(path: str) -> Curves:
    """Curves of a training.

    Args:
        path: a log of fairseq, in `--log-format` simple, json or tqdm, by fairseq-train or hydra;
            the folder of a run: its train.log, else another *.log with curves, and after it those
            of later starts that went on from there; else TensorBoard files beneath it; or a
            `--tensorboard-logdir`, whose files do not say why a run ended.

    Raises:
        UserError: where *path* is missing or holds no curve.
    """
    if os.path.isdir(path):
        found = read_logs(path) or read_events(path)
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
