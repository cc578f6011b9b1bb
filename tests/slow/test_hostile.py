"""A thousand damaged files, read by every command that reads their kind: none runs code, hangs,
ends in a traceback or leaves something behind, and what must be refused is, in one line.

Figures go to the file that RELIABILITY names (results/reliability.json), by kind.
"""

import json
import os
import random
import shutil
import signal
from collections import Counter, defaultdict
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import gettempdir
from types import SimpleNamespace

import pytest
import torch
from damage import UNREAD, checkpoints, encodings, json_files, text_files
from filelock import FileLock

from corpora import prepare
from fairseq_admin.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import read_profile
from fairseq_admin.profiling import named_junctions, profile_model
from fairseq_admin.serving.translate import LineTranslator, read_lines
from fairseq_admin_cli import main as cli
from tests.helpers import PAD, TYPES, build, checkpoint_of, net_input, randomized

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # seconds

SEED = 1
LOCK = Path(gettempdir(), "reliability.lock")
SECONDS = 30  # after which a command hangs
RECORD = Path(__file__).resolve().parents[2] / "results" / "demo" / "demo_admin.json"
ENDS = ("refused in one line", "accepted with reason", "accepted without", "traceback", "hang")
ENDS += ("code run", "left behind")
LANGUAGES = ("de", "en")


