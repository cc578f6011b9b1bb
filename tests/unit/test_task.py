"""translation_admin: which sentences it profiles, and that nothing else changes."""

import logging
import shutil

import numpy as np
import pytest
import torch
from fairseq import options, utils
from fairseq.data import Dictionary, indexed_dataset
from omegaconf import OmegaConf

from fairseq_admin.batch import PADDED, PADDED_LIMIT, choose, grouped
from fairseq_admin.data_files import check_pairs
from fairseq_admin.errors import UserError
from fairseq_admin.methods import METHODS
from fairseq_admin.omega_file import Profile
from fairseq_admin.profiled_task import PROFILED_OPTIONS
from fairseq_admin.task import TranslationAdminConfig, TranslationAdminTask
from tests.helpers import (
    GIVEN,
    TINY,
    build,
    built,
    cut,
    make_task,
    model_config,
    omegas_of,
    task_of,
)


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
        drawn = choose(
            sizes, np.arange(len(sizes)), 1000, np.random.default_rng(seed), PADDED_LIMIT
        )
        assert drawn
        assert (sizes[drawn].max(axis=0) * len(drawn) <= PADDED_LIMIT * 1000).all()


@pytest.mark.parametrize("seed", range(10))
def test_groups_of_a_draw_hold_each_pair_once_and_little_padding(seed):
    sizes, ratio = random_sizes(seed=seed), np.random.default_rng(seed).uniform(0.8, 1.25, 500)
    sizes[:, 1] = np.ceil(sizes[:, 0] * ratio)
    drawn = sizes[chosen(sizes, 4000, seed)]
    groups = grouped(drawn)
    assert sorted(i for group in groups for i in group) == list(range(len(drawn)))
    positions = [len(group) * drawn[group].max(axis=0).sum() for group in groups]
    for group, padded in zip(groups, positions):
        assert padded <= PADDED * drawn[group].sum()
    assert len(groups) < len(drawn) / 4


# --- the task on real text


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
    for batch in task.profile_batches(model, 1):
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


def test_missing_folder_and_dictionary(corpus, tmp_path):
    with pytest.raises(UserError, match=f"no such data folder: {tmp_path}/none"):
        task_of(tmp_path / "none")
    with pytest.raises(UserError, match=f"missing dictionary {tmp_path}/dict.de.txt"):
        task_of(tmp_path)


@pytest.mark.parametrize(
    "option, value", [("profile_tokens", 99), ("profile_seed", 2), ("omega_file", "x")]
)
@pytest.mark.parametrize("arch", ["transformer_deepnorm", "transformer_analytic", "transformer"])
def test_options_of_a_profile_are_refused_where_nothing_is_profiled(corpus, arch, option, value):
    given = {**GIVEN, "max_source_positions": 1024, "max_target_positions": 1024}
    task = task_of(corpus, **{option: value})
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} means nothing to ") as told:
        task.build_model(model_config(arch, **given))
    assert ("--residual" in str(told.value)) == (arch != "transformer")
    task.build_model(model_config(arch, **given), from_checkpoint=True)


@pytest.mark.parametrize("residual", [name for name in METHODS if name != "admin"])
def test_a_method_without_a_profile_reads_no_training_text(corpus, residual, caplog):
    with caplog.at_level(logging.INFO):
        model, task, states = built(corpus, model={"residual": residual}, train_subset="train")
        plain, _, plain_states = built(corpus, from_checkpoint=True, model={"residual": residual})
    assert "profile" not in task.state_dict() and states == plain_states
    assert not [r for r in caplog.records if "omega" in r.getMessage()]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters()))


def test_plain_transformer_under_this_task_is_only_warned_of(caplog):
    task = make_task()
    model = task.build_model(model_config("transformer", **TINY))
    assert type(model).__name__ == "TransformerModel"
    assert "has no omegas to set" in caplog.text


# --- what no training can be


@pytest.fixture
def copied(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "data")


