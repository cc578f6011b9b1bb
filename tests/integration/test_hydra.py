"""configs/: every file is valid, says what it is for, and compares what it claims to."""

import re
from difflib import unified_diff
from pathlib import Path

import pytest
from fairseq.dataclass.initialize import add_defaults, hydra_init
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PATHS = ["task.data=/data", "checkpoint.save_dir=/run", "common.user_dir=/plugin"]
TINY = ["model.encoder_layers=2", "model.decoder_layers=2", "model.encoder_embed_dim=32"]
TINY += ["model.encoder_ffn_embed_dim=64", "optimization.max_update=2"]

ADMIN = ["_name: translation_admin", "_name: transformer_admin"]
STOCK = ["_name: translation", "_name: transformer"]
ENCODER, DECODER = (f"{stack}_normalize_before: true" for stack in ("encoder", "decoder"))


def layers(encoder, decoder):
    """The lines that say how deep a model is."""
    return [f"encoder_layers: {encoder}", f"decoder_layers: {decoder}"]


def batch(world, max_tokens, update_freq):
    """The lines that say how much goes into an update."""
    return [
        f"distributed_world_size: {world}",
        f"max_tokens: {max_tokens}",
        f"update_freq: [{update_freq}]",
    ]


# two configs, and the lines that one has and the other has not
COMPARISONS = [
    ("demo_admin", "demo_post_ln", ADMIN, STOCK),
    ("multi30k_admin_6l", "multi30k_post_ln_6l", ADMIN, STOCK),
    ("multi30k_admin_18l", "multi30k_post_ln_18l", ADMIN, STOCK),
    ("multi30k_admin_6l", "multi30k_admin_18l", layers(6, 6), layers(18, 18)),
    ("multi30k_post_ln_6l", "multi30k_post_ln_18l", layers(6, 6), layers(18, 18)),
    ("wmt14_en_de_admin_6l", "wmt14_en_de_admin_12l", layers(6, 6), layers(12, 12)),
    ("wmt14_en_de_admin_12l", "wmt14_en_de_admin_18l", layers(12, 12), layers(18, 18)),
    ("wmt14_en_de_post_ln_18l", "wmt14_en_de_post_ln_pre_ln_18l", [], [DECODER]),
    ("wmt14_en_de_post_ln_pre_ln_18l", "wmt14_en_de_pre_ln_18l", [], [ENCODER]),
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
        ["source_lang: en", "target_lang: fr"],
        ["source_lang: fr", "target_lang: en"],
    ),
    (
        "wmt14_en_fr_admin_60l_12l",
        "wmt14_en_fr_bt_admin_36l_12l",
        [
            "encoder_layers: 60",
            "encoder_embed_dim: 512",
            "encoder_ffn_embed_dim: 2048",
            "encoder_attention_heads: 8",
            "decoder_attention_heads: 8",
        ],
        [
            "upsample_primary: 2",
            "encoder_layers: 36",
            "encoder_embed_dim: 768",
            "encoder_ffn_embed_dim: 3072",
            "encoder_attention_heads: 12",
            "decoder_attention_heads: 12",
        ],
    ),
]
for corpus_, depths_ in {
    "iwslt14_de_en": ["6l"],
    "wmt14_en_de": ["6l", "12l", "18l"],
    "wmt14_en_fr": ["6l", "60l_12l"],
}.items():
    for depth in depths_:
        admin, post_ln, pre_ln = (f"{corpus_}_{m}_{depth}" for m in ("admin", "post_ln", "pre_ln"))
        COMPARISONS.append((admin, post_ln, ADMIN, STOCK))
        COMPARISONS.append((post_ln, pre_ln, [], [ENCODER, DECODER]))


def composed(name, folder=FOLDER):
    """The config as `fairseq-hydra-train` composes it; raises for an unknown key or a bad value."""
    GlobalHydra.instance().clear()
    hydra_init(name)
    with initialize_config_dir(str(folder), version_base="1.1"):
        cfg = compose(name, overrides=PATHS)
    add_defaults(cfg)
    return cfg


def settings(name):
    """The lines of a config without its header and comments."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    return [line.split("  #")[0].strip() for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_composes_and_every_key_is_known(name):
    cfg = composed(name)
    assert cfg.task.data == "/data" and cfg.checkpoint.save_dir == "/run"
    assert cfg.model.encoder_layers >= cfg.model.decoder_layers
    assert len(cfg.optimization.lr) == 1


@pytest.mark.parametrize("group", ["common", "task", "dataset", "model", "optimizer"])
def test_a_misspelt_key_is_an_error(group, tmp_path):
    """What the test above relies on."""
    text = (FOLDER / "demo_admin.yaml").read_text()
    (tmp_path / "demo_admin.yaml").write_text(
        text.replace(f"\n{group}:\n", f"\n{group}:\n  no_such_key: 1\n")
    )
    with pytest.raises(Exception, match="no_such_key|Error merging"):
        composed("demo_admin", tmp_path)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_two_header_lines_its_seed_and_no_machine_path(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    first, second, third = text.splitlines()[:3]
    assert first.startswith("# ") and second.startswith("# ") and not third.startswith("#")
    assert re.search(rf"\b{name}\b", second), "the second line launches another config"
    assert isinstance(composed(name).common.seed, int)
    assert re.search(r"^ +seed: \d+$", text, flags=re.MULTILINE)
    assert not re.search(r"(^|[\s='\"])(/|~)\w", text, flags=re.MULTILINE)
    for key in ("data", "save_dir", "user_dir"):
        assert re.search(rf"^  {key}: \?\?\?$", text, flags=re.MULTILINE), "given by override"


@pytest.mark.parametrize("left,right,only_left,only_right", COMPARISONS)
def test_conditions_of_a_comparison_differ_in_what_is_compared(left, right, only_left, only_right):
    diff = list(unified_diff(settings(left), settings(right), lineterm="", n=0))[2:]
    assert [line[1:] for line in diff if line.startswith("-")] == only_left
    assert [line[1:] for line in diff if line.startswith("+")] == only_right


def test_every_config_stands_in_a_comparison():
    assert {name for pair in COMPARISONS for name in pair[:2]} == set(CONFIGS)


@pytest.mark.parametrize("extra", [[], ["common.bf16=true"]], ids=["fp32", "bf16"])
def test_hydra_train_trains(corpus, lab, tmp_path, extra):
    command = [lab.bin / "fairseq-hydra-train", "--config-dir", FOLDER, "--config-name"]
    command += ["demo_admin", f"task.data={corpus}", f"checkpoint.save_dir={tmp_path}/run"]
    command += [f"common.user_dir={lab.plugin}", "common.log_format=json", "common.log_interval=1"]
    run = lab.run([*command, *TINY, *extra], cwd=tmp_path).ok()
    assert set(run.losses()) == {1, 2}
    assert all(loss < 9 for loss in run.losses().values())  # bits; uniform is 6
    state = lab.load(tmp_path / "run" / "checkpoint_last.pt")
    profile = lab.profiled(lab.profile_of(state))
    assert run.table() == lab.profile_of(state).table()
    # two warm-up updates of at most 1e-5, and bfloat16's 8 bits
    for name, omega in lab.omegas(state["model"]).items():
        assert (omega / profile[name] - 1).abs().max() < 2**-8, name