class Hang(BaseException):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole file of each kind, and what belongs to them."""
    folder = tmp_path_factory.mktemp("whole")
    rng = random.Random(SEED)
    made = SimpleNamespace(folder=folder, data=folder / "data", run=folder / "run")
    made.data.mkdir()
    for lang in LANGUAGES:
        words = "".join(f"w{i} 1\n" for i in range(TYPES))
        (made.data / f"dict.{lang}.txt").write_text(words)
    model, cfg = randomized(share_all_embeddings=True)
    fresh = build()
    profile = profile_model(fresh, [net_input()], PAD, 1)
    state = checkpoint_of(model, cfg, task_state={"profile": profile.to_dict()})
    moments = {i: {"exp_avg": torch.ones(3), "step": 1} for i in range(3)}
    state["last_optimizer_state"] = {"state": moments, "param_groups": [{"params": [0, 1, 2]}]}
    made.checkpoint = folder / "checkpoint.pt"
    write_checkpoint(state, str(made.checkpoint))
    made.weights = read_checkpoint(str(made.checkpoint))["model"]
    made.names = {stack: list(found) for stack, found in named_junctions(fresh).items()}
    profile.save(str(folder / "omegas.json"))
    lines = [f"{i} {x}\n" for stack in profile.stacks.values() for i, x in enumerate(omegas(stack))]
    (folder / "clinic").write_text("".join(lines))
    (folder / "deepnmt").write_text("".join(f"{x}\n" for x in profile.omegas))
    sentences = [" ".join(f"w{rng.randrange(TYPES)}" for _ in range(9)) for _ in range(30)]
    blocks = [
        f"S-{i}\t{x}\nT-{i}\t{x}\nH-{i}\t-0.1\t{x}\nD-{i}\t-0.1\t{x}\nP-{i}\t-0.1\n"
        for i, x in enumerate(sentences)
    ]
    (folder / "generate.txt").write_text("".join(blocks))
    (folder / "text").write_text("".join(f"{x}\n" for x in sentences))
    log = "train_inner | epoch 001: {0} / 99 loss=2, ppl=9.{0}, num_updates={0}, lr=1\n"
    json_log = '[t][train_inner][INFO] - {{"epoch": 1, "ppl": "9.{0}", "num_updates": "{0}"}}\n'
    (folder / "train.log").write_text("".join(log.format(i) for i in range(20)))
    (folder / "json.log").write_text("".join(json_log.format(i) for i in range(20)))
    shutil.copyfile(RECORD, folder / "record.json")
    (made.run / "eval").mkdir(parents=True)
    for name in ("train.log", "record.json", "generate.txt"):
        place = made.run if name.endswith("log") else made.run / "eval"
        shutil.copyfile(folder / name, place / name)
    made.prepared = folder / "prepared"
    made.sides = [folder / f"text.{lang}" for lang in LANGUAGES]
    for side in made.sides:
        shutil.copyfile(folder / "text", side)
    prepare_text(*made.sides, made.prepared)
    quiet(["fold", made.checkpoint, folder / "plain.pt"])
    quiet(["export", folder / "plain.pt", "--data", made.data, "--output", folder / "served"])
    return made


def omegas(stack):
    return [sublayer.omega for sublayer in stack.sublayers]


def quiet(arguments):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        cli.main([str(word) for word in arguments])


def prepare_text(source, target, output) -> None:
    """scripts/prepare.sh of two files, which are their own validation too."""
    files = [str(source), str(target)]
    words = ["--train", *files, "--valid", *files, "--subwords", "40", "--processes", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["prepare.sh", *words, "--output", str(output)])
        prepare.main()


def placed(tree: Path, work: Path, place: str, file: Path) -> Path:
    """A copy of *tree* in which the damaged *file* stands at *place*."""
    copy = Path(shutil.copytree(tree, work.parent / "tree"))
    (copy / place).unlink(missing_ok=True)
    (copy / place).symlink_to(file)
    return copy


def readers(whole):
    """By kind of file, the commands that read it: of the file and an empty folder for output."""
    text, data = whole.folder / "text", whole.data

    def of_checkpoint(path, work):
        out = work / "out"
        return {
            "average": ["average", path, "--output", out],
            "average with a whole one": ["average", whole.checkpoint, path, "--output", out],
            "fold": ["fold", path, out],
            "export": ["export", path, "--data", data, "--output", out],
            "analyze": ["analyze", "omega", path, "--output", out],
            "report": lambda: report("checkpoint_last.pt", path, out),
        }

    def report(place, path, out):
        quiet(["report", placed(whole.run, out.parent, place, path), "--output", out])

    def of_run(place):
        return lambda path, work: {"report": lambda: report(place, path, work / "out")}

    def served(path):
        folder = placed(whole.folder / "served", path, "fairseq_admin.json", path)
        list(LineTranslator(str(folder)).translate(["w1 w2", "w3"]))

    def prepared(path, work):
        given = work.parent / "in.de"
        given.symlink_to(path)
        prepare_text(given, whole.sides[1], work / "out")

    def exported(path, work):
        folder = placed(whole.prepared, work, "manifest.json", path) / "bin"
        for lang in LANGUAGES:
            shutil.copyfile(data / f"dict.{lang}.txt", folder / f"dict.{lang}.txt")
        words = ["export", whole.folder / "plain.pt", "--data", folder, "--moses"]
        quiet([*words, "--source-lang", "de", "--target-lang", "en", "--output", work / "out"])

    def streamed(path):
        if path.is_file():
            with open(path, "rb") as file:
                list(read_lines(file.fileno()))

    return {
        "checkpoint": of_checkpoint,
        "omega file": lambda path, _: {"read": lambda: read_profile(str(path), whole.names)},
        "translations": lambda path, work: {
            "score": ["score", path, "--target-lang", "en", "--output", work / "out"],
            "score with reference": ["score", path, "--target-lang", "en", "--reference", text],
            "analyze": [
                "analyze",
                "errors",
                f"a={path}",
                "--target-lang",
                "en",
                "--output",
                work / "out",
            ],
            "report": lambda: report("eval/generate.txt", path, work / "out"),
        },
        "text": lambda path, work: {
            "score": ["score", path, "--target-lang", "en", "--reference", text],
            "reference": ["score", text, "--target-lang", "en", "--reference", path],
            "translate": lambda: streamed(path),
        },
        "own text": lambda path, work: {"prepare": lambda: prepared(path, work)},
        "manifest": lambda path, work: {"export": lambda: exported(path, work)},
        "made.json": lambda path, work: {
            "prepare": lambda: prepare_text(
                *whole.sides, placed(whole.prepared, work, "bin/made.json", path)
            )
        },
        "log": lambda path, work: {
            "analyze": ["analyze", "curves", path, "--output", work / "out"],
            "report": lambda: report("train.log", path, work / "out"),
        },
        "record": of_run("eval/record.json"),
        "settings": lambda path, work: {"translate": lambda: served(path)},
    }


def cases(whole, mark):
    """All damaged files."""
    rng, folder = random.Random(SEED), whole.folder
    read = lambda name: (folder / name).read_bytes()  # noqa: E731
    yield from checkpoints(whole.checkpoint, mark, rng)
    yield from json_files("omega file", read("omegas.json"), rng, 80, "read")
    for name in ("clinic", "deepnmt"):
        yield from text_files("omega file", read(name), rng, 12, ("read",))
    translations = read("generate.txt")
    yield from text_files("translations", translations, rng, 40)
    yield from encodings("translations", translations, ("score", "analyze", "report"))
    yield from text_files("text", read("text"), rng, 20, ("score", "reference"))
    yield from encodings("text", read("text"), ("score", "reference"))
    yield from encodings("own text", read("text"), ("prepare",))
    for name in ("train.log", "json.log"):
        yield from text_files("log", read(name), rng, 16)
    yield from json_files("manifest", read("prepared/manifest.json"), rng, 48)
    yield from json_files("made.json", read("prepared/bin/made.json"), rng, 48, "prepare")
    yield from json_files("record", read("record.json"), rng, 120, "report")
    yield from json_files("settings", read("served/fairseq_admin.json"), rng, 60, "translate")


@contextmanager
def stopped_after(seconds):
    def hang(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ended(command) -> str:
    """How *command* ended, and what it said."""
    try:
        with stopped_after(SECONDS):
            command() if callable(command) else quiet(command)
    except Hang:
        return "hang"
    except BaseException as error:
        begin, _, told = str(error).partition(": ")
        if begin != "fairseq_admin":  # a usage error of argparse is none of these files
            return f"traceback: {type(error).__name__}: {error}"[:300]
        return "traceback: several lines" if "\n" in told else f"refused: {told}"
    return "accepted"


def test_no_file_does_harm(whole, tmp_path, monkeypatch):
    mark, spare = tmp_path / "mark", tmp_path / "spare"
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    found, faults, done = defaultdict(Counter), [], Counter()
    commands = readers(whole)
    for number, case in enumerate(cases(whole, mark)):
        done[case.kind] += 1
        if number % 100 == 0:
            print(f"{number}: {len(faults)} faults", flush=True)
        area = tmp_path / "area"
        for name in commands[case.kind](area / "file", area / "work"):
            work = area / "work"
            work.mkdir(parents=True)
            spare.mkdir()
            case.make(area / "file")
            end = ended(commands[case.kind](area / "file", work)[name])
            verdict = judged(case, name, end, work, spare, mark, whole)
            found[case.kind][verdict] += 1
            if verdict not in ENDS[:2]:
                faults.append(f"{number} {case.kind}, {case.name}, {name}: {verdict}: {end}")
            mark.unlink(missing_ok=True)
            shutil.rmtree(area)
            shutil.rmtree(spare)
    rows = [{"kind": k, "files": done[k], **{e: found[k][e] for e in ENDS}} for k in found]
    print(json.dumps(rows, indent=1))
    assert sum(done.values()) >= 1000
    assert not faults, "\n".join([f"{len(faults)} faults", *faults])
    write_figures("files", rows)


def judged(case, name, end, work, spare, mark, whole) -> str:
    """One of ENDS."""
    if mark.exists():
        return "code run"
    if not end.startswith(("refused", "accepted")):
        return end.partition(":")[0]
    left = [path.name for path in work.rglob("*")]
    whole_steps = name == "prepare"  # a preparation goes on from those that it finished
    harmless = not left or end == "accepted" or whole_steps
    if os.listdir(spare) or not harmless or any("partial" in file for file in left):
        return "left behind"
    if end != "accepted":
        return ENDS[0]
    if case.reason == UNREAD and (work / "out").is_file():
        with suppress(UserError):  # a picture, or a page
            weights = read_checkpoint(str(work / "out"))["model"]
            same = weights.keys() != whole.weights.keys() or all(
                torch.equal(weights[key], whole.weights[key]) for key in weights
            )
            return ENDS[1] if same else ENDS[2]
    must = case.reason is None or name.startswith(case.refused_by)
    return ENDS[2] if must else ENDS[1]


def write_figures(name, value) -> None:
    """Put *value* into the file that RELIABILITY names, by one process at a time."""
    path = os.environ.get("RELIABILITY")
    if not path:
        return
    with FileLock(LOCK):
        known = json.loads(Path(path).read_text()) if os.path.exists(path) else {}
        Path(path).write_text(json.dumps({**known, name: value}, indent=1) + "\n")
