"""configs/: every file is valid, says what it is for, and compares what it claims to."""

import csv
import re
import shlex
import shutil
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fairseq_admin.errors import UserError
from recipes import configs
from recipes.configs import load_config, merged
from recipes.recipes import load_recipes
from recipes.training import Training
from studies.study import known_studies, load_study

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
OTHERS = [name for name in CONFIGS if name not in load_recipes()]
BASES = sorted(path.stem for path in FOLDER.glob("base/*.yaml"))
STATED = Path(__file__).resolve().parents[1] / "configs.csv"
PATHS = ["task.data=/data", "checkpoint.save_dir=/run", "common.user_dir=/plugin"]
TINY = ["model.encoder_layers=2", "model.decoder_layers=2", "model.encoder_embed_dim=32"]
TINY += ["model.encoder_ffn_embed_dim=64", "optimization.max_update=2"]


def residual(method):
    """The option that says which method a model has."""
    return [f"model.residual={method}"]


def layers(encoder, decoder):
    """The options that say how deep a model is."""
    return [f"model.encoder_layers={encoder}", f"model.decoder_layers={decoder}"]


def batch(world, max_tokens, update_freq):
    """The options that say how much goes into an update."""
    return [
        f"distributed_training.distributed_world_size={world}",
        f"dataset.max_tokens={max_tokens}",
        f"optimization.update_freq=[{update_freq}]",
    ]


# two configs, and the options that one has and the other has not
COMPARISONS = [
    ("wmt14_en_de_admin_6l", "wmt14_en_de_admin_12l", layers(6, 6), layers(12, 12)),
    ("wmt14_en_de_admin_12l", "wmt14_en_de_admin_18l", layers(12, 12), layers(18, 18)),
    (
        "wmt14_en_de_admin_18l",
        "wmt14_en_de_admin_60l_12l",
        [*batch(4, 8192, 1)[:2], *layers(18, 18)],
        [*batch(8, 4096, 1)[:2], *layers(60, 12)],
    ),
    ("wmt14_en_de_admin_60l_12l", "wmt14_en_de_admin_100l", layers(60, 12), layers(100, 100)),
    (
        "wmt14_en_fr_admin_6l",
        "wmt14_en_fr_admin_60l_12l",
        [*batch(8, 8000, 10), *layers(6, 6)],
        [*batch(16, 5000, 16), *layers(60, 12)],
    ),
    (
        "wmt14_en_fr_admin_6l",
        "wmt14_fr_en_admin_6l",
        ["task.source_lang=en", "task.target_lang=fr"],
        ["task.source_lang=fr", "task.target_lang=en"],
    ),
    (
        "wmt14_en_fr_admin_60l_12l",
        "wmt14_en_fr_bt_admin_36l_12l",
        [
            "model.encoder_layers=60",
            "model.encoder_embed_dim=512",
            "model.encoder_ffn_embed_dim=2048",
            "model.encoder_attention_heads=8",
            "model.decoder_attention_heads=8",
        ],
        [
            "task.upsample_primary=2",
            "model.encoder_layers=36",
            "model.encoder_embed_dim=768",
            "model.encoder_ffn_embed_dim=3072",
            "model.encoder_attention_heads=12",
            "model.decoder_attention_heads=12",
        ],
    ),
]
OLD, NEW = ["post-ln", "pre-ln"], ["analytic", "deepnorm", "rezero", "keel"]
for model_, methods_ in {  # what Admin is compared with
    "demo_{}": OLD[:1],
    "iwslt14_de_en_{}_6l": OLD + NEW,
    "wmt14_en_de_{}_6l": OLD,
    "wmt14_en_de_{}_12l": OLD,
    "wmt14_en_de_{}_18l": [*OLD, "post-ln/pre-ln", *NEW],
    "wmt14_en_fr_{}_6l": OLD,
    "wmt14_en_fr_{}_60l_12l": OLD,
}.items():
    for method_ in methods_:
        names_ = (model_.format(re.sub("[-/]", "_", m)) for m in ("admin", method_))
        COMPARISONS.append((*names_, residual("admin"), residual(method_)))


