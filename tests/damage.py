"""Damaged and hostile files, made from whole ones by a seed."""

import copy
import json
import os
import random
import subprocess
import zipfile
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch

MOMENTS = 12  # three numbers
UNREAD = "the damage is where nothing is read: the weights are those of the whole file"
OTHER = "it is another file of its kind, which nothing contradicts"
WRONG = [None, True, -1, 0, 10**30, 2.5, float("nan"), float("inf"), "x", "9" * 5000, [], {}, [[]]]
DEEP = "[" * 100_000 + "]" * 100_000


@dataclass
class Case:
    """A file to read; `make` puts it at a path. `reason`: why it may be accepted, None if not;
    by those commands whose names begin with a word of `refused_by` it may not."""

    kind: str
    name: str
    make: Callable[[Path], Any]
    reason: Optional[str] = None
    refused_by: Tuple[str, ...] = ()


class Attack:
    """Runs a command of the machine when it is unpickled."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Tuple[Callable, Tuple[Any, ...]]:
        return self.call


def written(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


def saved(state: Any, **options: Any) -> Callable[[Path], Any]:
    return lambda path: torch.save(state, path, **options)


def bytes_damaged(data: bytes, rng: random.Random, count: int) -> Iterator[Tuple[str, bytes]]:
    """*count* of each way in which storage and transfers damage a file."""
    size = len(data)
    for _ in range(count):
        at, length = rng.randrange(size), rng.randrange(1, max(2, size // 4))
        yield "cut", data[:at]
        yield "bit", data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        yield "zeros", (data[:at] + bytes(length) + data[at + length :])[:size]
        yield "hole", data[:at] + data[at + length :]
        yield "twice", data[: at + length] + data[at:]
        yield "noise", data[:at] + rng.randbytes(length) + data[at + length :]
        yield "appended", data + rng.randbytes(length)
        yield "begins otherwise", rng.randbytes(min(at, 64)) + data[min(at, 64) :]
    yield "empty", b""
    yield "random", rng.randbytes(size)


def special_files() -> Iterator[Tuple[str, Callable[[Path], Any]]]:
    """What is no file to read."""
    yield "folder", lambda path: path.mkdir()
    yield "link to itself", lambda path: path.symlink_to(path)
    yield "link to nothing", lambda path: path.symlink_to(path.with_name("nothing"))


# Checkpoints


def flipped_weights(data: bytes, path: Path, rng: random.Random, count: int) -> Iterator[bytes]:
    """*data*, the checkpoint *path*, with a bit flipped in the record of a weight: those of the
    optimizer, of MOMENTS bytes, are not read."""
    with zipfile.ZipFile(path) as archive:
        records = [i for i in archive.infolist() if "/data/" in i.filename]
    records = [i for i in records if i.file_size not in (0, MOMENTS)]
    for info in rng.choices(records, k=count):
        lengths = data[info.header_offset + 26 : info.header_offset + 30]
        start = (
            info.header_offset
            + 30
            + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        )
        at = start + rng.randrange(info.file_size)
        yield data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def resized(path: Path, out: Path, record: str, change: int) -> None:
    """The checkpoint *path* in *out*, with a *record* longer or shorter by *change* bytes."""
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(out, "w") as bad:
        for info in good.infolist():
            content = good.read(info)
            if info.filename == record:
                content = content[:change] if change < 0 else content + bytes(change)
            bad.writestr(info.filename, content)


def compressed(path: Path, out: Path) -> None:
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bad:
        for info in good.infolist():
            bad.writestr(info.filename, good.read(info))


WEIGHTS: Dict[str, Callable[[torch.Tensor], Any]] = {
    "int32": lambda w: w.int(),
    "int8": lambda w: w.to(torch.int8),
    "bool": lambda w: w.bool(),
    "complex": lambda w: w.cfloat(),
    "sparse": lambda w: w.to_sparse(),
    "quantized": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "meta": lambda w: w.to("meta"),
    "fp8": lambda w: w.to(torch.float8_e5m2),
    "expanded": lambda w: w.flatten()[:1].expand(w.numel()).view(w.shape),
    "text": lambda w: "text",
    "nothing": lambda w: None,
    "NaN": lambda w: w * float("nan"),
    "infinite": lambda w: w + float("inf"),
    "another shape": lambda w: w.flatten(),
    "empty": lambda w: w[:0],
}
UNWRITTEN = tuple(WEIGHTS)[:-4]  # kinds that no training writes; the others may be read


def checkpoints(path: Path, mark: Path, rng: random.Random) -> Iterator[Case]:
    """From the whole Admin checkpoint *path*; an attack makes the file *mark*."""
    data, state = path.read_bytes(), torch.load(path)
    case = lambda *given: Case("checkpoint", *given)  # noqa: E731
    for name, damaged in bytes_damaged(data, rng, 12):
        unread = None if name in ("cut", "empty", "random", "hole") else UNREAD
        yield case(name, written(damaged), unread)
    for damaged in flipped_weights(data, path, rng, 60):
        yield case("bit of a weight", written(damaged))
    with zipfile.ZipFile(path) as archive:
        records = [i.filename for i in archive.infolist() if "/data/" in i.filename and i.file_size]
    for record in rng.sample(records, 15):
        for change in (-1, -4, 4, 4096):
            yield case(
                "record of another size", lambda out, r=record, c=change: resized(path, out, r, c)
            )
    yield case("compressed", lambda out: compressed(path, out))
    for name, make in [*special_files(), ("pipe", os.mkfifo)]:  # a report leaves them out
        yield case(name, make, OTHER, ("average", "fold", "export", "analyze"))
    keys = [key for key in state["model"] if state["model"][key].dim() > 1]
    for name, change in WEIGHTS.items():
        for key in rng.sample(keys, 2):
            changed = {**state["model"], key: change(state["model"][key])}
            given = (None,) if name in UNWRITTEN else (OTHER, ("fold", "export", "analyze"))
            yield case(f"weight: {name}", saved({**state, "model": changed}), *given)
    for key in rng.sample(sorted(state["model"]), 8):
        rest = {name: weight for name, weight in state["model"].items() if name != key}
        yield case("weight missing", saved({**state, "model": rest}), OTHER, ("average with",))
    for name in ("layers", "embed_dim", "ffn_embed_dim"):
        for stack in ("encoder", "decoder"):
            for said in (10**7, 1, -1, 2.5):
                yield case(f"size: {name}", saved(with_option(state, f"{stack}_{name}", said)))
    for option in rng.sample(sorted(state["cfg"]["model"]), 25):
        for said in rng.sample(WRONG, 2):
            yield case("option", saved(with_option(state, option, said)), OTHER)
    for entry in state:
        for said in rng.sample(WRONG, 3):
            unread = None if entry in ("model", "cfg") else OTHER
            yield case(f"entry: {entry}", saved({**state, entry: said}), unread)
    for content in (*WRONG, [state], torch.ones(3), "x" * 10**6):
        yield case("no checkpoint", saved(content))
    yield from attacks(state, mark)


def with_option(state: Dict[str, Any], option: str, said: Any) -> Dict[str, Any]:
    changed = copy.deepcopy(state["cfg"])
    changed["model"][option] = said
    return {**state, "cfg": changed}


def attacks(state: Dict[str, Any], mark: Path) -> Iterator[Case]:
    """Code at each place of a checkpoint, in both of torch's formats."""
    touch, python = f"touch {mark}", f"open({str(mark)!r}, 'w')"
    calls = [(os.system, touch), (subprocess.getoutput, touch), (eval, python), (exec, python)]
    calls += [
        (os.mkdir, str(mark)),
        (open, str(mark), "w"),
        (subprocess.Popen, ["touch", str(mark)]),
    ]
    for call in calls:
        attack = Attack(*call)
        places = {
            "an entry": {**state, "more": attack},
            "the optimizer": {**state, "last_optimizer_state": {"state": {0: attack}}},
            "the options": {**state, "args": Namespace(arch=attack)},
            "a weight": {**state, "model": {**state["model"], "more": attack}},
            "all": attack,
        }
        for place, content in places.items():
            for zipped in (True, False):
                yield Case(
                    "checkpoint",
                    f"code in {place}",
                    saved(content, _use_new_zipfile_serialization=zipped),
                )


