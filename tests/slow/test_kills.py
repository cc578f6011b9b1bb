"""A hundred kills at random moments, each followed by the same command again: the end is bit-equal
to that of a run that nobody killed, and nothing stays of those that were.

Figures go to the file that RELIABILITY names (results/reliability.json).
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from fairseq_admin.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from tests.helpers import checkpoint_of, randomized
from tests.slow.test_hostile import write_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # seconds

ROOT = Path(__file__).resolve().parents[2]
SEED = 1
PLUGIN = ROOT / "fairseq_admin"
RECIPE = "iwslt14_de_en_admin_6l"
SIZES = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --share-all-embeddings "
SIZES += "--encoder-attention-heads 2 --decoder-attention-heads 2 --optimizer adam --lr 1e-3 "
SIZES += (
    "--lr-scheduler fixed --max-tokens 300 --cpu --update-epoch-batch-itr True --log-interval 5"
)
counted: Counter = Counter()


def start(command):
    """The process of *command*, in a session of its own."""
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def killed(command, now) -> bool:
    """Whether *command*, killed as soon as `now(seconds since its start)`, was alive until then;
    one that ended by itself ended well."""
    process, began = start(command), time.monotonic()
    while process.poll() is None:
        if now(time.monotonic() - began):
            process.kill()
            process.communicate()  # to the end of all that hold its output
            return True
        time.sleep(0.0005)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
    return False


def whole(command) -> float:
    """Seconds that *command* takes to end well."""
    began = time.monotonic()
    assert not killed(command, lambda _: False)
    return time.monotonic() - began


def survives(what, command, outcome, clean, kills, moment=None) -> None:
    """Kill *command* *kills* times, each time starting it again; wherever it comes to its end,
    `outcome()` is that of a run that was not killed, and `clean()` makes way for another."""
    rng = random.Random(SEED)
    clean()
    seconds = whole(command)
    expected = outcome()
    clean()
    done = 0
    while done < kills:
        limit = rng.uniform(0, seconds)
        if killed(command, moment or (lambda passed, limit=limit: passed > limit)):
            done += 1
        else:
            assert outcome() == expected
            clean()
    whole(command)
    assert outcome() == expected
    counted[what] += done


def sums(folder: Path, pattern: str):
    """Checksum of each file, by its path in *folder*."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def tensors(value):
    """All numbers of a training's state, bit by bit."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {key: tensors(item) for key, item in value.items()}
    return value if isinstance(value, (int, float, str)) else str(type(value))


def trained(folder: Path):
    """Weights, moments and number of updates of a training, and names of what is in its folder."""
    state = read_checkpoint(str(folder / "checkpoint_last.pt"), optimizer=True)
    updates = state["optimizer_history"][-1]["num_updates"]
    moments = tensors(state["last_optimizer_state"]["state"])
    return tensors(dict(state["model"])), moments, updates, sorted(os.listdir(folder))


def train_command(commands, corpus, folder, *more):
    command = [commands / "fairseq-train", corpus, "--user-dir", PLUGIN, *SIZES.split()]
    command += ["--task", "translation_admin", "--arch", "transformer_admin"]
    return [*command, "--save-dir", folder, "--save-interval-updates", "5", *more]


def test_trainings(commands, corpus, tmp_path):
    folder = tmp_path / "run"
    more = ["--max-update", "40", "--keep-interval-updates", "2", "--no-epoch-checkpoints"]
    command = train_command(commands, corpus, folder, "--encoder-ffn-embed-dim", "32", *more)
    clean = lambda: shutil.rmtree(folder, ignore_errors=True)  # noqa: E731
    survives("training", command, lambda: trained(folder), clean, 30)


def test_trainings_while_fairseq_copies(commands, corpus, tmp_path):
    """The last checkpoint is a copy of another file: killed while it is shorter than that."""
    folder = tmp_path / "run"
    last = folder / "checkpoint_last.pt"
    more = ["--max-update", "20", "--keep-interval-updates", "2", "--no-epoch-checkpoints"]
    command = train_command(commands, corpus, folder, "--encoder-ffn-embed-dim", "16384", *more)
    torn, seen = [], set()

    def copying(_) -> bool:
        """Each file once, so that the training comes on."""
        try:
            size = last.stat().st_size
            source = max(folder.glob("checkpoint_*_*.pt"), key=os.path.getmtime)
        except (OSError, ValueError):
            return False
        if not size < source.stat().st_size or source.name in seen:
            return False
        seen.add(source.name)
        torn.append(source.name)
        return True

    def clean() -> None:
        seen.clear()
        shutil.rmtree(folder, ignore_errors=True)

    survives("training, while fairseq copies", command, lambda: trained(folder), clean, 10, copying)
    assert len(torn) >= 10


def test_preparations(commands, tmp_path):
    out = tmp_path / "out"
    command = [commands / "python", "-W", "ignore", ROOT / "scripts", "corpora.prepare"]
    command += ["iwslt14_de_en", "--sample", "--output", out, "--processes", "1"]

    def outcome():
        assert not list(out.rglob("*partial*"))
        return {**sums(out, "raw/*.??"), **sums(out, "bin/*.[bit]*")}

    survives("preparation", command, outcome, lambda: shutil.rmtree(out, ignore_errors=True), 18)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Two of some megabytes, and a folder of dictionaries."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for seed in (1, 2):
        model, cfg = randomized(seed, types=20_000, encoder_embed_dim=64, share_all_embeddings=True)
        write_checkpoint(checkpoint_of(model, cfg), str(folder / f"{seed}.pt"))
    for lang in ("de", "en"):
        words = "".join(f"w{i} 1\n" for i in range(20_000))
        (folder / f"dict.{lang}.txt").write_text(words)
    return folder


@pytest.mark.parametrize("what", ["average", "fold", "export"])
def test_commands(commands, checkpoint, tmp_path, what):
    out = tmp_path / "out"
    arguments = {
        "average": [checkpoint / "1.pt", checkpoint / "2.pt", "--output", out],
        "fold": [checkpoint / "1.pt", out],
        "export": [checkpoint / "1.pt", "--data", checkpoint, "--output", out, "--force"],
    }

    def outcome():
        assert os.listdir(tmp_path) == ["out"], "leftovers of the killed"
        return sums(tmp_path, "out/*") or tensors(dict(read_checkpoint(str(out))["model"]))

    def clean() -> None:
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)

    survives(what, [commands / "fairseq-admin", what, *arguments[what]], outcome, clean, 12)


def test_a_recipe(commands, tmp_path):
    folder = tmp_path / f"{RECIPE}_seed1"
    command = [commands / "python", "-W", "ignore", ROOT / "scripts", "recipes.run", RECIPE]
    command += ["--smoke", "--seed", "1", "--output", tmp_path]

    def outcome():
        record = json.loads((folder / "eval" / "record.json").read_text())
        models = [
            read_checkpoint(str(folder / "eval" / f"{n}.pt"))["model"] for n in ("mean", "folded")
        ]
        same = {key: record[key] for key in ("scores", "updates", "profile", "data_sha256")}
        return same, [tensors(dict(model)) for model in models]

    def clean() -> None:
        for path in tmp_path.iterdir():
            shutil.rmtree(path)

    survives("recipe", command, outcome, clean, 6)


def test_the_figures():
    """Of the tests above, which ran in this process."""
    rows = [{"what": what, "kills": kills} for what, kills in counted.items()]
    print(json.dumps(rows, indent=1))
    assert len(counted) == 7 and sum(counted.values()) >= 100
    write_figures("kills", rows)
