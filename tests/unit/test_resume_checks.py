"""What a training goes on from, and what it cannot go on from."""

import logging
import shutil
import zipfile
from argparse import Namespace
from contextlib import suppress
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_admin.errors import UserError
from fairseq_admin.resume_checks import check_method, check_options
from tests.helpers import (
    TINY,
    build,
    built,
    checkpoint_of,
    cut,
    model_config,
    omegas_of,
    randomized,
    task_config,
    task_of,
)


def saved_in(folder, name="checkpoint_last.pt", updates=7, epoch=3):
    """A checkpoint of a tiny model as fairseq saves it, after *updates*."""
    folder.mkdir(exist_ok=True)
    model, cfg = randomized()
    history = [{"num_updates": updates}]
    iterator = {"epoch": epoch, "iterations_in_epoch": 0}
    state = checkpoint_of(model, cfg, optimizer_history=history, last_optimizer_state={})
    torch.save({**state, "extra_state": {"train_iterator": iterator}}, folder / name)
    return folder / name


PLACES = {  # options `checkpoint` of a training that restores a checkpoint
    "resume": {"save_dir": "{folder}"},
    "restore-file": {"save_dir": "{other}", "restore_file": "{folder}/checkpoint_last.pt"},
    "finetune": {"save_dir": "{other}", "finetune_from_model": "{folder}/checkpoint_last.pt"},
    "continue once": {"save_dir": "{other}", "continue_once": "{folder}/checkpoint_last.pt"},
    "finetuning goes on": {"save_dir": "{folder}", "finetune_from_model": "{other}/none.pt"},
    "suffix": {"save_dir": "{suffixed}", "checkpoint_suffix": "-a"},
}


def options_of(case, tmp_path):
    names = {name: tmp_path / name for name in ("folder", "other", "suffixed")}
    return {f"checkpoint.{k}": v.format(**names) for k, v in PLACES[case].items()}


def resumed(path, task_state=None, **weights):
    """Change the checkpoint *path*."""
    state = torch.load(path, weights_only=False)
    state["task_state"] = task_state or {}
    state["model"].update(weights)
    torch.save(state, path)


def test_a_checkpoint_of_fairseqs_own_transformer_is_compared_by_its_options(corpus, tmp_path):
    """Without the decoder's last norm its weights do not tell Pre-LN from Post-LN."""
    given = {**TINY, "decoder_normalize_before": True, "no_decoder_final_norm": True}
    model = build("transformer", **given)
    state = checkpoint_of(model, model_config("transformer_admin", **TINY))
    state["cfg"]["model"] = {"_name": "transformer", **given}
    torch.save(state, tmp_path / "checkpoint_last.pt")
    where = {"checkpoint.save_dir": str(tmp_path), "optimization.max_update": 1}
    with pytest.raises(UserError, match="method Post-LN/Pre-LN, the model of Post-LN: give"):
        built(corpus, model={"residual": "post-ln", "no_decoder_final_norm": True}, **where)


