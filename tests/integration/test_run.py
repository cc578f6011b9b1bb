"""scripts/run.sh: what is refused, what is shown, and a run from end to end. The slow tests stop
it, and give it ranks and machines, half a minute each; it is killed in ../slow/test_kills.py."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from omegaconf import OmegaConf

from fairseq_admin.errors import UserError
from recipes import recipes
from recipes import run as script
from recipes.configs import load_config

ROOT = Path(__file__).resolve().parents[2]

RECIPES = script.load_recipes()
RECIPE = "iwslt14_de_en_admin_6l"
START = ["bash", ROOT / "scripts" / "run.sh"]
SMOKE = [RECIPE, "--smoke", "--seed", "1"]
FOLDER = f"{RECIPE}_seed1"


@pytest.fixture
def main(monkeypatch, tmp_path, capsys):
    """`run.sh` with these arguments in this process; what it printed. Its own tree is tmp_path."""

    def run(*arguments):
        monkeypatch.setattr(script, "ROOT", tmp_path)
        monkeypatch.setattr(script.logging.getLogger(), "setLevel", lambda level: None)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(sys, "argv", ["run.sh", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    return run


def shown(output: str) -> SimpleNamespace:
    """What --dry-run printed of one recipe: commands by step, and the configuration."""
    commands, _, config = output.partition("# the configuration\n")
    found = re.findall(r"^# (\S+)\n(.*)$", commands, flags=re.MULTILINE)
    by_step = {}
    for step, command in found:
        by_step.setdefault(step, []).append(shlex.split(command))
    return SimpleNamespace(commands=by_step, config=OmegaConf.create(config))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_shows_its_commands_and_writes_nothing(main, tmp_path, name, monkeypatch):
    if name != RECIPE:  # overrides are composed by themselves first: seconds each
        monkeypatch.setattr(script, "check_overrides", lambda *_: None)
    dry = shown(main(name, "--seed", "7", "--dry-run", "--", "model.dropout=0.17"))
    facts, config = RECIPES[name], dry.config
    assert set(dry.commands) == {"prepare", "train", "fold"} | (
        {"back-translate"} if "reverse" in facts else set()
    )
    assert dry.commands["prepare"][0][2] == facts["corpus"]
    if "reverse" in facts:
        reverse = dry.commands["back-translate"][0]
        assert reverse[2] == facts["reverse"] and "--max-tokens" not in reverse
    (train,), (evaluation,) = dry.commands["train"], dry.commands["fold"]
    assert train[train.index("--config-name") + 1] == name and "model.dropout=0.17" in train
    given = [word for word in train if re.match(r"\w+\.\w+=", word)]
    said = OmegaConf.merge(
        OmegaConf.structured(FairseqConfig), load_config(name), OmegaConf.from_dotlist(given)
    )
    add_defaults(said)  # load_config, of which all else is, follows `defaults:` as hydra does
    assert said == config
    assert (config.model.dropout, config.common.seed) == (0.17, 7)
    original = script.Training(name, ROOT, ROOT).config
    assert config.model.encoder_layers == original.model.encoder_layers
    kept = config.checkpoint.keep_last_epochs
    assert kept == original.checkpoint.keep_last_epochs
    assert evaluation[evaluation.index("--num-epoch-checkpoints") + 1] == str(kept)
    search = f"--beam {original.generation.beam} --lenpen {original.generation.lenpen} "
    assert evaluation[evaluation.index("--decoding") + 1].startswith(search)
    (data,) = (word for word in train if word.startswith("task.data="))
    assert data == f"task.data={evaluation[evaluation.index('--data') + 1]}"
    assert config.distributed_training.distributed_world_size == (
        original.distributed_training.distributed_world_size
    )
    assert not list(tmp_path.iterdir())


def test_a_group_shows_each_recipe_with_each_of_its_seeds(main, monkeypatch):
    monkeypatch.setattr(script.Training, "composed", lambda *_: {})  # a second each
    output = main("iwslt14_de_en", "--dry-run", "--to", "train")
    titles = re.findall(r"^# (\S+)_seed(\d+): ", output, flags=re.MULTILINE)
    group = [name for name, facts in RECIPES.items() if facts["group"] == "iwslt14_de_en"]
    assert titles == [(name, str(s)) for name in group for s in RECIPES[name]["seeds"]]


def test_the_list_of_recipes_needs_no_results(monkeypatch, tmp_path):
    with_costs = recipes.listing(RECIPES).splitlines()
    monkeypatch.setattr(recipes, "COSTS", tmp_path / "costs.json")
    without = recipes.listing(RECIPES).splitlines()
    assert len(without) == len(with_costs) == 1 + len(RECIPES)
    for name, line, longer in zip(RECIPES, without[1:], with_costs[1:]):
        assert line.split()[0] == name and line.split()[-1] == longer.split()[-1]
        assert len(line.split()) == len(longer.split()) - 2  # hours and disk


def test_a_corpus_that_nobody_has_published(monkeypatch, main):
    """The list shows what is known; the config of a recipe is not all of it."""
    own = {RECIPE: {**RECIPES[RECIPE], "corpus": "own"}}
    assert recipes.listing(own).splitlines()[1].split()[1] == "6-6"
    with pytest.raises(UserError, match="no recipe demo_admin: .* an entry in .*recipes.yaml"):
        main("demo_admin", "--dry-run")


MISTAKES = {
    "no recipe nonesuch": ["nonesuch"],
    "Could not override 'model.encoder_layer'": [RECIPE, "--", "model.encoder_layer=3"],
    "encoder_layers: Value 'many' of type 'str' could not be converted": [
        RECIPE,
        "--",
        "model.encoder_layers=many",
    ],
    "--residual layerscale: give one of admin, ": [RECIPE, "--", "model.residual=layerscale"],
    "mismatched input '<EOF>'": [RECIPE, "--", ""],
    "common.seed=5: give --seed": [RECIPE, "--", "common.seed=5"],
    "checkpoint.save_dir=/x: give --output": [RECIPE, "--", "+checkpoint.save_dir=/x"],
    "the mean? give checkpoint.keep_last": [RECIPE, "--", "checkpoint.keep_last_epochs=-1"],
    "--from train comes after --to prepare": [RECIPE, "--from", "train", "--to", "prepare"],
    "is not trained: run the step train first": [RECIPE, "--from", "decode"],
    "no data in EMPTY: give another --data": [RECIPE, "--from", "train", "--data", "EMPTY"],
    "run the step prepare first": [RECIPE, "--from", "train"],
    "run the step back-translate first": ["wmt14_en_fr_bt_admin_36l_12l", "--from", "train"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(main, tmp_path, message):
    arguments = [str(tmp_path / "none") if a == "EMPTY" else a for a in MISTAKES[message]]
    with pytest.raises(script.UserError) as refused:
        main(arguments[0], "--seed", "1", *arguments[1:])
    assert message.replace("EMPTY", str(tmp_path / "none")) in refused.value.message
    assert "\n" not in refused.value.message
    assert not list(tmp_path.iterdir())


def test_one_failed_run_of_a_group_does_not_keep_the_others_back(main, monkeypatch):
    done = []

    def do(self, step):
        if "post_ln" in self.name:
            raise script.UserError("diverged")
        done.append(self.folder.name)

    monkeypatch.setattr(script.Run, "do", do)
    with pytest.raises(
        script.UserError, match="1 of 3 runs failed: iwslt14_de_en_post_ln_6l_seed1"
    ):
        main("iwslt14_de_en", "--seed", "1", "--to", "prepare")
    assert done == [f"iwslt14_de_en_{method}_6l_seed1" for method in ("admin", "pre_ln")]


# One recipe from end to end, straight and with every kind of end in between


def quick(lab):
    """What run.sh starts, from a process that has torch and fairseq imported: see ../forks.py."""
    return [lab.bin / "python", "-W", "ignore", ROOT / "scripts", "recipes.run"]


def spawn(*arguments, start=START):
    """run.sh in a session of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in (*start, *arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process, reached, seconds=200) -> None:
    """Wait until *reached*(); AssertionError where *process* ends before or time is over."""
    end = time.monotonic() + seconds
    while not reached():
        if process.poll() is not None or time.monotonic() > end:
            kill(process)
            pytest.fail(f"ended with {process.returncode}:\n{process.stdout.read()[-4000:]}")
        time.sleep(0.01)


