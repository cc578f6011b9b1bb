"""recipes.launch and recipes.worker: the effective batch, the command line, a torn file."""

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fairseq_admin.errors import UserError
from recipes import launch as launch_module
from recipes.checks import check_scoring
from recipes.code import ROOT
from recipes.configs import quoted
from recipes.launch import OWN_STORE, WORKER, Hardware, Launch, update_freq, world_of
from recipes.recipes import load_recipes
from recipes.training import Training
from recipes.worker import mend

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

RECIPES = list(load_recipes())
FOLDER = Path("/runs/a folder")


def launched(name="wmt14_en_de_admin_18l", overrides=(), **hardware) -> Launch:
    return Launch(Training(name, Path("/data"), FOLDER, overrides), Hardware(**hardware))


def total(launch: Launch) -> int:
    return launch.world * launch.max_tokens * launch.freq


def of_recipe(name: str) -> int:
    config = Training(name, Path("/data"), FOLDER).config
    freq = OmegaConf.select(config, "optimization.update_freq", default=[1])[0]
    return world_of(config) * config.dataset.max_tokens * freq


def test_overrides_are_read_as_hydra_reads_them():
    given = ["task.target_lang=no", "~dataset.batch_size", "optimization.lr=[1e-3]", "+x.y='a b'"]
    config = launched(overrides=given).training.config
    assert config.task.target_lang == "no"  # to YAML False
    assert config.optimization.lr == [0.001] and config.x.y == "a b"
    with pytest.raises(UserError, match="x=1,2: a sweep"):
        launched(overrides=["x=1,2"])
    with pytest.raises(UserError, match="x=\\[: .*no viable alternative"):
        launched(overrides=["x=["])


@pytest.mark.parametrize(
    "has, name, overrides, hardware, expected",
    [
        (True, "wmt14_en_de_admin_18l", (), {"cpu": True}, True),
        (False, "wmt14_en_de_admin_18l", (), {"cpu": True}, False),
        (True, "wmt14_en_de_admin_18l", (), {}, False),  # on GPUs the recipe's own fp16
        (True, "wmt14_en_de_admin_18l", ["common.bf16=false"], {"cpu": True}, False),
        (True, "wmt14_en_de_admin_18l", ["model.encoder_embed_dim=128"], {"cpu": True}, False),
        (True, "demo_admin", (), {"cpu": True}, False),  # narrow
    ],
)
def test_bf16_where_the_processor_has_it_and_the_model_is_wide(
    monkeypatch, has, name, overrides, hardware, expected
):
    monkeypatch.setattr(launch_module, "multiplies_bf16", lambda: has)
    launch = launched(name, overrides, **hardware)
    assert ("common.bf16=true" in launch.overrides()) == expected
    assert launch.batch().endswith(", in bf16") == expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_effective_batch_is_kept_or_the_nearest_choices_are_told(name):
    published, refused = of_recipe(name), 0
    assert total(launched(name)) == published
    for gpus in (1, 2, 3, 4, 7, 8, 16, 64):
        try:
            launch = launched(name, gpus=gpus)
        except UserError as error:
            refused += 1
            assert f"{published:,} an update" in error.message
            choices = re.findall(r"(--gpus|--max-tokens) (\d+) \(update-freq (\d+)\)", str(error))
            assert choices, error.message
            for option, value, freq in choices:
                chosen = {"gpus": gpus, option[2:].replace("-", "_"): int(value)}
                accepted = launched(name, **chosen)
                assert (total(accepted), accepted.freq) == (published, int(freq)), option
        else:
            assert total(launch) == published and launch.world == gpus
            assert f"optimization.update_freq=[{launch.freq}]" in launch.overrides()
    assert 0 < refused < 8


def test_choices_for_several_machines_are_gpus_a_machine():
    with pytest.raises(UserError) as refused:
        launched(gpus=3, nodes=2, rendezvous="a:1")
    for gpus in re.findall(r"--gpus (\d+)", str(refused.value)):
        accepted = launched(gpus=int(gpus), nodes=2, rendezvous="a:1")
        assert total(accepted) == 32768 and accepted.world == 2 * int(gpus)


def test_less_memory_more_batches():
    launch = launched(max_tokens=2048)
    assert (launch.world, launch.max_tokens, launch.freq) == (4, 2048, 4)
    assert "dataset.max_tokens=2048" in launch.overrides()
    assert launch.batch() == "4 GPUs x 2048 tokens x update-freq 4 = 32,768 tokens an update"
    with pytest.raises(UserError, match=r"--max-tokens 8192 \(update-freq 1\)"):
        launched(max_tokens=3000)


