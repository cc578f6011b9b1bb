"""From a run folder to a plain model: average and fold as commands, and what takes the result."""

import re
from types import SimpleNamespace

import pytest
import torch

from fairseq_admin_cli import main as cli

EVERY_SENTENCE = ["--required-batch-size-multiple", "1"]
TRAIN_ON = ["--task", "translation", "--arch", "transformer"]


@pytest.fixture(scope="module")
def made(admin, lab, tmp_path_factory):
    """The last two checkpoints of the Admin run averaged, and the mean folded, with and without
    the training state."""
    folder = tmp_path_factory.mktemp("made")
    command = [lab.bin / "fairseq-admin", "average", admin.folder, "--output", folder / "mean.pt"]
    average = lab.run([*command, "--num-update-checkpoints", "2"]).ok()
    fold = lab.run([lab.bin / "fairseq-admin", "fold", "mean.pt", "plain.pt"], cwd=folder).ok()
    command = [lab.bin / "fairseq-admin", "fold", admin.checkpoints[120], "state.pt"]
    lab.run([*command, "--keep-training-state"], cwd=folder).ok()
    return SimpleNamespace(folder=folder, average=average, fold=fold)


def without_plugin(bin):
    """A fairseq-generate that cannot import the plugin, on whatever path it is installed."""
    code = (
        "import sys; sys.modules['fairseq_admin'] = None; sys.argv[0] = 'fairseq-generate'; "
        "from fairseq_cli.generate import cli_main; cli_main()"
    )
    return [bin / "python", "-c", code]


def test_average_is_of_the_last_two(made, admin, lab):
    assert "checkpoint_" in made.average.last_line
    mean = lab.load(made.folder / "mean.pt")
    names = mean["extra_state"]["averaged"]
    assert [name.split("_")[-1] for name in names] == ["100.pt", "60.pt"]  # 80, 120: epochs' ends
    files = [lab.load(admin.folder.parent / name)["model"] for name in names]
    key = "decoder.layers.2.ffn_residual.omega"
    expected = (files[0][key] + files[1][key]) / 2
    torch.testing.assert_close(mean["model"][key], expected)
    assert lab.profile_of(mean) == lab.profile_of(lab.load(admin.checkpoints[120]))


def test_fold_prints_a_difference_within_its_bound(made):
    exact = float(re.search(r"(\S+) in fp64", made.fold.output).group(1))
    written = float(re.search(r"(\S+) with weights in float32", made.fold.output).group(1))
    assert exact < 1e-10 and written < 1e-3


def test_stock_fairseq_translates_the_same(made, corpus, lab):
    """Stock fairseq in a fresh process, under torch's default protection, without the plugin."""
    flags = [corpus, "--beam", "5", "--cpu", *EVERY_SENTENCE, "--path"]
    plugin = [lab.bin / "fairseq-generate", "--user-dir", lab.plugin]
    unfolded = lab.run([*plugin, *flags, made.folder / "mean.pt"]).ok().translations("D")
    run = lab.run([*without_plugin(lab.real), *flags, made.folder / "plain.pt"]).ok()
    folded = run.translations("D")
    assert len(unfolded) == 30 and folded == unfolded
    assert len(set(folded.values())) > 5
    refused = lab.run([*without_plugin(lab.bin), *flags, made.folder / "mean.pt"])
    assert refused.code != 0  # the unfolded one needs the plugin


def test_finetuning_from_a_folded_file(made, corpus, lab, tmp_path):
    command = [lab.bin / "fairseq-train", corpus, *TRAIN_ON, *lab.model_options, *lab.recipe]
    command += ["--max-update", "3", "--lr-scheduler", "fixed", "--lr", "1e-4"]
    command += ["--save-dir", tmp_path]
    folded = made.folder / "plain.pt"
    for option in ("--finetune-from-model", "--restore-file"):
        losses = lab.run([*command, "--no-save", option, folded], cwd=tmp_path).ok().losses()
        fresh = lab.run([*command, "--no-save"], cwd=tmp_path).ok().losses()
        assert losses[1] < 0.9 * fresh[1]


def test_training_goes_on_from_a_kept_state(made, admin, corpus, lab, tmp_path):
    """The folded model at the update, learning rate and moments where Admin's training stood."""
    command = [lab.bin / "fairseq-train", corpus, *TRAIN_ON, *lab.model_options, *lab.recipe]
    command += ["--restore-file", made.folder / "state.pt", "--save-dir", tmp_path]
    run = lab.run([*command, "--max-update", "124", "--no-save"], cwd=tmp_path).ok()
    assert list(run.losses()) == [121, 122, 123, 124]
    before = list(admin.run.losses().values())[-8:]
    assert max(run.losses().values()) < max(before) + 0.5 * (max(before) - min(before))
    moments = lab.load(made.folder / "state.pt")["last_optimizer_state"]["state"]
    assert all(float(m["exp_avg_sq"].max()) > 0 for m in moments.values())


def test_ctranslate2_takes_the_folded_and_refuses_the_unfolded(made, corpus, lab, tmp_path):
    convert = [lab.bin / "ct2-fairseq-converter", "--data_dir", corpus]
    folded = ["--model_path", made.folder / "plain.pt", "--output_dir", tmp_path / "plain"]
    lab.run([*convert, *folded, "--source_lang", "de", "--target_lang", "en"]).ok()
    assert (tmp_path / "plain" / "model.bin").exists()
    for plugin in ([], ["--user_dir", lab.plugin]):
        unfolded = ["--model_path", made.folder / "mean.pt", "--output_dir", tmp_path / "mean"]
        run = lab.run([*convert, *unfolded, *plugin])
        assert run.code != 0 and not (tmp_path / "mean").exists()


def test_a_mean_takes_the_place_of_no_checkpoint(made, admin):
    mean, last = made.folder / "mean.pt", admin.checkpoints[120]
    before = [path.stat().st_mtime_ns for path in (mean, last)]
    for output, told in ((mean, "is an input of this"), (last, "is a checkpoint of a training")):
        with pytest.raises(SystemExit, match=f"^fairseq_admin: {output} {told}"):
            cli.main(["average", str(mean), "--output", str(output)])
    assert [path.stat().st_mtime_ns for path in (mean, last)] == before