@pytest.mark.parametrize("case", ["resume", "restore-file", "finetune"])
@pytest.mark.parametrize("residual", ["post-ln", "deepnorm", "analytic"])
def test_a_checkpoint_of_another_method_is_named(corpus, tmp_path, residual, case):
    """Also where its weights look alike, and before anything is built."""
    path = saved_in(tmp_path / "folder")
    remedy = "another --save-dir" if case == "resume" else "another checkpoint"
    told = f"{path} is of the residual method Admin, .*: give --residual admin, or {remedy}$"
    with pytest.raises(UserError, match=told) as error:
        built(corpus, model={"residual": residual}, **options_of(case, tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["resume", "restore-file", "finetune"])
def test_a_checkpoint_that_was_never_profiled_is_named(corpus, tmp_path, case):
    """As of a start with --task translation: else its omegas would be 1 without a word."""
    path = saved_in(tmp_path / "folder")
    omegas = {name: x for name, x in build().state_dict().items() if name.endswith(".omega")}
    resumed(path, **omegas)
    with pytest.raises(UserError, match=f"{path} was not profiled, .*give another "):
        built(corpus, **options_of(case, tmp_path))
    resumed(path, {"profile": {}}, **omegas)  # which may be 1
    built(corpus, **options_of(case, tmp_path))


@pytest.mark.parametrize("case", ["resume", "finetune"])
@pytest.mark.parametrize("learned", [True, False])
def test_a_first_omega_stays_trained_or_constant(corpus, tmp_path, learned, case):
    path = saved_in(tmp_path / "folder")
    state = torch.load(path, weights_only=False)
    state["cfg"]["model"]["learn_first_omega"] = learned
    torch.save(state, path)
    told = f"{path} was trained {'with' if learned else 'without'} --learn-first-omega: "
    with pytest.raises(UserError, match=told):
        built(corpus, model={"learn_first_omega": not learned}, **options_of(case, tmp_path))


def test_an_architecture_of_ones_own_need_not_name_every_option():
    """A namespace, of which fairseq's registration leaves defaults out."""
    state = {"cfg": {"model": {"_name": "transformer_admin", "residual": "admin"}}}
    check_method(state, Namespace(residual="admin"), "checkpoint_last.pt", "--save-dir")


def test_a_checkpoint_of_another_text_is_named(corpus, tmp_path):
    """Dictionaries of as many symbols fit its embeddings, and languages nothing tells."""
    path = saved_in(tmp_path / "folder")
    text = task_of(corpus).state_dict()["text"]
    assert text["languages"] == ["de", "en"]
    again, tuned = options_of("resume", tmp_path), options_of("finetune", tmp_path)
    resumed(path, {"text": {**text, "languages": ["en", "de"]}})
    with pytest.raises(UserError, match="translates en to de, and this training is of de to en: "):
        built(corpus, **again)
    built(corpus, **tuned)
    resumed(path, {"text": {**text, "dictionaries": text["dictionaries"][:1] + ["other"]}})
    for given in (again, tuned):
        with pytest.raises(UserError, match=f"{path} was trained with other dictionaries"):
            built(corpus, **given)
    resumed(path, {"text": text})
    built(corpus, **again)


def test_batches_that_an_epoch_does_not_go_on_with_are_told(corpus, tmp_path, caplog):
    """fairseq counts batches of a process: of others as many are another text."""
    path = saved_in(tmp_path)
    state = torch.load(path)
    state["cfg"]["distributed_training"] = {"distributed_world_size": 2}
    state["cfg"]["dataset"] = {"required_batch_size_multiple": 4, "train_subset": "train1"}
    state["cfg"]["common"] = {"seed": 5}
    for begun in (0, 3):
        state["extra_state"]["train_iterator"]["iterations_in_epoch"] = begun
        torch.save(state, path)
        built(corpus, **{"checkpoint.save_dir": str(tmp_path)})
        told = [x.partition("an epoch of ")[2] for x in caplog.text.splitlines() if "an epoch" in x]
        assert [x.partition(": text of that epoch")[0] for x in told] == begun // 3 * [
            "distributed_world_size 2, which is 1 now",
            "required_batch_size_multiple 4, which is 8 now",
            "train_subset train1, which is train now",
            "seed 5, which is 1 now",
        ]


OTHERWISE = {"encoder_attention_heads": 4, "no_scale_embedding": True, "activation_fn": "gelu"}


@pytest.mark.parametrize("case", ["resume", "restore-file", "finetune"])
def test_a_model_that_computes_something_else_is_named(corpus, tmp_path, case):
    """Its weights fit, whatever the options are."""
    path, given = saved_in(tmp_path / "folder"), options_of(case, tmp_path)
    for name, now in OTHERWISE.items():
        told = f"{path}: {name} was .* and is {now} now: give the options of its training"
        with pytest.raises(UserError, match=told):
            built(corpus, model={name: now}, **given)
    state = torch.load(path)
    for name in OTHERWISE:
        del state["cfg"]["model"][name]
    torch.save(state, path)
    built(corpus, model=OTHERWISE, **given)  # of a release that has no such options