def test_an_override_of_the_batch_is_the_recipe_then():
    assert launched(overrides=["dataset.max_tokens=1000"], gpus=1).freq == 4
    assert launched(overrides=["optimization.update_freq=[8]"], gpus=8).freq == 4


MISTAKES = {
    "--gpus 0: give 1 or more": {"gpus": 0},
    "--nodes 0: give 1 or more": {"nodes": 0},
    "--max-tokens -5: give 1 or more": {"max_tokens": -5},
    "--nodes: give --rendezvous HOST:PORT": {"nodes": 2},
    "4 GPUs are not 3 equal machines": {"nodes": 3, "rendezvous": "a:1"},
    "give timeout_min=MINUTES": {"slurm": ["partition=gpu"]},
    "--slurm gpu: give KEY=VALUE": {"slurm": ["gpu"]},
    "leave out --slurm, --cpu and --smoke": {"cpu": True, "slurm": ["timeout_min=60"]},
    "update_freq=[1, 2]: give one": {"overrides": ["optimization.update_freq=[1,2]"]},
    "dataset.max_tokens: the effective batch": {"overrides": ["dataset.max_tokens=null"]},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_line(message):
    with pytest.raises(UserError) as refused:
        launched(**MISTAKES[message])
    assert message in refused.value.message and "\n" not in refused.value.message


def test_one_process_needs_no_launcher():
    python, worker, *arguments = launched(gpus=1).command()
    assert Path(python).name == "python" and worker == str(SCRIPTS / "recipes" / "worker.py")
    assert f"checkpoint.save_dir='{FOLDER}'" in arguments


def test_torchrun_on_one_machine_and_on_several():
    env, own_store, torchrun, *words = launched().command()
    assert (env, own_store) == ("env", OWN_STORE)
    assert Path(torchrun).name == "torchrun" and "--standalone" in words
    assert "--nproc-per-node=4" in words and "--max-restarts=3" in words
    several = launched(nodes=2, rendezvous="node1:29400").command()
    for word in ("--nproc-per-node=2", "--nnodes=2", "--rdzv-endpoint=node1:29400"):
        assert word in several
    assert "--standalone" not in several
    assert "hydra.job.name=train" in several  # rank 0 may be on any of them: it writes train.log
    assert "distributed_training.distributed_world_size=4" in several


def test_processors_take_gloo_and_single_precision():
    one, two = launched(gpus=1, cpu=True).overrides(), launched(gpus=2, cpu=True).overrides()
    for overrides in (one, two):
        assert {"common.cpu=true", "common.fp16=false"} <= set(overrides)
    gloo = "distributed_training.distributed_backend=gloo"
    assert gloo in two and gloo not in one
    assert launched(cpu=True).world == 1  # the recipe's 4 GPUs, one after another
    assert launched(cpu=True).freq == 4


def test_one_slurm_job_a_run():
    slurm = ["timeout_min=600", "partition=gpu", "gpus_per_node=0"]
    launch = launched(gpus=2, nodes=2, slurm=slurm)  # meets without --rendezvous
    program, *words = launch.command()
    assert Path(program).name == "fairseq-hydra-train"
    options = [i for i, word in enumerate(words) if word.startswith("--")]
    first = next(i for i, word in enumerate(words) if "=" in word)
    assert max(options) < first  # argparse takes hydra's overrides in one place only
    launcher = dict(
        w.partition("hydra.launcher.")[2].split("=", 1) for w in words if ".launcher." in w
    )
    assert launcher["nodes"] == "2" and launcher["tasks_per_node"] == "2"
    assert launcher["gpus_per_node"] == "0" and launcher["timeout_min"] == "600"  # as given
    assert launcher["name"].startswith(f"'{FOLDER.name}-")  # of this folder and no other
    (port,) = (w for w in words if w.startswith("distributed_training.distributed_port="))
    other = Launch(Training(launch.training.name, Path("/data"), Path("/b")), launch.hardware)
    assert port not in other.command()  # two jobs may share a machine
    assert f"hydra.launcher.name={launcher['name']}" not in other.command()


def test_what_cannot_be_scored_is_told_before_the_training(tmp_path):
    (tmp_path / "test.th").write_text("x")
    check_scoring(tmp_path / "test.th", "en")
    with pytest.raises(UserError, match="th has no spaces .*: give --to train, and the rest to"):
        check_scoring(tmp_path / "test.th", "th")


def test_a_folder_that_could_not_be_decoded_from_is_refused_before_training(tmp_path):
    folder = tmp_path / "10:00"
    with pytest.raises(UserError, match="10:00: give a folder without ':'"):
        Training("demo_admin", tmp_path, folder).claim()
    assert not folder.exists()


def test_hardware_is_handed_to_another_recipe():
    hardware = Hardware(2, 3, False, 512, "a:1", ["timeout_min=60"])
    words = "--gpus 2 --max-tokens 512 --rendezvous a:1 --nodes 3 --slurm timeout_min=60"
    assert hardware.flags() == words.split()
    assert Hardware(cpu=True).flags() == ["--nodes", "1", "--cpu"]


# A training that was killed


@pytest.fixture
def saved(tmp_path):
    """A run folder with checkpoints of known content, in the order that fairseq writes them."""

    def save(name: str, content: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as z:
            z.writestr("data.pkl", content * 1000)
        return tmp_path / name

    def tear(name: str) -> None:
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-40])

    def content(name: str) -> str:
        with zipfile.ZipFile(tmp_path / name) as z:
            return z.read("data.pkl").decode()[0]

    return SimpleNamespace(folder=tmp_path, save=save, tear=tear, content=content)


