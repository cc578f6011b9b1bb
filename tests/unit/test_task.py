"""translation_admin: which sentences it profiles, and that nothing else changes."""

import random

import numpy as np
import pytest
import torch
from fairseq.dataclass.configs import CommonConfig, DatasetConfig
from omegaconf import OmegaConf

from fairseq_admin.batch import PADDED_LIMIT, choose
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import Profile
from fairseq_admin.profiling import named_junctions
from fairseq_admin.task import PROFILED_OPTIONS, TranslationAdminConfig, TranslationAdminTask
from tests.helpers import TINY, make_task, model_config

GIVEN = {**TINY, "dropout": 0.1}


def random_sizes(pairs=500, seed=0):
    """Source and target lengths as in text: many short, few long."""
    return np.random.default_rng(seed).geometric(0.05, (pairs, 2)) + 1


def chosen(sizes, budget, seed=1, allowed=None):
    allowed = np.arange(len(sizes)) if allowed is None else allowed
    return choose(sizes, allowed, budget, np.random.default_rng(seed))


# --- choose


def test_draw_follows_the_seed():
    sizes = random_sizes()
    assert chosen(sizes, 1000, seed=1) == chosen(sizes, 1000, seed=1)
    assert chosen(sizes, 1000, seed=1) != chosen(sizes, 1000, seed=2)


@pytest.mark.parametrize("seed", range(10))
def test_draw_stays_within_the_budget_on_both_sides(seed):
    sizes = random_sizes(seed=seed)
    total = sizes[chosen(sizes, 1000, seed)].sum(axis=0)
    assert (total <= 1000).all()
    assert total.min() > 300


@pytest.mark.parametrize("seed", range(10))
def test_draw_fills_the_budget_but_for_a_sentence(seed):
    """Where lengths are even enough that padding sets no limit."""
    sizes = np.random.default_rng(seed).integers(5, 31, (500, 2))
    assert 1000 - 30 < sizes[chosen(sizes, 1000, seed)].sum(axis=0).max() <= 1000


@pytest.mark.parametrize("longer_side", [0, 1])
def test_budget_holds_for_the_longer_side(longer_side):
    sizes = np.full((100, 2), 2)
    sizes[:, longer_side] = 10
    assert len(chosen(sizes, 95)) == 9


@pytest.mark.parametrize("side", [0, 1])
def test_pairs_longer_than_the_budget_are_left_out(side):
    sizes = np.full((50, 2), 5)
    sizes[::2, side] = 101
    drawn = chosen(sizes, 100)
    assert len(drawn) == 20
    assert all(i % 2 == 1 for i in drawn)


def test_nothing_to_draw():
    assert chosen(np.full((5, 2), 9), 8) == []
    assert chosen(random_sizes(), 100, allowed=np.array([], int)) == []


def test_only_allowed_pairs_are_drawn_and_none_twice():
    allowed = np.arange(3, 300, 7)
    drawn = chosen(random_sizes(), 8000, allowed=allowed)
    assert set(drawn) == set(allowed.tolist())  # the budget takes them all
    assert len(drawn) == len(allowed)


def test_order_is_random_and_every_pair_has_its_chance():
    """Neither the order of the file nor of length; a tenth of 200 pairs, 200 draws: each pair
    comes 20 times on average, never is 1 in 10^9."""
    sizes = np.stack([np.arange(200) % 7 + 7] * 2, axis=1)
    drawn = chosen(sizes, 200)
    assert drawn != sorted(drawn)
    lengths = sizes[drawn, 0].tolist()
    assert lengths not in (sorted(lengths), sorted(lengths)[::-1])
    counts = np.bincount(np.concatenate([chosen(sizes, 200, s) for s in range(200)]), minlength=200)
    assert counts.min() > 2 and counts.max() < 60


def test_padded_batch_is_bounded():
    """One sentence far longer than the others would else make a batch of hundreds of times the
    budget."""
    sizes = np.full((2000, 2), 2)
    sizes[::50] = 900
    for seed in range(5):
        drawn = chosen(sizes, 1000, seed)
        assert drawn
        assert (sizes[drawn].max(axis=0) * len(drawn) <= PADDED_LIMIT * 1000).all()


# --- the task on real text


def task_of(corpus, **given) -> TranslationAdminTask:
    """translation_admin set up as fairseq-train does, on a data folder."""
    cfg = OmegaConf.create(
        {
            "common": CommonConfig(),
            "dataset": DatasetConfig(),
            "task": TranslationAdminConfig(data=str(corpus), source_lang="de", target_lang="en"),
        }
    )
    for name, value in given.items():
        cfg.task[name] = value
    return TranslationAdminTask.setup_task(cfg.task)