def kill(process) -> None:
    """SIGKILL to the process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture(scope="module")
def straight(lab, workers, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    result = workers.submit(lab.run, [*quick(lab), *SMOKE, "--output", out])
    return SimpleNamespace(out=out, folder=out / FOLDER, result=result)


def test_the_smoke_test_ends_with_a_record(straight):
    output = straight.result.result().ok().output
    record = json.loads((straight.folder / "eval" / "record.json").read_text())
    assert (record["method"], record["layers"], record["updates"]) == ("admin", "2-2", 20)
    assert record["fold"]["same_translations"] == record["sentences"] == 20
    assert "1 processes x 500 tokens x update-freq 2 = 1,000 tokens an update" in output
    assert text(straight.folder / "train.log").count("done training in") == 1


@pytest.mark.slow
def test_a_second_time_nothing_is_done(straight, lab):
    straight.result.result().ok()

    def files():
        paths = (p for p in straight.out.rglob("*") if p.is_file())
        noted = {
            p: p.stat().st_mtime_ns for p in paths if p.name not in ("inputs", "manifest.json")
        }
        return {p: time for p, time in noted.items() if p.parent.name != "sample"}

    before = files()
    run = lab.run([*quick(lab), *SMOKE, "--output", straight.out]).ok()
    assert files() == before
    assert "was trained already" in run.output and "record.json was already there" in run.output


@pytest.fixture
def prepared(straight):
    """Options of a smoke test on the data of the straight one."""
    straight.result.result().ok()
    return [*SMOKE, "--data", straight.out / "data" / "iwslt14_de_en"]


def test_a_folder_of_another_run_is_refused(main, prepared, straight, tmp_path):
    for steps in (["--from", "train"], ["--from", "average"]):
        with pytest.raises(script.UserError, match="was made from another config, code or data"):
            main(*prepared, "--output", straight.out, *steps, "--", "model.dropout=0.2")
    assert "was trained already" in main(
        *prepared, "--output", straight.out, "--from", "train", "--to", "train"
    )


def test_decoding_needs_the_mean(main, prepared, straight, tmp_path):
    for path in straight.folder.iterdir():
        if path.name != "eval":
            (tmp_path / "out" / FOLDER).mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / FOLDER / path.name).symlink_to(path)
    with pytest.raises(script.UserError, match=r"no \S+/eval/mean.pt: start a step earlier"):
        main(*prepared, "--output", tmp_path / "out", "--from", "decode")


@pytest.mark.slow
def test_a_recipe_that_diverges_ends_well_and_says_so(lab, prepared, tmp_path):
    """Two processes under torchrun, which starts none of them again."""
    given = ["--gpus", "2", "--output", tmp_path, "--", "optimization.lr=[1e30]"]
    for _ in range(2):  # the second time nothing is trained
        output = lab.run([*quick(lab), *prepared, *given]).ok().output
        (told,) = re.findall(r"^run: train: (\S+ diverged, known at update \d+.*)", output, re.M)
        record = json.loads((tmp_path / FOLDER / "eval" / "record.json").read_text())
        assert record["outcome"] == "diverged" and record["scores"] is None
        assert f"update {record['known']}:" in told
    log = text(tmp_path / FOLDER / "train.log")
    assert log.count("FloatingPointError: gradients are Nan/Inf") == 2  # of both processes
    assert log.count("Start iterating over samples") == 1 and "was trained already" in output


def test_no_reference_is_told_before_the_training(main, prepared, tmp_path):
    with pytest.raises(script.UserError, match="nothing to score against later"):
        main(*prepared, "--output", tmp_path / "out", "--from", "train", "--subset", "test2")
    assert not (tmp_path / "out" / FOLDER / "train.log").exists()


@pytest.mark.skipif(torch.cuda.device_count() >= 8, reason="there are that many GPUs")
def test_gpus_that_are_not_there_are_told_before_the_training(main, prepared, tmp_path):
    data = ["--data", prepared[-1], "--output", tmp_path]
    with pytest.raises(script.UserError, match=r": 8 GPUs: there are \d here; give fewer --gpus"):
        main(RECIPE, *data, "--seed", "1", "--from", "train", "--gpus", "8", "--max-tokens", "512")


def test_the_mean_is_of_checkpoints_that_there_are():
    def asked(epochs, **checkpoint):
        return recipes.averaged(
            OmegaConf.create({"optimization": epochs, "checkpoint": checkpoint})
        )

    assert asked({"max_epoch": 5}, keep_last_epochs=10) == ["--num-epoch-checkpoints", "5"]
    of_two = {"keep_last_epochs": 10, "save_interval": 20}
    assert asked({"max_epoch": 50}, **of_two) == ["--num-epoch-checkpoints", "2"]
    assert asked({}, keep_last_epochs=10) == ["--num-epoch-checkpoints", "10"]
    of_updates = {"keep_interval_updates": 3, "save_interval_updates": 100}
    of_updates.update(keep_last_epochs=10, no_epoch_checkpoints=True)
    assert asked({}, **of_updates) == ["--num-update-checkpoints", "3"]
    assert asked({"max_update": 250}, **of_updates) == ["--num-update-checkpoints", "2"]
    for none in (
        {"keep_last_epochs": -1},
        {"keep_last_epochs": 10, "no_epoch_checkpoints": True},
        {"keep_last_epochs": 10, "save_interval": 51},
        {"keep_interval_updates": 3},
    ):
        with pytest.raises(script.UserError, match="give checkpoint.keep_last_epochs"):
            asked({"max_epoch": 50}, **none)


def test_a_manifest_tells_whether_text_is_tokens(main, tmp_path):
    (tmp_path / "bin").mkdir()
    steps = dict.fromkeys(("normalize", "moses", "aggressive", "lowercase"), False)
    (tmp_path / "manifest.json").write_text(json.dumps({"corpus": steps}))
    told = [main(RECIPE, "--seed", "1", "--dry-run", *x) for x in ([], ["--data", tmp_path])]
    assert ["--moses" in shown(x).commands["fold"][0] for x in told] == [True, False]
    assert "--remove-bpe" not in "".join(told)  # pieces are told by how they look


@pytest.mark.slow
def test_a_training_whose_launcher_was_killed_goes_on_and_is_started_once(main, prepared, tmp_path):
    arguments = [*prepared, "--output", tmp_path, "--from", "train", "--to", "train"]
    process = spawn(*arguments)
    log = tmp_path / FOLDER / "train.log"
    wait_for(process, log.exists)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)  # run.py alone
    process.wait()
    with pytest.raises(script.UserError, match="a training into .* is running still"):
        main(*arguments)
    end = time.monotonic() + 200
    while "done training in" not in text(log) and time.monotonic() < end:
        time.sleep(0.2)
    assert "was trained already" in main(*arguments)


@pytest.mark.slow
def test_a_training_out_of_time_is_not_finished_and_goes_on(main, prepared, tmp_path):
    """And one that was killed after its last update is not started again."""
    arguments = [*prepared, "--output", tmp_path, "--from", "train", "--to", "train", "--"]
    log, last = tmp_path / FOLDER / "train.log", tmp_path / FOLDER / "checkpoint_last.pt"
    with pytest.raises(script.UserError, match="stopped before its end, .*stop_time") as stopped:
        main(*arguments, "optimization.stop_time_hours=1e-9")
    assert "done training in" in text(log) and "num_updates=20" not in text(log)
    command = str(stopped.value).partition("score what there is: ")[2]
    subprocess.run(f"{command} --to score", shell=True, cwd=ROOT, check=True)
    assert '"bleu"' in text(log.parent / "eval/score.json")
    main(*arguments)
    assert batches(text(log))[20]
    killed = text(log).rpartition("done training in")[0]
    log.write_text(killed)
    (log.parent / "hydra_train.log").unlink(missing_ok=True)
    before = last.stat().st_mtime_ns
    assert "was trained already" in main(*arguments)
    assert text(log) == killed and last.stat().st_mtime_ns == before


def children(pid: int):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def batches(log: str):
    """Tokens an update, by update."""
    found = re.findall(r"train_inner.* wpb=([\d.]+),.* num_updates=(\d+)", log)
    return {int(update): float(tokens) for tokens, update in found}


@pytest.mark.slow
def test_two_ranks_of_which_one_is_killed_come_to_the_same_number_of_updates(
    lab, prepared, straight, tmp_path
):
    process = spawn(*prepared, "--output", tmp_path, "--to", "train", "--gpus", "2")
    log, last = tmp_path / FOLDER / "train.log", tmp_path / FOLDER / "checkpoint_last.pt"
    wait_for(process, last.exists)
    (torchrun,) = children(process.pid)
    workers = children(torchrun)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "2 processes x 500 tokens x update-freq 1 = 1,000 tokens an update" in output
    assert "exitcode: -9" in text(log) or "Signal 9" in text(log)
    assert re.search(r"Loaded checkpoint \S+ \(epoch 1 @ [48] updates\)", text(log))
    states = [lab.load(path) for path in (last, straight.folder / "checkpoint_last.pt")]
    assert [s["optimizer_history"][-1]["num_updates"] for s in states] == [20, 20]
    assert lab.profile_of(states[0]).table() == lab.profile_of(states[1]).table()
    alone = batches(text(straight.folder / "train.log"))
    assert batches(text(log))[20] == alone[20]  # the same sentences an update


@pytest.mark.slow
def test_two_machines_share_a_folder(lab, prepared, workers, tmp_path):
    arguments = [*quick(lab), *prepared, "--output", tmp_path, "--to", "train", "--gpus", "1"]
    arguments += ["--nodes", "2", "--rendezvous", f"localhost:{lab.free_port()}"]
    for run in [workers.submit(lab.run, arguments) for _ in range(2)]:
        assert "2 processes x 500 tokens x update-freq 1" in run.result().ok().output
    assert batches(text(tmp_path / FOLDER / "train.log"))[20]
    assert {p.name for p in (tmp_path / FOLDER).glob("machine*.log")} == {
        "machine1.log",
        "machine2.log",
    }


@pytest.mark.slow
def test_a_job_of_submitit_trains(main, prepared, monkeypatch, tmp_path):
    """hydra's launcher with a process in place of SLURM, which knows fewer options."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    slurm, only_slurm = script.Launch.slurm, ("max_num_timeout", "setup", "additional_parameters")

    def local(self):
        words = [w.replace("submitit_slurm", "submitit_local") for w in slurm(self)]
        return [w for w in words if not any(f"launcher.{k}" in w for k in only_slurm)]

    monkeypatch.setattr(script.Launch, "slurm", local)
    given = list(recipes.SMOKE)
    given += ["model.encoder_layers=2", "model.decoder_layers=2", "common.cpu=true"]
    arguments = [w for w in prepared if w != "--smoke"] + ["--output", tmp_path, "--gpus", "1"]
    arguments += ["--from", "train", "--to", "train", "--slurm", "timeout_min=9", "gpus_per_node=0"]
    arguments += ["--", *given, "common.fp16=false"]
    main(*arguments)
    folder = tmp_path / FOLDER
    assert (folder / "checkpoint2.pt").exists()
    assert batches(text(folder / "train.log"))[20]
    assert "was trained already" in main(*arguments)
