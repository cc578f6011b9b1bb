"""`fairseq-admin doctor`: before a training, whether it learns; and what then comes of it."""

import json

import pytest

from fairseq_admin.outcome import ALARM

SHORT = ["--max-update", "120", "--stuck-after", "100", "--lr-scheduler", "polynomial_decay"]
SHORT += ["--total-num-update", "120"]
DEEP = ["--encoder-layers", "6", "--decoder-layers", "6"]
SETTINGS = {  # options, and whether such a training learns
    "deep post-ln": (["--residual", "post-ln", *DEEP, "--lr", "3e-2"], False),
    "admin, far too fast": (["--residual", "admin", "--lr", "0.1", "--warmup-updates", "1"], False),
    "post-ln": (["--residual", "post-ln", "--lr", "3e-3"], True),
    "deep admin": (["--residual", "admin", *DEEP, "--lr", "3e-3"], True),
}


@pytest.fixture
def doctor(corpus, lab):
    """The command, on the arguments of a training with *options*."""

    def run(*options, data=corpus, arch="transformer_admin", task="translation_admin"):
        training = lab.train_command(data, "unused", *options, arch=arch, task=task)[1:]
        return lab.run([lab.bin / "fairseq-admin", "doctor", *training])

    return run


@pytest.mark.parametrize(  # of the short trainings, and of the deep ones, one each
    "name",
    [pytest.param(name, marks=() if "post-ln" in name else pytest.mark.slow) for name in SETTINGS],
)
def test_it_tells_what_then_comes_of_a_training(name, doctor, corpus, lab, tmp_path):
    options, learns = SETTINGS[name]
    found = json.loads(doctor(*SHORT, *options, "--json").ok().output)
    last = ["--max-update", "260"]  # the rate is 0 from 120 on, and the loss stays as it is
    training = lab.train_command(corpus, tmp_path, *SHORT, *options, "--no-save", *last)
    out = lab.run(training).ok().output
    assert (ALARM not in out) == learns and "done training" in out
    assert found["verdict"] == ("will learn" if learns else "will not learn")


def test_a_reader_gets_lines_and_a_figure(doctor, tmp_path):
    options = SETTINGS["admin, far too fast"][0]
    out = doctor(*options, "--plot", tmp_path / "x.png").ok().output
    for part in ("Admin 3-3, lr 0.1, 1 warmup updates", "right about", "healthy", "most is lost"):
        assert part in out
    assert "--residual pre-ln: " in out and "--lr 0.01: " in out
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("task", ["translation", "translation_admin"])
def test_fairseqs_own_transformer_too(doctor, task):
    out = doctor("--lr", "0.1", arch="transformer", task=task).ok().output
    assert "Post-LN 3-3, lr 0.1" in out
    told = "  --arch transformer_admin --residual admin, of the same sizes: "
    assert (told if task == "translation_admin" else f"  --task translation_admin{told[1:]}") in out


def test_hydra(corpus, lab, tmp_path):
    sizes = ["model.encoder_layers=2", "model.decoder_layers=2", "model.encoder_embed_dim=32"]
    command = [lab.bin / "fairseq-admin", "doctor", "--config-dir", lab.plugin.parent / "configs"]
    command += ["--config-name", "demo_post_ln", f"task.data={corpus}", *sizes]
    out = lab.run([*command, "optimization.lr=[1.0]"]).ok().output
    assert "Post-LN 2-2, lr 1, 200 warmup updates" in out and "\n  ++model.residual=admin: " in out
    mistakes = {
        "model.x=1": "model.x",
        "task.data=nowhere": "no such data folder",
        "common.user_dir=nowhere": "no such folder: nowhere (common.user_dir)",
    }
    for wrong, told in mistakes.items():
        run = lab.run([*command, wrong])
        assert run.code == 2 and run.last_line.startswith("fairseq_admin: "), run.output
        assert told in run.last_line
    run = lab.run([command[0], "doctor", "--config-name", "nothing"], cwd=tmp_path)
    assert run.code == 2
    assert run.last_line.startswith(f"fairseq_admin: no such config: {tmp_path}/configs/nothing.y")


ADAM = ["--optimizer", "adam"]
ADMIN = ["DATA", "--task", "translation_admin", "--arch", "transformer_admin", *ADAM]
MISTAKES = {  # beside data and architecture
    "no data": (["NOWHERE", "--arch", "transformer", *ADAM], "no such data folder"),
    "no model": (["DATA"], "which model? give --arch"),
    "no optimizer": ([], "which optimizer?"),
    "a misspelt option": (["--lrr", "1"], "--lrr"),
    "no translation": (
        ["DATA", "--arch", "transformer_lm", "--task", "language_modeling", *ADAM],
        "no training of a translation model",
    ),
    "no folder of the figure": (["--plot", "nowhere/x.png"], "no such folder: nowhere"),
    "no folder of a plugin": (["--user-dir", "no"], "no such folder: no (--user-dir)"),
    "a rate that is none": ([*ADAM, "--lr", "1e-3x"], "1e-3x"),
    "a warmup of none": (
        [*ADAM, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "0"],
        "no optimizer and learning rates that can be followed here (ZeroDivisionError",
    ),
    "a schedule without an end": (
        [*ADAM, "--lr-scheduler", "polynomial_decay"],
        "total_num_update",
    ),
    "a training that is refused": (
        [*ADMIN, "--stop-when-stuck", "--use-bmuf"],
        "--use-bmuf keeps apart",
    ),
    "a folder of configs alone": (["--config-dir", "c"], "--config-dir is of --config-name"),
    "adaptive softmax": ([*ADAM, "--adaptive-softmax-cutoff", "10"], "adaptive softmax"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, corpus, lab, tmp_path):
    arguments, told = MISTAKES[name]
    if arguments[:1] not in (["DATA"], ["NOWHERE"]):
        arguments = ["DATA", "--arch", "transformer", *arguments]
    arguments = [str(corpus) if word == "DATA" else word for word in arguments]
    run = lab.run([lab.bin / "fairseq-admin", "doctor", *arguments], cwd=tmp_path)
    told_by_fairseq = ("ERROR:fairseq.dataclass.utils:", "fairseq_admin: ")
    assert run.code == 2, run.output
    assert all(line.startswith(told_by_fairseq) for line in run.output.strip().splitlines())
    assert run.last_line.startswith("fairseq_admin: ") and told in run.last_line, run.output
    assert not list(tmp_path.iterdir())