def built(corpus, from_checkpoint=False, model=None, **given):
    """A model of seed 1, its task, and the random states after."""
    task = task_of(corpus, **given)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model = task.build_model(
        model_config("transformer_admin", **{**GIVEN, **(model or {})}), from_checkpoint
    )
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return model, task, states


def omegas_of(model):
    return [j.omega[0].item() for js in named_junctions(model).values() for j in js.values()]


def test_new_model_is_profiled_and_nothing_else_changes(corpus):
    """All weights but omegas, and all random states, are those of a model built without."""
    model, task, states = built(corpus)
    plain, plain_task, plain_states = built(corpus, from_checkpoint=True)
    assert omegas_of(plain) == [1.0] * 10
    omegas = omegas_of(model)
    assert omegas[0] == omegas[4] == 1.0
    assert min(omegas[1:4] + omegas[5:]) > 1.0
    assert states == plain_states
    for key, value in plain.state_dict().items():
        assert key.endswith(".omega") or torch.equal(value, model.state_dict()[key]), key
    assert "profile" not in plain_task.state_dict()
    assert not task.datasets  # the trainer loads the training set itself


def test_profile_says_how_it_was_made(corpus):
    model, task, _ = built(corpus, profile_tokens=300)
    profile = Profile.from_dict(task.state_dict()["profile"])
    assert profile.omegas == pytest.approx(omegas_of(model), rel=1e-7)
    meta = profile.meta
    assert {name: meta[name] for name in ("arch", "encoder_layers", "decoder_layers")} == {
        "arch": "transformer_admin",
        "encoder_layers": 2,
        "decoder_layers": 2,
    }
    assert meta["seed"] == 1 and meta["profile_tokens"] == 300
    assert meta["dropout"] == 0.1 and meta["parameter_init"] == "paper"
    assert set(PROFILED_OPTIONS) <= set(meta)
    assert 200 < meta["source_tokens"] <= 300
    assert 200 < meta["target_tokens"] <= 300
    assert meta["versions"]["torch"] == str(torch.__version__)


def test_profile_seed_is_the_runs_seed_unless_given(corpus):
    """The same model weights, other sentences and masks."""
    default = omegas_of(built(corpus, profile_tokens=300)[0])
    assert omegas_of(built(corpus, profile_tokens=300, seed=1, profile_seed=1)[0]) == default
    assert omegas_of(built(corpus, profile_tokens=300, seed=5, profile_seed=1)[0]) == default
    assert omegas_of(built(corpus, profile_tokens=300, seed=5)[0]) != default
    assert omegas_of(built(corpus, profile_tokens=300, profile_seed=0)[0]) != default


def test_length_limits_of_the_task_hold(corpus):
    """Sentences that training would leave out are not profiled."""
    task = task_of(corpus, max_source_positions=8, max_target_positions=7)
    model = task.build_model(model_config("transformer_admin", **GIVEN), from_checkpoint=True)
    batch = task.draw(model, 1)
    assert 0 < batch["net_input"]["src_tokens"].size(1) <= 8
    assert 0 < batch["net_input"]["prev_output_tokens"].size(1) <= 7


@pytest.mark.parametrize("tokens", [0, -1, 8192, 10**6])
def test_budget_out_of_range_names_the_limit(corpus, tokens):
    with pytest.raises(UserError, match=rf"--profile-tokens {tokens}: .*fewer than 8192"):
        built(corpus, profile_tokens=tokens)


def test_no_sentence_is_short_enough(corpus):
    with pytest.raises(UserError, match="of 300 pairs none has at most 2 tokens"):
        built(corpus, profile_tokens=2)
    with pytest.raises(UserError, match="nothing to measure: of 300 pairs"):
        built(corpus, model={"max_source_positions": 3, "max_target_positions": 3})


def test_missing_training_set(corpus):
    with pytest.raises(UserError, match="no training data to profile") as error:
        built(corpus, train_subset="train2")
    assert "\n" not in str(error.value)


def test_missing_folder_and_dictionary(corpus, tmp_path):
    with pytest.raises(UserError, match=f"no such data folder: {tmp_path}/none"):
        task_of(tmp_path / "none")
    with pytest.raises(UserError, match=f"missing dictionary {tmp_path}/dict.de.txt"):
        task_of(tmp_path)


def test_plain_transformer_under_this_task_is_only_warned_of(caplog):
    task = make_task()
    model = task.build_model(model_config("transformer", **TINY))
    assert type(model).__name__ == "TransformerModel"
    assert "has no omegas to set" in caplog.text
