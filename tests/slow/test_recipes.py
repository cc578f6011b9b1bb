"""Every recipe by its smoke test, from the sample to the folded model; back-translation killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairseq_admin.checkpoints.fold import unfoldable
from fairseq_admin.serving.served import prepared
from recipes.recipes import SMOKE_DEPTH, load_recipes
from recipes.training import Training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # seconds

ROOT = Path(__file__).resolve().parents[2]

RECIPES = load_recipes()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
BACK_TRANSLATED = "wmt14_en_fr_bt_admin_36l_12l"
SHARD_LINES = 40  # as recipes.recipes has it for a smoke test


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all: recipes of one corpus share its sample."""
    return tmp_path_factory.mktemp("recipes")


def smoke(name: str, out: Path):
    """Folder of the finished run of a recipe."""
    command = ["bash", ROOT / "scripts" / "run.sh", name, "--smoke", "--seed", "1"]
    done = subprocess.run(
        [*command, "--output", out], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out / f"{name}_seed1"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_to_a_record(name, out):
    folder = smoke(name, out)
    record = json.loads((folder / "eval" / "record.json").read_text())
    training = Training(name, out, out)
    layers = [
        max(2, training.config.model[stack] // SMOKE_DEPTH)
        for stack in ("encoder_layers", "decoder_layers")
    ]
    assert record["layers"] == "-".join(map(str, layers))
    assert record["method"] == training.method
    assert record["sentences"] > 0 and record["updates"] > 0 and len(record["averaged"]) == 2
    folds = not unfoldable(training.config.model.residual)
    assert (folder / "eval" / "folded.pt").exists() == folds
    if folds:
        assert record["fold"]["same_translations"] == record["sentences"]
    else:
        assert record["fold"] is None
    log = (folder / "train.log").read_text()
    losses = [float(x) for x in re.findall(r"valid on .*? nll_loss ([\d.]+) ", log)]
    assert losses[-1] < losses[0] - 0.05


@pytest.fixture(scope="module")
def back_translation(out):
    """What the smoke test translated, and the command that does it in another folder."""
    smoke(BACK_TRANSLATED, out)
    reverse = RECIPES[BACK_TRANSLATED]["reverse"]
    seed = RECIPES[BACK_TRANSLATED]["seeds"][0]
    model = out / f"{reverse}_seed{seed}" / "eval" / "mean.pt"

    def start(folder, model=model):
        command = [sys.executable, "-W", "ignore", ROOT / "scripts" / "back_translate.py", model]
        command += ["--data", out / "data" / "wmt14_en_fr", "--cpu"]
        command += ["--output", folder, "--shard-lines", str(SHARD_LINES), "--sample"]
        return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)

    return SimpleNamespace(folder=out / "data" / BACK_TRANSLATED, start=start, model=model)


def contents(folder: Path):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def times(folder: Path):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_back_translation_goes_on_after_a_kill_and_not_with_another_model(
    back_translation, tmp_path
):
    translations = tmp_path / "translations"
    process, end = back_translation.start(tmp_path), time.monotonic() + 300
    while not (translations / "00000").exists() and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    whole = contents(back_translation.folder / "translations")
    before = times(translations)
    shards = {name for name in whole if name.isdigit()}
    assert 0 < len(shards & before.keys()) < len(shards)
    assert not (tmp_path / "manifest.json").exists()

    assert back_translation.start(tmp_path).wait(300) == 0
    assert contents(translations) == whole
    after = times(translations)
    assert all(after[name] == before[name] for name in shards & before.keys())
    trained_on = {n: b for n, b in contents(tmp_path / "bin").items() if n.startswith("train")}
    assert any(name.startswith("train1.") for name in trained_on)
    smoked = contents(back_translation.folder / "bin")
    assert trained_on == {n: smoked[n] for n in trained_on}
    assert prepared(tmp_path / "bin") == prepared(
        back_translation.folder.parent / "wmt14_en_fr/bin"
    )
    assert "moses" in prepared(tmp_path / "bin")

    assert back_translation.start(tmp_path).wait(300) == 0
    assert times(translations) == after  # and a third time does nothing

    other = tmp_path / "other.pt"
    shutil.copy(back_translation.model.parents[1] / "checkpoint1.pt", other)
    assert back_translation.start(tmp_path, other).wait(300) == 1  # another folder is asked for
    assert times(translations) == after