REFUSED = {
    "bleu that is not measured": (
        {"checkpoint.best_checkpoint_metric": "bleu"},
        "--best-checkpoint-metric bleu: give --eval-bleu",
    ),
    "no such valid set": ({"dataset.valid_subset": "valid,valid2"}, "no split valid2 of de and en"),
    "no such training set": ({"train_subset": "train2"}, "no split train2 in"),
    "ranks that end alone": (
        {"stop_when_stuck": True, "optimization.use_bmuf": True},
        "which --use-bmuf keeps apart",
    ),
    "weights copied to no GPU": (
        {"common.fp16": True, "common.cpu": True},
        "--fp16 copies all weights to a GPU: leave it out",
    ),
    "gradients that are scaled twice": ({"common.amp": True}, "--amp: fairseq divides gradients"),
    "no pretrained model": ({"checkpoint.finetune_from_model": "none.pt"}, "none.pt: no such file"),
    "two checkpoints": (
        {"checkpoint.finetune_from_model": "a.pt", "checkpoint.restore_file": "b.pt"},
        "give one of them",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_training_can_be_is_one_line(corpus, case):
    given, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as error:
        built(corpus, **given)
    assert "\n" not in str(error.value)
    built(corpus, from_checkpoint=True, **given)  # to decode it is none of our concern


def test_sharded_parameters_are_refused_before_fairseq_prepares_them(corpus):
    with pytest.raises(UserError, match="--ddp-backend fully_sharded shards") as error:
        task_of(corpus, **{"distributed_training.ddp_backend": "fully_sharded"})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_training_a_pruned_model_is_refused_by_whatever_task(corpus, stack):
    pruned = {f"{stack}_layers_to_keep": "0"}
    with pytest.raises(UserError, match=f"--{stack}-layers-to-keep .*prune where you decode"):
        built(corpus, model=pruned)
    with pytest.raises(UserError, match="prune where you decode"):
        build(**pruned).set_num_updates(0)
    built(corpus, from_checkpoint=True, model=pruned)[0].set_num_updates(7)  # to decode


@pytest.mark.parametrize("option", ["checkpoint_activations", "offload_activations"])
def test_compiled_layers_are_not_recomputed(corpus, option):
    """Compiled, dropout is drawn by another generator than where it is recomputed."""
    given = {"compile_layers": True, option: True}
    with pytest.raises(UserError, match="--compile-layers draws other dropout masks"):
        built(corpus, model=given)
    built(corpus, from_checkpoint=True, model=given)


def test_apex_takes_the_norm_of_one_precision(corpus, monkeypatch):
    monkeypatch.setattr(utils, "multi_tensor_l2norm_available", True)
    given = {"common.memory_efficient_fp16": True}
    with pytest.raises(UserError, match="run without apex"):
        built(corpus, **given)
    built(corpus, **given, **{"common.cpu": True})


CUT = {  # a file, and the share of it that is left
    "valid.de-en.en.bin": 0.5,
    "valid.de-en.de.idx": 0.5,
    "valid.de-en.en.idx": 0,
    "train.de-en.de.bin": 0.99,
    "train.de-en.en.bin": 0,
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_off_is_named(copied, name):
    cut(copied / name, CUT[name])
    with pytest.raises(UserError, match=f"{copied}/{name} is cut off.* fairseq-preprocess") as told:
        built(copied)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=f"{name} is cut off"):
        task_of(copied).load_dataset(name.partition(".")[0])  # to decode


def test_an_index_of_no_known_type_is_damaged(copied):
    index = copied / "train.de-en.en.idx"
    data = bytearray(index.read_bytes())
    data[17] = 99  # the type of a token
    index.write_bytes(data)
    with pytest.raises(UserError, match=f"{index} is damaged: .*fairseq-preprocess"):
        built(copied)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
DAMAGED = {  # a file, what it holds (None: it is a folder), what is told
    "pointer for an index": ("train.de-en.de.idx", POINTER, "is no index of binarized text: copy"),
    "folder for an index": ("train.de-en.de.idx", None, "cannot read .*train.de-en.de.idx"),
    "folder for a text": ("train.de-en.de.bin", None, "train.de-en.de.bin is cut off: 0 of"),
    "pointer for a dictionary": ("dict.de.txt", POINTER, "dict.de.txt is no dictionary"),
    "dictionary that is no UTF-8": ("dict.en.txt", b"\xff 1\n", "dict.en.txt is no dictionary"),
    "word twice in a dictionary": ("dict.en.txt", b"a 1\na 1\n", "dict.en.txt is no dictionary"),
    "folder for a dictionary": ("dict.de.txt", None, "no such dictionary: .*dict.de.txt"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_of_the_data_is_one_line(copied, case):
    name, content, told = DAMAGED[case]
    (copied / name).unlink()
    if content is None:
        (copied / name).mkdir()
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        built(copied)
    assert "\n" not in str(error.value)


def test_an_index_damaged_in_its_middle(copied):
    """Sentences would be read from where others are: pairs that belong to nobody."""
    index = copied / "train.de-en.en.idx"
    whole = index.read_bytes()
    places = len(whole) - 8 * 300
    for begin, zeros in ((places + 80, 400), (34 + 40, 4)):  # of pointers; of sizes
        index.write_bytes(whole[:begin] + bytes(zeros) + whole[begin + zeros :])
        with pytest.raises(UserError, match=f"{index} is damaged: .*fairseq-preprocess"):
            built(copied)


def test_both_directions_in_one_folder(copied):
    """Of WMT's test sets say, which are not of as many sentences: one pair is read."""
    for path in list(copied.glob("train.de-en.*")):
        shutil.copy(path, copied / path.name.replace("train.de-en", "valid.en-de"))
    built(copied, **{"dataset.disable_validation": False})


def test_sides_of_other_text(copied):
    for ending in ("bin", "idx"):
        shutil.copy(copied / f"valid.de-en.en.{ending}", copied / f"train.de-en.en.{ending}")
    told = "sides are not of one text: .*train.de-en.de 300 sentences, .*train.de-en.en 30 sent"
    with pytest.raises(UserError, match=told):
        built(copied)


def test_a_dictionary_of_other_data(copied):
    for lang in ("de", "en"):
        path = copied / f"dict.{lang}.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(UserError, match=r"holds symbol \d+, its dictionary has 24: "):
        built(copied)


@pytest.mark.parametrize("kind", ["raw", "lazy"])
def test_files_of_another_kind_are_left_to_fairseq(copied, kind):
    """Text, and fairseq's older index."""
    words = Dictionary.load(str(copied / "dict.de.txt"))
    for lang in ("de", "en"):
        path = copied / f"valid.de-en.{lang}"
        (copied / f"{path.name}.bin").unlink()
        (copied / f"{path.name}.idx").unlink()
        if kind == "raw":
            path.write_text(f"{words[5]} {words[6]}\n")
        else:
            builder = indexed_dataset.make_builder(f"{path}.bin", kind)
            builder.add_item(torch.tensor([5, 6, 2]))
            builder.finalize(f"{path}.idx")
    given = {"dataset_impl": kind} if kind == "raw" else {}
    check_pairs(str(copied), "valid", "de", "en", given.get("dataset_impl"))
    task = task_of(copied, **given)
    task.load_dataset("valid")
    assert len(task.dataset("valid")) == 1


def with_second_part(copied):
    for path in copied.glob("train.*"):
        shutil.copy(path, copied / path.name.replace("train.", "train1."))


def test_training_data_of_two_parts(copied, caplog):
    """As --upsample-primary 1 reads them where that is not given, and said once; the profile draws
    from both."""
    with_second_part(copied)
    with caplog.at_level(logging.INFO):
        _, task, _ = built(copied)
        task.load_dataset("train", combine=True)
    assert len(task.dataset("train")) == 600
    told = [r.getMessage() for r in caplog.records if "--upsample-primary" in r.getMessage()]
    assert told == ["train has 2 parts: each is read once (--upsample-primary 1)"]
    _, task, _ = built(copied, upsample_primary=3)
    task.load_dataset("train", combine=True)
    assert len(task.dataset("train")) == 1200
    cut(copied / "train1.de-en.de.bin")
    with pytest.raises(UserError, match="train1.de-en.de.bin is cut off"):
        built(copied)


def test_a_task_without_the_options_of_a_trainer_profiles(corpus):
    """Set up from Python, by itself or from a namespace."""
    given = {"data": str(corpus), "source_lang": "de", "target_lang": "en", "seed": 1}
    given.update(train_subset="train", dataset_impl=None, required_seq_len_multiple=1)
    alone = TranslationAdminConfig(**given)
    for cfg in (alone, OmegaConf.create({"task": alone}).task):
        task = TranslationAdminTask.setup_task(cfg)
        assert omegas_of(task.build_model(model_config("transformer_admin", **GIVEN)))[1] > 1


def test_scalar_quant_noise_is_not_profiled(corpus):
    with pytest.raises(UserError, match="--quant-noise-scalar keeps what it learns"):
        built(corpus, model={"quant_noise_scalar": 0.5})
    built(corpus, model={"quant_noise_scalar": 0.5, "residual": "analytic"})


@pytest.mark.parametrize("flag", ["--bf16", "--memory-efficient-bf16"])
def test_bf16_on_the_command_line_names_what_works(corpus, monkeypatch, flag):
    words = ["--task", "translation_admin", flag]
    train = [str(corpus), *words, "--arch", "transformer_admin"]
    monkeypatch.setattr("sys.argv", ["fairseq-train", *train])
    with pytest.raises(UserError, match=f"{flag} is for TPUs .* common.bf16=true"):
        options.parse_args_and_arch(options.get_training_parser(), train)
    generate = [str(corpus), *words[:2], "--path", "x.pt"]
    monkeypatch.setattr("sys.argv", ["fairseq-generate", *generate, flag])
    options.parse_args_and_arch(options.get_generation_parser(), generate)
