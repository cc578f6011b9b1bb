"""What the doctor measures, by hand counts; that it changes nothing; its rule and its evidence."""

import copy
import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fairseq.optim import build_optimizer

from fairseq_admin.arguments import training_config
from fairseq_admin.doctor import rule
from fairseq_admin.doctor.case import (
    STEPS,
    TOKENS,
    Case,
    check,
    draw_text,
    open_case,
    schedule,
    stepper,
)
from fairseq_admin.doctor.probe import State, dependence, look, probe, spread, step
from fairseq_admin.doctor.remedies import candidates, remedies, with_method, with_warmup
from fairseq_admin.errors import UserError
from fairseq_admin.profiling import named_junctions
from fairseq_admin.text import read_json
from studies.evidence import FITTED, PROBES, constants, page
from studies.study import RESULTS
from tests.helpers import LENGTHS, PAD, TINY, batched, build, make_task, sentences

TRAINING = ["--arch", "transformer_admin", "--optimizer", "adam", "--lr-scheduler", "inverse_sqrt"]


@pytest.fixture(scope="module")
def config():
    """Of a training, by its warmup and rate."""
    argv = sys.argv[:]

    def make(*options):
        try:
            return training_config(["data", *TRAINING, *options], any_task=True)
        finally:
            sys.argv[:] = argv

    return make


@pytest.fixture(scope="module")
def plain(config):
    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    return config("--lr", "0.01", "--warmup-updates", "4", *sizes)


@pytest.fixture
def case(plain):
    """A tiny model at a rate of 0.01, before training."""
    batches = [batched(sentences(LENGTHS, seed=seed)) for seed in range(STEPS + 1)]
    rates, peak, warmup = schedule(plain)
    return Case(plain, make_task(), build(), batches, PAD, rates, peak, warmup)


# what is measured


def test_dependence_is_the_information_about_the_position():
    """Two positions that write one of two types each know one bit; one distribution for all knows
    nothing; a half and half of both halves the way."""
    tiny = 1e-30
    certain = torch.tensor([[1 - tiny, tiny], [tiny, 1 - tiny]]).log()
    assert dependence(certain) == pytest.approx(1.0)
    assert dependence(torch.tensor([[0.7, 0.3]] * 5).log()) == pytest.approx(0.0, abs=1e-6)
    p = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    by_hand = 1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)
    assert dependence(p.log()) == pytest.approx(by_hand, rel=1e-5)


def test_spread_is_the_share_in_which_tokens_differ():
    assert spread(torch.tensor([[3.0, 1.0]] * 4)) == 0
    assert spread(torch.tensor([[1.0, -2.0], [-1.0, 2.0]])) == pytest.approx(1.0)
    assert spread(torch.tensor([[3.0], [1.0]])) == pytest.approx(1 / 5)  # 1 of a mean square of 5


def test_padding_is_not_looked_at():
    narrow, wide = (
        look(build(), batched(sentences(LENGTHS), **columns), PAD)
        for columns in ({}, {"source": 30, "target": 30})
    )
    assert wide.dependence == pytest.approx(narrow.dependence, rel=1e-5)
    for number in ("spread", "gradient"):
        found, expected = ([row[number] for row in x.sublayers] for x in (wide, narrow))
        assert found == pytest.approx(expected, rel=1e-4)


def test_reach_is_of_the_first_ffn_over_the_last():
    names = ["encoder.layers.0.ffn", "decoder.layers.0.ffn", "decoder.layers.1.ffn"]
    rows = [{"name": name, "gradient": g} for name, g in zip(names, (9.0, 1.0, 4.0))]
    assert State(0.0, rows).reach == 0.25


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (1, [0.01 / math.sqrt(n) for n in range(1, STEPS + 1)]),  # as after the first update
        (4, [0.0025, 0.005, 0.0075, 0.01, *(0.01 * math.sqrt(4 / n) for n in range(5, 9))]),
        (40, [0.01 * n / STEPS for n in range(1, STEPS + 1)]),  # in as many steps as there are
        (
            6000,
            [0.001 * n / STEPS for n in range(1, STEPS + 1)],
        ),  # to update 600, (6000 * 60) ** 0.5
    ],
)
def test_a_schedule_is_gone_through_in_the_steps(config, warmup, expected):
    rates, peak, found = schedule(config("--lr", "0.01", "--warmup-updates", str(warmup)))
    assert rates == pytest.approx(expected) and peak == pytest.approx(0.01) and found == warmup