@lru_cache(maxsize=None)  # a second each
def composed(name, folder=FOLDER):
    """The config as `fairseq-hydra-train` composes it; raises for an unknown key or a bad value."""
    GlobalHydra.instance().clear()
    hydra_init(name)
    with initialize_config_dir(str(folder), version_base="1.1"):
        cfg = compose(name, overrides=PATHS)
    add_defaults(cfg)
    return cfg


def settings(name):
    """What a config and its bases say, `group.option=value`."""
    groups = OmegaConf.to_container(load_config(name))
    return {f"{g}.{key}={value}" for g, options in groups.items() for key, value in options.items()}


def in_copy(tmp_path, name, change):
    """A copy of configs/ in which the text of the file *name* is changed."""
    folder = tmp_path / "configs"
    shutil.copytree(FOLDER, folder)
    path = folder / f"{name}.yaml"
    path.write_text(change(path.read_text()))
    return folder


def said(name, overrides):
    """What the files say over fairseq's defaults."""
    config = OmegaConf.merge(
        OmegaConf.structured(FairseqConfig), load_config(name), OmegaConf.from_dotlist(overrides)
    )
    add_defaults(config)
    return config


@pytest.mark.parametrize("name", OTHERS)
def test_what_hydra_composes_is_what_the_files_say_over_fairseqs_defaults(name):
    """`load_config`, of which the launcher and the costs are, follows `defaults:` as hydra does,
    and every key is known. The recipes: test_run.py."""
    assert said(name, PATHS) == composed(name)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_decoder_is_deeper_and_there_is_one_rate(name):
    config = load_config(name)
    assert config.model.encoder_layers >= config.model.decoder_layers
    assert len(config.optimization.lr) == 1


NO_CONFIG = {
    "no YAML": b"a: [1",
    "Latin-1": "a: \u00fc".encode("latin-1"),
    "a list": b"- a",
    "of no such base": b"defaults: [base/nothing, _self_]",
}


@pytest.mark.parametrize("case", NO_CONFIG)
def test_a_damaged_config_is_one_line(case, tmp_path, monkeypatch):
    folder = in_copy(tmp_path, "demo_admin", lambda text: text)
    (folder / "demo_admin.yaml").write_bytes(NO_CONFIG[case])
    monkeypatch.setattr(configs, "CONFIGS", folder)
    with pytest.raises(UserError, match=r"(demo_admin|nothing).yaml is no config: ") as told:
        load_config("demo_admin")
    assert "\n" not in told.value.message


