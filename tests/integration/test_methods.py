"""Each residual method on the whole way: training, resuming, decoding, and all that comes after."""

import contextlib
import io
import json
import shutil
from types import SimpleNamespace

import pytest

from fairseq_admin.checkpoints.checkpoint import method, read_checkpoint
from fairseq_admin.methods import METHODS, junctions_of, title
from fairseq_admin.serving.translate import LineTranslator
from fairseq_admin_cli import main as cli

LONG = 1200  # seconds that 300 updates of the demo's model may take on a busy machine
NEVER = ["--disable-validation", "--no-epoch-checkpoints"]
DEMO = ["--encoder-layers", "12", "--decoder-layers", "12", "--encoder-embed-dim", "96"]
DEMO += ["--encoder-ffn-embed-dim", "192", "--encoder-attention-heads", "4"]
DEMO += ["--decoder-attention-heads", "4", "--lr", "1e-3", "--warmup-updates", "200"]
SMALL = ["--encoder-layers", "2", "--decoder-layers", "2"]


def command(*words):
    """What `fairseq-admin` with *words* prints, its errors too, and how it ends."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as ended:  # with the line that the process would end with
            return SimpleNamespace(code=1, output=f"{ended.code}\n")
    return SimpleNamespace(code=code or 0, output=printed.getvalue())


def decoded(lab, data, path, *plugin):
    """Translations of the test set by sentence, by `fairseq-generate` in a process of its own."""
    words = [lab.bin / "fairseq-generate", data, "-s", "de", "-t", "en", "--cpu", *plugin]
    words += ["--path", path, "--required-batch-size-multiple", "1", "--beam", "1"]
    words += ["--max-len-b", "20"]
    return lab.run(words, cwd=path.parent).ok().translations()


def twenty(translation):
    """The first words; fairseq leaves out the <s> of a model that has learned little."""
    return translation.replace("<s>", "").split()[:20]


def whole_way(lab, corpus, tmp_path, residual, sizes, updates):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    straight.mkdir(), resumed.mkdir()
    options = [*sizes, "--residual", residual, *NEVER, "--max-update", updates]
    every = ["--save-interval-updates", updates // 2, "--log-file", straight / "train.log"]
    command_line = lab.train_command(corpus, straight, *options, *every)
    whole = lab.run(command_line, cwd=straight, hangs=LONG).ok()
    half = next(straight.glob(f"checkpoint_*_{updates // 2}.pt"))
    last = straight / "checkpoint_last.pt"

    # training goes on bit for bit
    shutil.copy(half, resumed / "checkpoint_last.pt")
    rest = lab.run(lab.train_command(corpus, resumed, *options), cwd=resumed, hangs=LONG).ok()
    assert rest.losses() == {n: x for n, x in whole.losses().items() if n > updates // 2}
    assert len(rest.losses()) == updates - updates // 2
    ends = [lab.load(folder / "checkpoint_last.pt")["model"] for folder in (straight, resumed)]
    assert lab.same_tensors(*ends)
    assert (whole.table() is not None) == (residual == "admin")
    state = read_checkpoint(str(last))
    assert method(state) == residual

    # a fresh process decodes; so does the mean, folded, without the plugin
    mean, folded = straight / "mean.pt", straight / "folded.pt"
    assert command("average", "--inputs", half, last, "--output", mean).code == 0
    translations = decoded(lab, corpus, mean, "--user-dir", lab.plugin)
    assert len(translations) == 30
    done = command("fold", mean, folded)
    refusal = junctions_of(residual)["encoder"].unfoldable
    if refusal:
        assert done.code == 1 and done.output.count("\n") == 1 and not folded.exists()
        assert f"{title(residual)} does not fold" in done.output and refusal in done.output
        exported = command("export", mean, "--data", corpus, "--output", straight / "serve")
        assert exported.code == 1 and exported.output == done.output
    else:
        assert done.code == 0 and "largest difference of logits" in done.output
        assert decoded(lab, corpus, folded) == translations
        exported = command("export", mean, "--data", corpus, "--output", straight / "serve")
        assert exported.code == 0, exported.output
        lines = (corpus.parent / "test.de").read_text().splitlines()
        served = LineTranslator(str(straight / "serve"), beam=1, max_len=20).translate(lines)
        assert [*map(twenty, served)] == [twenty(translations[i]) for i in range(30)]

    # it is named, and looked at
    page = straight / "report.html"
    assert command("report", straight, "--output", page).code == 0
    assert title(residual) in page.read_text()
    figure = ("analyze", "dependency", last, "--output", straight / "figure")
    done = command(*figure, "--tokens", "200")
    assert done.code == 0, done.output
    (model,) = json.loads((straight / "figure.json").read_text())["models"]
    assert model["method"] == residual
    arguments = [corpus, "--arch", "transformer_admin", *lab.sizes, *sizes, "--residual", residual]
    done = command("profile", *arguments, "--output", straight / "profile.json")
    assert done.code == 0 and "encoder.layers.1.ffn " in done.output
    assert ("omega" in done.output.splitlines()[0]) == (residual in ("admin", "analytic"))


def test_a_method_goes_the_whole_way(lab, corpus, tmp_path):
    """One that draws parameters anew; all of them with the demo's model, see below."""
    whole_way(lab, corpus, tmp_path, "deepnorm", SMALL, 6)


@pytest.mark.slow
@pytest.mark.timeout(3 * LONG)
@pytest.mark.parametrize("residual", METHODS)
def test_each_method_goes_the_whole_way_with_the_demos_model(lab, corpus, tmp_path, residual):
    whole_way(lab, corpus, tmp_path, residual, DEMO, 300)
