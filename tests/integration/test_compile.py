"""`--compile-layers`: compiled layers train, resume and decode like the plain ones."""

import pytest
import torch

LONG = 1200  # seconds that compiling may take on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]

SMALL = ["--encoder-layers", "2", "--decoder-layers", "2", "--dropout", "0"]
SMALL += ["--disable-validation", "--no-epoch-checkpoints", "--max-update", "6"]
ALL = ["--required-batch-size-multiple", "1"]  # fairseq leaves out the last of 8 otherwise
COMPILED = [*SMALL, "--compile-layers"]


def close(losses, others):
    return losses.keys() == others.keys() and losses == pytest.approx(others, abs=1e-4)


@pytest.fixture(scope="module")
def plain(lab, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, lab.run(lab.train_command(corpus, folder, *SMALL), cwd=folder).ok()


def test_losses_checkpoints_and_translations_are_those_of_the_plain_layers(
    lab, corpus, plain, tmp_path
):
    every = ["--save-interval-updates", "3"]
    command = lab.train_command(corpus, tmp_path, *COMPILED, *every)
    compiled = lab.run(command, cwd=tmp_path, hangs=LONG).ok()
    folder, run = plain
    assert compiled.table() == run.table()  # profiled before
    assert close(compiled.losses(), run.losses()) and len(run.losses()) == 6
    models = [lab.load(x / "checkpoint_last.pt")["model"] for x in (folder, tmp_path)]
    assert models[0].keys() == models[1].keys()

    half, resumed = next(tmp_path.glob("checkpoint_*_3.pt")), tmp_path / "resumed"
    command = lab.train_command(corpus, resumed, *COMPILED, "--restore-file", half)
    rest = lab.run(command, cwd=tmp_path, hangs=LONG).ok()
    assert close(rest.losses(), {n: x for n, x in compiled.losses().items() if n > 3})
    for name, weight in lab.load(resumed / "checkpoint_last.pt")["model"].items():
        # other shapes came first, for which other code may be made
        torch.testing.assert_close(weight, models[1][name], rtol=1e-4, atol=1e-5)

    decoded = []
    for place in (folder, tmp_path):
        words = [lab.bin / "fairseq-generate", corpus, "-s", "de", "-t", "en", "--cpu"]
        words += ["--user-dir", lab.plugin, "--path", place / "checkpoint_last.pt"]
        run = lab.run([*words, "--beam", "1", "--max-len-b", "20", *ALL], cwd=place).ok()
        decoded.append(run.translations())
    assert decoded[0] == decoded[1] and len(decoded[0]) == 30