@pytest.mark.parametrize("group", ["common", "model"])
def test_a_misspelt_key_is_an_error(group, tmp_path):
    """What the test of what hydra composes relies on."""
    folder = in_copy(
        tmp_path,
        "base/cpu",
        lambda text: text.replace(f"\n{group}:\n", f"\n{group}:\n  no_such_key: 1\n"),
    )
    with pytest.raises(Exception, match="no_such_key|Error merging"):
        composed("demo_admin", folder)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_what_is_written_down_for_it(name):
    with open(STATED, encoding="utf-8", newline="") as f:
        rows = [
            r for r in csv.DictReader(f) if any(fnmatchcase(name, p) for p in r["configs"].split())
        ]
    written = [f"{row['option']}={row['value']}" for row in rows]
    assert settings(name) == set(written) and len(written) == len(set(written))


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_two_header_lines_its_seed_and_no_machine_path(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    first, second, third = text.splitlines()[:3]
    assert first.startswith("# ") and second.startswith("# ") and not third.startswith("#")
    assert re.search(rf"\b{name}\b", second), "the second line launches another config"
    assert len(text.splitlines()) <= 12
    config = load_config(name)
    assert isinstance(config.common.seed, int)
    assert not re.search(r"(^|[\s='\"])(/|~)\w", text, flags=re.MULTILINE)
    for option in ("task.data", "checkpoint.save_dir", "common.user_dir"):
        assert f"{option}=???" in settings(name), "given by override"


@pytest.mark.parametrize("name", BASES)
def test_a_base_is_of_a_config_and_has_no_machine_path(name):
    text = (FOLDER / "base" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    assert not re.search(r"(^|[\s='\"])(/|~)\w", text, flags=re.MULTILINE)
    others = [path for path in FOLDER.rglob("*.yaml") if path.stem != name]
    assert any(re.search(rf"^defaults: .*\b{name}[],]", p.read_text(), re.M) for p in others)
    with pytest.raises(UserError, match=f"no config base/{name}"):
        load_config(f"base/{name}")


def test_a_base_wins_over_the_config_so_that_an_option_in_both_is_an_error(tmp_path):
    folder = in_copy(tmp_path, "demo_admin", lambda text: text + "  dropout: 0.3\n")
    assert composed("demo_admin", folder).model.dropout == 0.0
    with pytest.raises(UserError, match="an option that a base of it says too"):
        merged(folder / "demo_admin.yaml")


def test_a_training_is_of_all_files_of_its_config(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("{}")

    def inputs(folder):
        monkeypatch.setattr(configs, "CONFIGS", folder)
        return Training("demo_admin", tmp_path, tmp_path).inputs()

    changes = {
        "nothing": lambda text: text,
        "comment": lambda text: text.replace("  # updates", ""),
        "option": lambda text: text.replace("log_interval: 20", "log_interval: 21"),
    }
    found = {k: inputs(in_copy(tmp_path / k, "base/demo", change)) for k, change in changes.items()}
    assert found["nothing"] == found["comment"] == inputs(FOLDER) != found["option"]


@pytest.mark.parametrize("left,right,only_left,only_right", COMPARISONS)
def test_conditions_of_a_comparison_differ_in_what_is_compared(left, right, only_left, only_right):
    assert settings(left) - settings(right) == set(only_left)
    assert settings(right) - settings(left) == set(only_right)


def test_every_config_stands_in_a_comparison():
    compared = {name for pair in COMPARISONS for name in pair[:2]}
    studied = {name for study in known_studies() for name in load_study(study).conditions}
    assert compared | studied == set(CONFIGS)


def test_a_training_is_of_the_method_of_its_overrides(tmp_path):
    def training_of(*overrides):
        return Training("demo_admin", tmp_path, tmp_path, overrides)

    assert training_of().method == "admin"
    for method in ("keel", "post-ln/pre-ln"):
        changed = training_of(f"model.residual={method}")
        assert changed.method == changed.composed().model.residual == method
    with pytest.raises(UserError, match="--residual layerscale: give one of admin, "):
        training_of("model.residual=layerscale")


def variants():
    """Name and overrides of the commands that docs/recipes.md gives for other optimizers and
    schedules."""
    text = (FOLDER.parent / "docs" / "recipes.md").read_text(encoding="utf-8").replace("\\\n", "")
    for line in re.findall(r"^(?:fairseq-hydra-train|bash scripts/run.sh) .*", text, re.MULTILINE):
        words = shlex.split(line)
        overrides = [w for w in words if re.match(r"[+~]?(optimi|lr_sch)", w)]
        if overrides:
            yield next(w for w in words if w in CONFIGS), overrides


@pytest.mark.parametrize("name,overrides", variants())
def test_variants_of_the_docs_compose_and_build(name, overrides, tmp_path):
    cfg = Training(name, tmp_path, tmp_path).composed(overrides)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(cfg.optimizer, [weight])
    schedule = build_lr_scheduler(cfg.lr_scheduler, optimizer)
    (lr,), last = cfg.optimization.lr, cfg.optimization.max_update
    rates = [schedule.step_update(update) for update in (1, last // 2, last)]
    if "optimizer._name=sgd" in overrides:
        assert isinstance(optimizer.optimizer, torch.optim.SGD)
        assert optimizer.optimizer.param_groups[0]["momentum"] == 0.9
    if "lr_scheduler._name=polynomial_decay" in overrides:
        assert rates == pytest.approx([lr, lr / 2, 0], rel=1e-3)  # no warmup, then a line to 0
    else:
        assert rates[0] < lr


def test_the_docs_have_both_variants():
    told = [" ".join(overrides) for _, overrides in variants()]
    for word in ("optimizer._name=sgd", "lr_scheduler._name=polynomial_decay"):
        assert [overrides for overrides in told if word in overrides], word


@pytest.fixture
def train(corpus, lab, tmp_path):
    """Trains a config with overrides, two updates into tmp_path/run."""

    def run(name, overrides):
        command = [lab.bin / "fairseq-hydra-train", "--config-dir", FOLDER, "--config-name", name]
        command += [f"task.data={corpus}", f"checkpoint.save_dir={tmp_path}/run"]
        command += [f"common.user_dir={lab.plugin}"]
        command += ["common.log_format=json", "common.log_interval=1"]
        return lab.run([*command, *TINY, *overrides], cwd=tmp_path).ok()

    return run


def test_a_method_without_profile_trains_by_sgd(train):
    """A line of the docs."""
    name, overrides = next(v for v in variants() if "optimizer._name=sgd" in v[1])
    assert load_config(name).model.residual == "post-ln"
    run = train(name, [*overrides, "common.fp16=false", "common.cpu=true"])
    assert set(run.losses()) == {1, 2} and run.table() is None


def test_hydra_train_trains(train, lab, tmp_path):
    run = train("demo_admin", [])
    assert set(run.losses()) == {1, 2}
    assert all(loss < 9 for loss in run.losses().values())  # bits; uniform is 6
    state = lab.load(tmp_path / "run" / "checkpoint_last.pt")
    profile = lab.profiled(lab.profile_of(state))
    assert run.table() == lab.profile_of(state).table()
    for name, omega in lab.omegas(state["model"]).items():
        assert (omega - profile[name]).abs().max() < 3e-5, name  # two updates of at most 1e-5


@pytest.mark.slow  # three starts of hydra
def test_a_sweep_does_not_end_well_with_the_first_training_that_does(train, tmp_path):
    two = ["hydra.sweep.dir=sweep", "model.dropout=0.1,0.2", "-m"]
    train("demo_admin", [])
    with pytest.raises(AssertionError, match="fairseq_admin: the sweep ends here, with a training"):
        train("demo_admin", two)  # into the folder of one that is finished
    train("demo_admin", ["checkpoint.save_dir=.", "common.suppress_crashes=true", *two])
    assert len(list((tmp_path / "sweep").glob("*/checkpoint_last.pt"))) == 2


def test_bf16_goes_on_from_rounded_weights_and_decodes(train, lab, corpus, tmp_path):
    """fairseq's checkpoints hold the fp32 moments, not the fp32 weights that Adam adds to."""
    bf16 = ["common.bf16=true", "optimization.max_update=4", "checkpoint.save_interval_updates=2"]
    whole = train("demo_admin", bf16)
    (half,) = (tmp_path / "run").glob("checkpoint_*_2.pt")
    folder = tmp_path / "rest"
    again = [f"checkpoint.restore_file={half}", f"checkpoint.save_dir={folder}"]
    rest = train("demo_admin", [*bf16, *again])
    assert rest.losses()[3] == whole.losses()[3] and rest.losses().keys() == {3, 4}
    states = [lab.load(path) for path in (half, tmp_path / "run/checkpoint_last.pt")]
    states.append(lab.load(folder / "checkpoint_last.pt"))
    assert states[0]["last_optimizer_state"]["state"][0]["exp_avg"].dtype == torch.float32
    _, straight, resumed = (state["model"] for state in states)
    weight = straight["encoder.layers.1.fc1.weight"]  # saved as fp32
    assert torch.equal(weight.bfloat16().float(), weight) and whole.table()
    assert not lab.same_tensors(resumed, straight)
    for name, weight in straight.items():
        torch.testing.assert_close(resumed[name], weight, rtol=2**-7, atol=1e-4)

    command = [lab.bin / "fairseq-generate", corpus, "-s", "de", "-t", "en", "--cpu"]
    command += ["--user-dir", lab.plugin, "--path", folder / "checkpoint_last.pt"]
    output = lab.run([*command, "--max-len-b", "10"], cwd=tmp_path).ok().output
    assert len(re.findall(r"^H-\d+", output, flags=re.MULTILINE)) == 24  # 8 a batch