def of_training(**options):
    """A task's options among those of a training by adam; a checkpoint of such a one; the model."""
    given = {"optimizer._name": "adam", "criterion._name": "cross_entropy", **options}
    model, cfg = randomized()
    given = {"lr_scheduler._name": "fixed", **given}
    root = task_config(**given)._get_root()
    state = checkpoint_of(model, cfg, last_optimizer_state={}, extra_state={"best": 5.0})
    state["optimizer_history"][-1]["lr_scheduler_state"] = {"lr": 0.1}
    names = ("checkpoint", "optimizer", "criterion", "lr_scheduler")
    state["cfg"].update({n: OmegaConf.to_container(root[n], enum_to_str=True) for n in names})
    return root.task, state, cfg


CHANGED = {  # an option as it is now, and those that make good for it
    "checkpoint.best_checkpoint_metric": ("ppl", ["reset_meters", "reset_optimizer"]),
    "checkpoint.maximize_best_checkpoint_metric": (True, ["reset_meters", "reset_optimizer"]),
    "optimizer._name": ("radam", ["reset_optimizer"]),
    "criterion._name": ("label_smoothed_cross_entropy", ["reset_optimizer"]),
    "lr_scheduler._name": ("inverse_sqrt", ["reset_lr_scheduler", "reset_optimizer"]),
    "share_all_embeddings": (True, ["reset_optimizer"]),
    "share_decoder_input_output_embed": (True, ["reset_optimizer"]),
}


@pytest.mark.parametrize("option", CHANGED)
def test_what_a_training_must_keep_is_named_with_what_makes_good_for_it(option):
    now, resets = CHANGED[option]
    _, state, model = of_training()
    given = {option: now} if "." in option else {}
    model = model_config("transformer_admin", **TINY, **({} if given else {option: now}))
    check = partial(check_options, state, model=model, path="last.pt")
    name = option.removesuffix("._name").rpartition(".")[2]
    with pytest.raises(UserError, match=f"^fairseq_admin: last.pt: {name} was .* --reset") as error:
        check(of_training(**given)[0], goes_on=True)
    assert f" is {now} now: " in str(error.value) and "\n" not in str(error.value)
    for reset in resets:
        check(of_training(**given, **{f"checkpoint.{reset}": True})[0], goes_on=True)
    check(of_training(**given)[0], goes_on=False)  # weights alone


def test_what_a_training_may_have_otherwise():
    """Where a checkpoint serves both: of adam_fused, of a schedule that asks for no best loss, of
    no best measure; and embeddings that all are tied are the decoder's too."""
    task, state, model = of_training(**{"optimizer._name": "adam_fused"})
    check_options(state, of_training()[0], model, "last.pt", True)
    check_options(state, of_training(**{"lr_scheduler._name": "manual"})[0], model, "last.pt", True)
    state["optimizer_history"][-1]["lr_scheduler_state"] = {"best": None}
    given = {"lr_scheduler._name": "cosine", "checkpoint.best_checkpoint_metric": "ppl"}
    del state["extra_state"]["best"]
    check_options(state, of_training(**given)[0], model, "last.pt", True)
    state["cfg"]["model"].update(share_all_embeddings=True)
    both = {"share_all_embeddings": True, "share_decoder_input_output_embed": True}
    model = model_config("transformer_admin", **TINY, **both)
    check_options(state, task, model, "last.pt", True)


def test_options_in_one_namespace_are_compared_too():
    """Those of fairseq's tasks and checkpoints of the time before hydra."""
    resets = dict.fromkeys(("reset_optimizer", "reset_lr_scheduler", "reset_meters"), False)
    saved = Namespace(optimizer="adam", encoder_attention_heads=2, **resets)
    now = Namespace(optimizer="sgd", encoder_attention_heads=2, **resets)
    state = {"args": saved, "cfg": None, "last_optimizer_state": {}}
    check_options(state, saved, saved, "last.pt", True)
    with pytest.raises(UserError, match="optimizer was adam and is sgd now"):
        check_options(state, now, now, "last.pt", True)
    now.encoder_attention_heads = 4
    with pytest.raises(UserError, match="encoder_attention_heads was 2 and is 4 now"):
        check_options(state, now, now, "last.pt", False)


