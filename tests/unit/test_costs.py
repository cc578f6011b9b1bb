"""scripts/costs.py: what it counts is what is derived by hand or built for real, and the committed
numbers are its own."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from fairseq_admin.errors import UserError
from fairseq_admin.methods import METHODS
from recipes.configs import load_config
from recipes.recipes import load_costs, load_recipes
from records import costs, counting
from tests.helpers import TYPES, dictionary, model_config

ROOT = Path(__file__).resolve().parents[2]

SIZES = {
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "share_all_embeddings": True,
}
VOCABULARY = TYPES + 4


def config(arch="transformer_admin", **given):
    return OmegaConf.create({"_name": arch, **SIZES, **given})


@pytest.fixture(scope="module")
def committed():
    return json.loads(costs.COSTS.read_text())


PRE_LN = {"encoder_normalize_before": True, "decoder_normalize_before": True}
MODELS = [("transformer", PRE_LN), *(("transformer_admin", {"residual": m}) for m in METHODS)]


@pytest.mark.parametrize("arch,given", MODELS)
def test_parameters_are_those_of_the_model_built_for_real(arch, given):
    task = SimpleNamespace(source_dictionary=dictionary(), target_dictionary=dictionary())
    real = models.build_model(model_config(arch, **SIZES, **given), task)
    counted = counting.count(config(arch, **given), VOCABULARY, (2, 5))
    assert counted.parameters == sum(p.numel() for p in real.parameters())


def test_a_linear_layer_is_counted_exactly():
    inputs, outputs, rows = 12, 20, 7
    layer = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
    x = torch.empty(rows, inputs, device="meta", requires_grad=True)
    memory = counting.Allocations([x, layer.weight])
    with FlopCounterMode(display=False) as flops, memory:
        layer(x).sum().backward()
    # forward, gradient of the input, gradient of the weight: a product and a sum each
    assert flops.get_total_flops() == 3 * 2 * rows * inputs * outputs
    # both gradients, the sum and its gradient, which is the output's too, seen as a matrix
    assert memory.peak == 4 * (rows * inputs + inputs * outputs + 1 + 1)


def by_hand(sentences, n, d=16, ffn=48, encoder=3, decoder=2):
    """FLOPs of a step: 2 for each weight and position, 4 x n x d for each position's attention
    (scores and weighted sum), three times that with the gradients of both factors."""
    attention, feed_forward = 4 * d * d, 2 * d * ffn
    weights = encoder * (attention + feed_forward) + decoder * (2 * attention + feed_forward)
    scores = 4 * n * d * (encoder + 2 * decoder)
    return 3 * sentences * n * (2 * (weights + VOCABULARY * d) + scores)


@pytest.mark.parametrize("sentences, n", [(2, 5), (3, 11)])
@pytest.mark.parametrize("residual", METHODS)
def test_flops_of_a_transformer_are_those_derived_by_hand(residual, sentences, n):
    model = config(residual=residual)
    assert counting.count(model, VOCABULARY, (sentences, n)).flops == by_hand(sentences, n)


def test_six_flops_a_parameter_and_position_at_the_size_of_a_recipe(committed):
    rows = [row for row in committed["rows"] if row["layers"] == "18-18"]
    assert rows
    for row in rows:
        rule = 6e-12 * row["parameters"] * row["batch"]
        assert row["update_tflop"] == pytest.approx(rule, rel=0.05)


def test_fp16_takes_half_the_memory_of_the_activations():
    model, shape = config(encoder_embed_dim=64, encoder_ffn_embed_dim=256), (50, 20)
    half, full = (
        counting.count(model, VOCABULARY, shape, dtype).peak for dtype in ("half", "float")
    )
    assert full / 2 < half < 0.65 * full  # the loss stays in fp32


def test_memory_is_state_by_the_parameter_and_the_peak_of_the_step():
    counted = counting.Count(parameters=1000, flops=0, peak=500)
    assert costs.memory_of(counted, 1) == 18_000 + 500
    assert costs.memory_of(counted, 4) == 20_000 + 500


def test_hours_scale_inversely_with_gpus():
    assert costs.hours_on(7200e12, 1e12) == 2
    assert costs.hours_on(7200e12, 1e12, 8) == 2 / 8


def test_counted_memory_holds_against_the_measured(committed):
    """They differ by one process, about 500 MB, and by up to a third of what a depth adds."""
    bench = json.loads((ROOT / "results/bench/cpu.json").read_text())
    rows = [row for row in bench["rows"] if row["method"] == "admin"]
    found = {(r["layers"], r["width"]): r["peak_mb"] for r in rows}
    lines = {(r["layers"], r["width"]): r for r in committed["memory"]}
    assert {key: r["peak_mb"] for key, r in lines.items()} == found
    for key, line in lines.items():
        assert line["counted_mb"] + 500 == pytest.approx(found[key], rel=0.2)
    for width in {w for _, w in found}:
        grown = lines["18-18", width]["counted_mb"] - lines["6-6", width]["counted_mb"]
        assert 1 < (found["18-18", width] - found["6-6", width]) / grown < 1.4


@pytest.mark.slow
def test_the_bench_is_counted_as_committed(committed):
    record = json.loads((ROOT / "results/bench/cpu.json").read_text())
    record["rows"] = [r for r in record["rows"] if (r["layers"], r["width"]) == ("18-18", 256)]
    speed, memory = costs.measured(record)
    assert speed == committed["speeds"][0]
    line = committed["memory"][-1]
    assert memory == [{**line, "counted_mb": pytest.approx(line["counted_mb"], rel=0.05)}]
    speed, memory = costs.measured({**record, "device": "NVIDIA X"})
    assert (speed["hardware"], speed["gpu"], memory) == ("NVIDIA X", True, [])


def test_a_method_changes_little_but_the_memory_of_two():
    rows = load_costs()
    for name, row in rows.items():
        method = load_config(name).model.residual
        post_ln = rows.get(
            re.sub("_(analytic|deepnorm|rezero|keel|pre_ln|admin)_", "_post_ln_", name)
        )
        if post_ln:
            for cost in ("parameters", "update_tflop"):
                assert row[cost] == pytest.approx(post_ln[cost], rel=0.01)
            more = row["memory_gb"] / post_ln["memory_gb"]
            assert 1.03 < more < 1.06 if method in ("rezero", "keel") else abs(more - 1) < 0.01


@pytest.mark.parametrize("name", ["iwslt14_de_en_admin_6l", "iwslt14_de_en_rezero_6l"])
def test_a_recipe_is_counted_as_committed(name, committed):
    recipe = costs.Costs(name, load_recipes()[name])
    row = load_costs()[name]
    row["memory_gb"] = pytest.approx(row["memory_gb"], rel=0.05)  # differs by the torch release
    assert recipe.row(committed["speeds"]) == row


def test_updates_end_with_what_comes_first():
    rows = load_costs()
    assert rows["iwslt14_de_en_admin_6l"]["updates"] == 100_000  # max_update
    epoch = 4_500_000 * 28 / 0.85 / 32_768  # 4523.7 updates
    assert rows["wmt14_en_de_admin_18l"]["updates"] == 100 * (int(epoch) + 1)  # max_epoch
    name = "wmt14_en_fr_bt_admin_36l_12l"
    with pytest.raises(UserError, match="how many pairs .* `lines: {train: PAIRS}` in data/own/"):
        costs.Costs(name, {**load_recipes()[name], "corpus": "own"})
    back_translated = costs.Costs(name, load_recipes()[name])
    twice = 2 * 35_800_000 * 28 / 0.85 / 1_280_000  # upsample_primary: 1842.6 updates an epoch
    assert back_translated.updates() == 50 * (int(twice) + 1)


def test_every_recipe_has_its_row_and_what_was_published_for_it():
    rows, recipes = load_costs(), load_recipes()
    assert list(rows) == list(recipes)
    for name, facts in recipes.items():
        assert rows[name]["published"] == (facts["published"] or "diverged")
        assert rows[name]["source"] == facts["source"]
    assert [name for name, row in rows.items() if row["at_least"]] == [
        "wmt14_en_fr_bt_admin_36l_12l"
    ]