def test_a_longer_warmup_is_tried_at_the_rates_that_it_has(config, case):
    rates = schedule(config("--lr", "0.01", "--warmup-updates", "6000"))[0]
    assert with_warmup(case, 6000).rates == pytest.approx(rates)


class Text(list):
    """Pairs of *length* tokens a side; of a batch the pairs are left."""

    def __init__(self, count, length):
        super().__init__(range(count))
        self.sizes = np.array([(length, length)] * count)

    def filter_indices_by_size(self, indices, limits):
        return indices, []

    def collater(self, samples):
        return samples


def test_without_warmup_the_highest_rate_is_the_first(config):
    options = ["--lr-scheduler", "fixed", "--warmup-updates", "0"]
    _, peak, warmup = schedule(config("--lr", "0.5", *options))
    assert (peak, warmup) == (0.5, 0)


def test_radam_is_stepped_as_adam(config):
    """Its own first steps are those of momentum, and hardly move (Liu et al. 2020, section 4)."""
    options = config(
        "--optimizer", "radam", "--radam-betas", "(0.8, 0.9)", "--lr", "0.01"
    ).optimizer
    made = build_optimizer(stepper(options), [torch.nn.Parameter(torch.ones(1))])
    assert type(made).__name__ == "FairseqAdam" and made.optimizer_config["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("count", "length", "drawn"),
    [(900, 10, TOKENS * (STEPS + 1) // 10), (900, 200, STEPS + 1), (3, 10, 3), (1, 10, 1)],
)
def test_the_text_is_little_and_none_that_is_looked_at_is_stepped_on(count, length, drawn):
    first, *others = draw_text(Text(count, length), (999, 999), 1)
    assert len(others) == STEPS and len({*first, *sum(others, [])}) == drawn
    assert count == 1 or not set(first) & set(sum(others, []))
    if count > 100:
        sizes = [len(batch) for batch in (first, *others)]
        assert sum(sizes) == drawn and max(sizes) - min(sizes) <= 1


# what it leaves as it was


def test_a_probe_changes_nothing(case):
    model = case.model
    for module in list(model.modules())[::2]:
        module.training = False
    weights = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    remedies(case, -1, 0, math.inf)
    probe(case)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_probe_is_the_same_again_and_no_step_changes_no_output(case):
    one, two = probe(case), probe(case)
    assert one == two and one.before != one.after
    still = probe(replace(case, rates=[0.0] * STEPS))
    assert still.before == still.after == one.before


def test_the_first_step_of_adam_moves_every_weight_by_the_rate(case):
    """Its first update is the sign of the gradient, times the rate (Kingma and Ba 2015)."""
    moved = copy.deepcopy(case.model)
    step(moved, replace(case, rates=[0.01], batches=case.batches[:2]))
    before = case.model.encoder.layers[0].fc1.weight
    difference = (moved.encoder.layers[0].fc1.weight - before).abs().detach()
    assert difference.max() == pytest.approx(0.01, rel=1e-3)
    assert difference[difference > 0].median() == pytest.approx(0.01, rel=1e-2)


def test_what_is_looked_at_is_named_in_order(case):
    names = [row["name"] for row in look(case.model, case.batches[0], PAD).sublayers]
    junctions = named_junctions(case.model)
    assert names == [name for stack in ("encoder", "decoder") for name in junctions[stack]]


# what would help


def test_another_method_has_the_same_sizes_and_its_profile(case):
    changed = with_method(case, "admin").model
    omegas = [j.omega.mean().item() for j in named_junctions(changed)["decoder"].values()]
    assert omegas[0] == 1 and omegas[-1] > 1.2
    count = [sum(p.numel() for p in model.parameters()) for model in (changed, case.model)]
    assert count[0] == count[1]


@pytest.mark.parametrize("options", [["--optimizer", "sgd"], ["--fp16-adam-stats"]])
def test_optimizers_that_can_be_followed(config, options):
    found = schedule(config("--lr", "0.1", "--lr-scheduler", "fixed", *options))
    assert found[1] == pytest.approx(0.1)


def test_of_several_rates_none_is_followed(config):
    several = config("--lr", "0.1,0.2", "--lr-scheduler", "fixed")
    with pytest.raises(UserError, match="one rate can be followed, not several"):
        check(several)


def test_a_rate_of_0_learns_nothing(config):
    with pytest.raises(UserError, match="--lr 0: at such a rate no weight moves"):
        open_case(config("--lr", "0", "--lr-scheduler", "fixed"))


def test_a_pretrained_model_that_is_not_there_is_told(config, tmp_path):
    given = ["--save-dir", str(tmp_path), "--finetune-from-model", "none.pt"]
    with pytest.raises(UserError, match="--finetune-from-model none.pt: no such file"):
        check(config("--lr", "0.1", *given))


def test_what_is_tried(case):
    assert [options for options, _ in candidates(case)] == [
        {"residual": "pre-ln"},
        {"warmup-updates": "4000"},
        {"lr": "0.00333"},
        {"lr": "0.001"},
    ]
    warm = replace(case, warmup=4000, peak=case.peak / 4)  # which ends after the training
    (*_, pre_ln, higher, _) = (options for options, _ in candidates(warm))
    assert (pre_ln, higher) == ({"residual": "pre-ln"}, {"lr": "0.00333"})


def test_only_what_helps_is_told_and_what_took_too_long_is_said(case):
    slower = {"lr": "0.001"}
    fast = replace(case, rates=[rate * 300 for rate in case.rates])
    chance = rule.probability(rule.numbers(probe(fast)))
    found = remedies(fast, chance, 0, math.inf)
    assert found and all(row["chance"] > chance for row in found)
    assert remedies(case, 1.0, 0, math.inf) == []
    untried = remedies(fast, chance, took=1e6, until=0)
    assert [row["verdict"] for row in untried] == ["not tried"] * 4
    assert untried[-1]["options"] == slower


def test_a_method_that_the_options_do_not_fit_is_passed_over(case):
    """--learn-first-omega means nothing to Pre-LN."""
    config = copy.deepcopy(case.config)
    config.model.learn_first_omega = True
    assert len(remedies(replace(case, config=config), -1, 0, math.inf)) >= 2


# the rule


def test_what_is_no_number_counts_as_worst(case):
    broken = probe(replace(case, rates=[1e38] * STEPS))
    found = rule.numbers(broken)
    assert rule.verdict(rule.probability(found)) == "will not learn"
    assert all(math.isfinite(x) and x > 0 for x in found.values())


@pytest.mark.parametrize(
    ("chance", "expected"),
    [(0.9, "will learn"), (0.89, "at risk"), (0.11, "at risk"), (0.1, "will not learn")],
)
def test_verdicts(chance, expected):
    assert rule.verdict(chance) == expected


def test_the_rule_and_its_page_are_those_of_the_evidence():
    rows = read_json(PROBES)
    for name, value in constants(rows).items():
        assert getattr(rule, name) == value, name
    assert PROBES.with_name("README.md").read_text(encoding="utf-8") == page(rows)


def test_evidence_is_of_trainings_that_are_recorded():
    recorded = {read_json(path)["definition"] for path in RESULTS.glob("*/*.json")}
    rows = read_json(PROBES)
    assert {row["definition"] for row in rows} <= recorded
    assert len(rows) >= 150 and sum(row["part"] != FITTED for row in rows) >= 60