FORKS = ("encoder.layers.0.attention_ratio_change", "decoder.layers.1.residual_cross.omega")


@pytest.mark.parametrize("key", FORKS)
def test_a_checkpoint_of_a_fork_is_no_post_ln(key):
    """Its architecture is called `transformer`."""
    state = {"cfg": {"model": {"_name": "transformer"}}, "model": {key: torch.ones(2)}}
    with pytest.raises(UserError, match="last.pt is of a fork of fairseq that scales shortcuts"):
        check_method(state, Namespace(residual="admin"), "last.pt", "--save-dir")


@pytest.mark.parametrize("case", PLACES)
def test_where_a_checkpoint_is_restored_nothing_is_profiled(corpus, tmp_path, caplog, case):
    """And no omega file is read: it may be gone. The log names no omegas that are not in force."""
    given = {**options_of(case, tmp_path), "omega_file": "gone", "profile_tokens": 0}
    with pytest.raises(UserError, match="such file|omega file"):
        built(corpus, **given)
    saved_in(tmp_path / "folder")
    saved_in(tmp_path / "suffixed", "checkpoint_last-a.pt")
    with caplog.at_level(logging.INFO):
        model, task, _ = built(corpus, **given)
    assert omegas_of(model) == [1.0] * 10
    assert "profile" not in task.state_dict()
    assert "nothing is profiled" in caplog.text and "branch variance" not in caplog.text


@pytest.mark.parametrize("restore", ["none.pt", "checkpoint_best.pt"])
def test_a_checkpoint_that_is_not_there_is_no_new_training(corpus, tmp_path, restore):
    """Whose checkpoints would replace those of the one that was meant."""
    given = {"checkpoint.save_dir": str(tmp_path), "checkpoint.restore_file": restore}
    with pytest.raises(UserError, match=f"--restore-file {restore}: no such file; leave it out"):
        built(corpus, **given)


def test_the_last_checkpoint_may_be_named_before_there_is_one(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"checkpoint.save_dir": "run", "checkpoint.restore_file": "./run/checkpoint_last.pt"}
    assert omegas_of(built(corpus, **given)[0])[1] > 1


def test_checkpoints_of_another_training_are_not_written_over(corpus, tmp_path):
    path, given = saved_in(tmp_path, "checkpoint_1_7.pt"), {"checkpoint.save_dir": str(tmp_path)}
    told = f"{tmp_path} holds checkpoints of a training: .* one of them .{path}., or"
    with pytest.raises(UserError, match=told):
        built(corpus, **given)
    pretrained = shutil.copy(path, tmp_path / "pretrained.pt")
    with pytest.raises(UserError, match=told):
        built(corpus, **given, **{"checkpoint.finetune_from_model": pretrained})
    built(corpus, **given, **{"checkpoint.restore_file": str(path)})
    built(corpus, **given, **{"checkpoint.no_save": True})
    cut(path)
    built(corpus, **given)  # of a training that was killed at its first one


FINISHED = {  # what the training is to come to, and whether 7 updates of 2 epochs are all of it
    "updates": ({"max_update": 7}, True),
    "more updates": ({"max_update": 8}, False),
    "epochs": ({"max_epoch": 2}, True),
    "more epochs": ({"max_epoch": 3}, False),
    "both, the updates first": ({"max_update": 7, "max_epoch": 9}, True),
    "no limit": ({}, False),
}