def test_whole_checkpoints_are_left_alone(saved):
    for name in ("checkpoint1.pt", "checkpoint_best.pt", "checkpoint_last.pt"):
        saved.save(name, "1")
    saved.save("checkpoint_2_30.pt", "2")  # saved, not yet copied: the last is of before, but whole
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in saved.folder.iterdir()}
    mend(saved.folder)
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in saved.folder.iterdir()}


@pytest.mark.parametrize("newest", ["checkpoint2.pt", "checkpoint_2_30.pt", "checkpoint_best.pt"])
def test_a_torn_last_checkpoint_is_copied_anew_from_the_newest(saved, newest):
    saved.save("checkpoint_1_10.pt", "0")
    saved.save("checkpoint1.pt", "1")
    saved.save(newest, "2")
    saved.save("checkpoint_last.pt", "x")
    saved.tear("checkpoint_last.pt")
    mend(saved.folder)
    assert saved.content("checkpoint_last.pt") == "2"
    assert not list(saved.folder.glob("*.partial"))


def test_a_torn_best_checkpoint_is_no_source(saved):
    saved.save("checkpoint1.pt", "1")
    for name in ("checkpoint_best.pt", "checkpoint_last.pt"):
        saved.save(name, "x")
        saved.tear(name)
    mend(saved.folder)
    assert saved.content("checkpoint_last.pt") == "1"
    assert (saved.folder / "checkpoint_best.pt").exists()  # fairseq reads it nowhere


def test_a_checkpoint_of_the_best_alone_is_a_source(saved):
    """--keep-best-checkpoints with --no-epoch-checkpoints; with --checkpoint-suffix too."""
    saved.save("checkpoint.best_loss_4.2101-a.pt", "1")
    saved.save("checkpoint_last-a.pt", "x")
    saved.tear("checkpoint_last-a.pt")
    saved.save("checkpoint2.pt", "2")  # of another suffix
    mend(saved.folder)
    assert not (saved.folder / "checkpoint_last.pt").exists()  # someone may have taken it away
    mend(saved.folder, "-a")
    assert saved.content("checkpoint_last-a.pt") == "1"


def test_where_none_is_left_nothing_is_lost(saved):
    path = saved.save("checkpoint_last.pt", "x")
    saved.tear("checkpoint_last.pt")
    (saved.folder / "checkpoint1.pt.tmp").write_bytes(b"half")  # of a save that never ended
    (saved.folder / "checkpoint_last.partial").write_bytes(b"half")  # of a mend that never ended
    (saved.folder / "checkpoint2.pt").write_bytes(b"PK half")
    before = {p: p.read_bytes() for p in saved.folder.iterdir()}
    with pytest.raises(ValueError, match="checkpoint_last.pt is cut off, .* move it away") as told:
        mend(saved.folder)
    assert "\n" not in str(told.value)
    assert before == {p: p.read_bytes() for p in saved.folder.iterdir()}
    done = subprocess.run([sys.executable, WORKER, saved.folder], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"worker: {path} is cut off")


def test_a_file_of_old_torch_is_no_torn_one(saved):
    path = saved.folder / "checkpoint_last.pt"
    torch.save({"model": {}}, path, _use_new_zipfile_serialization=False)
    mend(saved.folder)
    assert torch.load(path) == {"model": {}}


