"""A checkpoint that the first version of the plugin wrote, when Admin was its only method.

`data/admin_checkpoint.pt`: one layer a stack, 4 updates on the text below; beside what fairseq
keeps, the logits that the model then had for a batch.
"""

import random
import shutil
from pathlib import Path

import pytest
import torch

from fairseq_admin.checkpoints.checkpoint import method, model_options, read_checkpoint
from fairseq_admin.checkpoints.equivalence import build_model
from fairseq_admin.checkpoints.fold import fold
from fairseq_admin.checkpoints.random_text import random_batch

KEPT = Path(__file__).resolve().parents[1] / "data" / "admin_checkpoint.pt"
LOSSES = {5: 3.96, 6: 4.036, 7: 3.891, 8: 3.731}  # in bits, of the updates that followed


@pytest.fixture(scope="module")
def state():
    return read_checkpoint(str(KEPT))


def test_its_weights_are_unchanged_and_compute_the_same(state):
    assert "residual" not in model_options(state) and method(state) == "admin"
    model = build_model(model_options(state), state["model"])
    model.load_state_dict(state["model"], strict=True)
    assert list(model.state_dict()) == list(state["model"])
    assert all(torch.equal(w, state["model"][k]) for k, w in model.state_dict().items())
    batch = random_batch([(5, 4), (3, 6)], (12, 12))["net_input"]
    with torch.no_grad():
        logits = model.eval()(**batch)[0]
    torch.testing.assert_close(logits, state["extra_state"]["logits"], rtol=1e-6, atol=1e-6)
    assert fold(state)[1].exact < 1e-10


def test_its_training_goes_on(lab, tmp_path):
    rng = random.Random(1)
    for split, pairs in (("train", 40), ("valid", 8)):
        sides = {"de": [], "en": []}
        for _ in range(pairs):
            words = [f"w{rng.randrange(8)}" for _ in range(rng.randint(2, 6))]
            sides["de"].append(" ".join(words))
            sides["en"].append(" ".join(reversed(words)))
        for lang, lines in sides.items():
            (tmp_path / f"{split}.{lang}").write_text("\n".join(lines) + "\n")
    words = tmp_path / "dict.txt"
    words.write_text("".join(f"w{i} 1\n" for i in range(8)))
    command = [lab.bin / "fairseq-preprocess", "-s", "de", "-t", "en"]
    command += ["--trainpref", tmp_path / "train", "--validpref", tmp_path / "valid"]
    command += ["--destdir", tmp_path / "bin"]
    lab.run([*command, "--srcdict", words, "--tgtdict", words], cwd=tmp_path).ok()

    (tmp_path / "run").mkdir()
    shutil.copy(KEPT, tmp_path / "run" / "checkpoint_last.pt")
    sizes = ["--encoder-layers", "1", "--decoder-layers", "1", "--encoder-embed-dim", "8"]
    sizes += ["--encoder-ffn-embed-dim", "16", "--max-source-positions", "32"]
    sizes += ["--max-target-positions", "32", "--dropout", "0.1", "--warmup-updates", "2"]
    how = ["--max-tokens", "60", "--criterion", "cross_entropy", "--max-update", "8"]
    how += ["--no-epoch-checkpoints"]
    command = lab.train_command(tmp_path / "bin", tmp_path / "run", *sizes, *how)
    smoothing = command.index("--label-smoothing")
    del command[smoothing : smoothing + 2]  # of the other criterion
    run = lab.run(command, cwd=tmp_path).ok()
    assert run.losses() == pytest.approx(LOSSES, abs=2e-3)