@pytest.mark.parametrize("case", FINISHED)
def test_a_finished_training_ends_before_it_begins(corpus, tmp_path, caplog, case):
    path = saved_in(tmp_path)
    limits, finished = FINISHED[case]
    given = {f"optimization.{name}": value for name, value in limits.items()}
    before = path.read_bytes()
    if not finished:
        built(corpus, **given, **{"checkpoint.save_dir": str(tmp_path)})
        return
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as ended:
        built(corpus, **given, **{"checkpoint.save_dir": str(tmp_path)})
    assert ended.value.code == 0 and path.read_bytes() == before
    told = [r.getMessage() for r in caplog.records if "finished already" in r.getMessage()]
    assert told == [f"training is finished already, by {path}: nothing to do"]
    new = {"reset_optimizer": True, "reset_dataloader": True}  # its weights alone
    for name, value in {**new, "save_dir": str(tmp_path)}.items():
        given[f"checkpoint.{name}"] = value
    built(corpus, **given)


def test_a_torn_last_checkpoint_is_mended_before_fairseq_reads_it(corpus, tmp_path, caplog):
    saved_in(tmp_path, "checkpoint_1_7.pt")
    last = saved_in(tmp_path, updates=9)
    cut(last)
    built(corpus, **{"checkpoint.save_dir": str(tmp_path)})
    assert last.read_bytes() == (tmp_path / "checkpoint_1_7.pt").read_bytes()
    assert f"{last} was cut off" in caplog.text


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
@pytest.mark.parametrize("case", ["resume", "restore-file", "finetune"])
def test_a_torn_checkpoint_is_named_and_kept(corpus, tmp_path, case, share):
    path = saved_in(tmp_path / "folder")
    cut(path, share)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{path} is cut off") as error:
        built(corpus, **options_of(case, tmp_path))
    assert "\n" not in str(error.value) and path.read_bytes() == before


@pytest.mark.parametrize("case", ["resume", "restore-file", "finetune"])
def test_damage_within_a_checkpoint_is_named(corpus, tmp_path, case):
    """Its weights would be trained on, and the next checkpoint have checksums that are right."""
    path = saved_in(tmp_path / "folder")
    data = path.read_bytes()
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda info: info.file_size)
    weights = zipfile.ZipFile(path).read(largest)
    path.write_bytes(data.replace(weights, weights[:99] + bytes([weights[99] ^ 1]) + weights[100:]))
    with pytest.raises(UserError, match=f"cannot read {path}: .*its checksum"):
        built(corpus, **options_of(case, tmp_path))


def test_a_file_that_is_no_checkpoint_is_named(corpus, tmp_path):
    path = tmp_path / "checkpoint_last.pt"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("something", "else")
    with pytest.raises(UserError, match=f"cannot read {path}: ") as error:
        built(corpus, **{"checkpoint.save_dir": str(tmp_path)})
    assert "\n" not in str(error.value)


def test_a_file_of_something_else_is_named(corpus, tmp_path):
    path = tmp_path / "checkpoint_last.pt"
    torch.save([1], path)
    with pytest.raises(UserError, match=f"{path} is no checkpoint of fairseq"):
        built(corpus, **{"checkpoint.save_dir": str(tmp_path)})


def test_a_crash_knows_no_epoch_and_may_be_restored(corpus, tmp_path):
    path = saved_in(tmp_path / "folder", "crash.pt")
    state = torch.load(path, weights_only=True)
    torch.save({**state, "extra_state": {"metrics": {}}}, path)
    given = {"checkpoint.save_dir": str(tmp_path), "checkpoint.restore_file": str(path)}
    built(corpus, **given)


ODD = {
    "optimizer_history": [5, [], {}, [5], [{"lr_scheduler_state": 5}], "x"],
    "extra_state": [5, [], {}, {"train_iterator": 5}],
    "cfg": [5, {}, {"model": 5}, {"checkpoint": 5, "optimizer": []}],
}


@pytest.mark.parametrize("entry, value", [(name, x) for name, xs in ODD.items() for x in xs])
def test_entries_of_other_types_are_one_line(corpus, tmp_path, entry, value):
    path = saved_in(tmp_path)
    torch.save({**torch.load(path, weights_only=False), entry: value}, path)
    with suppress(UserError):
        built(corpus, **{"checkpoint.save_dir": str(tmp_path)})