LOADED = "Loaded checkpoint /r/checkpoint_last.pt (epoch 2 @ {} updates)"
SAVED = (
    "Saved checkpoint /r/checkpoint_1_{0}.pt (epoch 1 @ {0} updates, score 3.2) (writing took 1s)"
)
ENDED = "Saved checkpoint /r/checkpoint{0}.pt (epoch {0} @ 16 updates, score 3.2) (writing took 1s)"
LATE = "Stopping training due to cumulative_training_time: 0.5 > stop_time_hours: 0.4 hour(s)"
NEW, EPOCH, DONE = (
    "No existing checkpoint found x",
    "Start iterating over samples",
    "done training in 9.0 seconds",
)
ALREADY = "training is finished already, by /r/checkpoint_last.pt: nothing to do"
LIMITS = ["optimization.max_update=20", "optimization.max_epoch=2"]
LOGS = {  # lines as fairseq logs them, and whether the training of 20 updates has ended
    "nothing": ([], False),
    "killed": ([NEW, EPOCH, SAVED.format(10)], False),
    "out of time": ([NEW, EPOCH, LATE, SAVED.format(8), DONE], False),
    "out of time twice": ([NEW, EPOCH, LATE, DONE, LOADED.format(8), EPOCH, LATE, DONE], False),
    "gone on after that": ([NEW, EPOCH, LATE, DONE, LOADED.format(8), EPOCH, DONE], True),
    "out of time in the last epoch": ([NEW, EPOCH, LATE, DONE, LOADED.format(8), DONE], True),
    "last epoch, or patience": ([NEW, EPOCH, SAVED.format(8), EPOCH, SAVED.format(16), DONE], True),
    "killed after the last update": ([NEW, EPOCH, SAVED.format(20)], True),
    "killed in the last epoch": ([NEW, EPOCH, ENDED.format(1), EPOCH, SAVED.format(18)], False),
    "killed after the last epoch": ([NEW, EPOCH, ENDED.format(2)], True),
    "out of time at the last update": ([NEW, EPOCH, LATE, SAVED.format(20), DONE], True),
    "started once more": ([NEW, EPOCH, LATE, DONE, ALREADY], True),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_training_has_ended_when_its_updates_or_epochs_are_done(case, tmp_path):
    lines, ended = LOGS[case]
    training = Training("demo_admin", tmp_path, tmp_path, LIMITS)
    assert not training.trained()
    training.log.write_text("".join(f"[2026-01-01][fairseq][INFO] - {line}\n" for line in lines))
    assert training.trained() is ended


def test_hours_to_stop_after_decide_nothing(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")

    def inputs(*overrides):
        return Training("demo_admin", tmp_path, tmp_path, overrides).inputs()

    assert inputs() == inputs("optimization.stop_time_hours=2") == inputs("generation.beam=3")
    assert inputs() != inputs("optimization.max_update=2")


@pytest.mark.parametrize("data", ["manifest.json", "bin/train.de-en.de.bin"])
def test_other_data_make_another_run(data, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / data).write_text("{}")
    before = Training("demo_admin", tmp_path, tmp_path).inputs()
    (tmp_path / data).write_text("[]")
    assert Training("demo_admin", tmp_path, tmp_path).inputs() != before


def test_mending_ahead_of_a_slurm_job(saved):
    saved.save("checkpoint1.pt", "1")
    launch = launched(gpus=1, slurm=["timeout_min=60"])
    (setup,) = (w for w in launch.command() if w.startswith("hydra.launcher.setup="))
    (command,) = OmegaConf.create(setup.partition("=")[2])
    words = shlex.split(command)
    assert words[-1] == str(FOLDER)
    subprocess.run([*words[:-1], str(saved.folder)], check=True)
    assert saved.content("checkpoint_last.pt") == "1"


def test_a_config_without_hardware_is_of_one_process():
    config = OmegaConf.create({"dataset": {"max_tokens": 4096}, "optimization": {}})
    assert update_freq(config, 1, 1024) == 4


PATHS = [
    "/runs/a",
    "/home/j\u00fcrgen/x",
    "a=b, (c)",
    "it's",
    "{x}[y]",
    "a b",
    "~/#&;!^",
    "back\\slash\\",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_come_through_hydra(path):
    override = OverridesParser.create().parse_override(f"task.data={quoted(path)}")
    assert override.value() == path and not override.is_sweep_override()


def test_a_list_of_partitions_is_no_sweep():
    command = launched(gpus=1, slurm=["timeout_min=60", "partition=a,b"]).command()
    (word,) = (w for w in command if w.startswith("hydra.launcher.partition="))
    assert OverridesParser.create().parse_override(word).value() == "a,b"


def test_a_batch_that_is_not_the_recipes_is_told():
    assert "not the recipe's" not in launched(gpus=1).batch()
    other = Training("wmt14_en_de_admin_6l", ROOT, FOLDER, ["dataset.max_tokens=1000"])
    told = Launch(other, Hardware()).batch()
    assert told.endswith("= 4,000 tokens an update (not the recipe's 32,768)")
