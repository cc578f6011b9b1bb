"""The demo's bounds, by the demo itself."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record():
    subprocess.run(["bash", ROOT / "scripts" / "demo.sh"], check=True)
    return json.loads((ROOT / "runs" / "demo" / "record.json").read_text())


@pytest.mark.slow
def test_admin_translates_where_post_ln_does_not(record):
    assert record["runs"]["admin"]["bleu"] >= 90
    assert record["runs"]["post-ln"]["bleu"] <= 20


@pytest.mark.slow
def test_both_trained_alike(record):
    options = [run["options"] for run in record["runs"].values()]
    for part in ("common", "dataset", "optimization", "criterion", "optimizer", "lr_scheduler"):
        assert options[0][part] == options[1][part]
    models = [{**o["model"], "_name": None} for o in options]
    assert models[0] == models[1] and models[0]["encoder_layers"] >= 12


@pytest.mark.slow
def test_figures_are_there(record):
    for name in ("curves.png", "omegas.png"):
        assert (ROOT / "runs" / "demo" / name).read_bytes().startswith(b"\x89PNG")