# JSON, and text of lines


def leaves(value: Any, where: Tuple = ()) -> Iterator[Tuple]:
    """The place of each value in JSON, containers too."""
    if where:
        yield where
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, item in items:
        yield from leaves(item, (*where, name))


def replaced(value: Any, where: Tuple, by: Any) -> Any:
    changed = copy.deepcopy(value)
    place = changed
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = by
    return changed


def json_files(
    kind: str, data: bytes, rng: random.Random, count: int, *must: str
) -> Iterator[Case]:
    """Of another shape, with other values, and damaged; most may still be whole. The commands
    *must* refuse what is no JSON of theirs."""
    value = json.loads(data)
    places = list(leaves(value))
    for _ in range(count):
        where, by = rng.choice(places), rng.choice(WRONG)
        yield Case(kind, "value", written(json.dumps(replaced(value, where, by)).encode()), OTHER)
    for name, damaged in bytes_damaged(data, rng, count // 16):
        no_json = must if name in ("empty", "random") else ()
        yield Case(kind, name, written(damaged), OTHER, no_json)
    for content in (
        DEEP.encode(),
        b'{"a":' * 10**5,
        b"[]",
        b"null",
        b"9" * 6000,
        data.decode().encode("utf-16"),
    ):
        yield Case(kind, "no such JSON", written(content), OTHER, must)
    for name, make in special_files():
        yield Case(kind, name, make, OTHER)


def encodings(kind: str, data: bytes, must: Tuple[str, ...]) -> Iterator[Case]:
    """Text in encodings that are not read, which the commands *must* tell."""
    text = data.decode()
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        yield Case(kind, encoding, written(text.encode(encoding)), OTHER, must)
    yield Case(kind, "CR line ends", written(data.replace(b"\n", b"\r")), OTHER, must)
    half = len(data) // 2
    yield Case(kind, "NUL", written(data[:half] + b"\0" + data[half:]), OTHER, must)


def text_files(
    kind: str, data: bytes, rng: random.Random, count: int, must: Tuple[str, ...] = ()
) -> Iterator[Case]:
    """Lines gone, twice, moved, long, not UTF-8; the commands *must* refuse other numbers of lines
    and what is no file."""
    lines = data.splitlines(keepends=True)
    for _ in range(count):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        gone, twice, moved = (list(lines) for _ in range(3))
        del gone[at]
        twice.insert(other, lines[at])
        moved[at], moved[other] = moved[other], moved[at]
        yield Case(kind, "line gone", written(b"".join(gone)), OTHER, must)
        yield Case(kind, "line twice", written(b"".join(twice)), OTHER, must)
        yield Case(kind, "lines moved", written(b"".join(moved)), OTHER)
        huge = [*lines[:at], rng.choice(HOSTILE_LINES), *lines[at + 1 :]]
        yield Case(kind, "a line of numbers or depth", written(b"".join(huge)), OTHER)
    for name, damaged in bytes_damaged(data, rng, count // 4):
        yield Case(kind, name, written(damaged), OTHER, must if name == "empty" else ())
    for name, make in special_files():
        yield Case(kind, name, make, OTHER, must)


HOSTILE_LINES: List[bytes] = [
    b"D-" + b"9" * 5000 + b"\t-0.1\tx\n",
    b"H-0\t" + b"9" * 5000 + b"\tx\n",
    b"D-0\tnan\tx\n",
    b"D-0\n",
    b"D-0\t\t\n",
    b"P-0\t-0.1\n",
    b"D--1\t-0.1\tx\n",
    "D-٣\t-0.1\tx\n".encode(),
    b"S-999999999999\tx\n",
    b"x" * 10**6 + b"\n",
    b"\xff\xfe\xfd\n",
    b"\x1b[31mx\x0c\x0b\x1c\n",
    b'{"num_updates": ' + b"[" * 10**5 + b"\n",
    b'[train_inner][INFO] - {"ppl": "' + b"9" * 5000 + b'", "num_updates": "1"}\n',
    b'[train_inner][INFO] - {"ppl": "nan", "num_updates": "' + b"9" * 5000 + b'"}\n',
    b"train_inner | epoch 001: 5 / 9 loss=2, ppl=1e999, num_updates=" + b"9" * 5000 + b", lr=1\n",
    b'{"a":' * 10**5 + b"\n",
    b"1 -1\n",
    b"1 nan\n",
    b"1 1e-46\n",
    b"1 1e46\n",
    b"1 " + b"9" * 5000 + b"\n",
    b"\xef\xbb\xbf\n",
    b"\n",
]
