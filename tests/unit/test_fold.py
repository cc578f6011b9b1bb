"""A folded model computes what the Admin model computes, and is a plain `transformer`."""

import copy
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from fairseq import models
from omegaconf import OmegaConf

from fairseq_admin.checkpoints.checkpoint import read_checkpoint
from fairseq_admin.checkpoints.equivalence import EXACT
from fairseq_admin.checkpoints.fold import READERS, Unfoldable, fold, fold_checkpoint, fold_weights
from fairseq_admin.data_files import text_of
from fairseq_admin.errors import UserError
from tests.helpers import TINY, build, checkpoint_of, make_task, model_config, net_input, randomized

LEARN = {"learn_first_omega": True}
JOINED = {"share_all_embeddings": True}
TIED_OUTPUT = {"share_decoder_input_output_embed": True}

VARIANTS = {
    "joined": JOINED,
    "joined, first learned": {**JOINED, **LEARN},
    "tied output": TIED_OUTPUT,
    "tied output, first learned": {**TIED_OUTPUT, **LEARN},
    "separate": {},
    "separate, first learned": LEARN,
    "embedding norm": {**JOINED, "layernorm_embedding": True},
    "embedding norm, first learned": {**JOINED, **LEARN, "layernorm_embedding": True},
    "learned positions, first learned": {
        **JOINED,
        **LEARN,
        "encoder_learned_pos": True,
        "decoder_learned_pos": True,
    },
    "one side's positions learned": {**LEARN, "decoder_learned_pos": True},
    "no positions, first learned": {**JOINED, **LEARN, "no_token_positional_embeddings": True},
    "embeddings not scaled": {**JOINED, **LEARN, "no_scale_embedding": True},
    "widths differ": {
        "encoder_embed_dim": 24,
        "decoder_embed_dim": 16,
        "encoder_ffn_embed_dim": 48,
        "decoder_ffn_embed_dim": 20,
        "decoder_attention_heads": 4,
        **LEARN,
    },
    "embeddings projected, first learned": {
        "decoder_input_dim": 8,
        "decoder_output_dim": 16,
        **LEARN,
    },
    "depths differ": {"encoder_layers": 5, "decoder_layers": 1, **JOINED},
    "layer drop": {**JOINED, "encoder_layerdrop": 0.3, "decoder_layerdrop": 0.3},
    "activations checkpointed": {**JOINED, "checkpoint_activations": True},
    "gelu": {**JOINED, "activation_fn": "gelu"},
    "analytic": {**JOINED, "residual": "analytic"},
    "analytic, separate": {"residual": "analytic", "output_change": "constant"},
    "deepnorm": {**JOINED, "residual": "deepnorm", "decoder_layers": 3},
    "deepnorm, embedding norm": {"residual": "deepnorm", "layernorm_embedding": True},
    "post-ln": {**JOINED, "residual": "post-ln"},
    "pre-ln": {**JOINED, "residual": "pre-ln"},
    "stacks differ": {"residual": "post-ln/pre-ln"},
    "stacks differ in scale": {**JOINED, "residual": "deepnorm/admin"},
}


def plain_model(folded):
    """The model as fairseq builds it from a checkpoint that it has loaded."""
    cfg = OmegaConf.create(folded["cfg"], flags={"allow_objects": True})
    return models.build_model(cfg.model, make_task())


def largest_difference(admin, plain, weights, dtype):
    """Between the logits of two models on a padded batch, computed in *dtype*."""
    admin, plain = copy.deepcopy(admin).to(dtype).eval(), plain.to(dtype).eval()
    plain.load_state_dict(weights, strict=True)
    with torch.no_grad():
        return (admin(**net_input())[0] - plain(**net_input())[0]).abs().max().item()


@pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
def test_a_folded_model_computes_the_same(given):
    model, cfg = randomized(**given)
    state = checkpoint_of(model, cfg)
    folded, difference = fold(state)
    weights, _, factors, _ = fold_weights(state["model"], state["cfg"]["model"])
    assert largest_difference(model, plain_model(folded), weights, torch.float64) < 1e-10
    assert largest_difference(model, plain_model(folded), folded["model"], torch.float32) < 1e-3
    assert difference.exact < 1e-10 and difference.written < 1e-3
    scaled = sum(key.endswith(("omega", ".alpha")) for key in state["model"])
    assert len([key for key in factors if "norm" in key]) >= 2 * (scaled - 2)
    assert bool(scaled) == bool(factors)
    if not scaled:  # names change, weights do not
        assert difference.exact == difference.written == 0


def test_nothing_of_ours_is_left():
    model, cfg = randomized(**JOINED)
    folded, _ = fold(checkpoint_of(model, cfg))
    assert not any("omega" in key or "residual" in key for key in folded["model"])
    assert folded["cfg"]["model"]["_name"] == folded["cfg"]["model"].arch == "transformer"
    assert folded["cfg"]["task"]["_name"] == "translation" and folded["args"] is None
    assert "omega" not in str(folded["cfg"]) and "admin" not in str(folded["cfg"])
    assert folded["task_state"] == {} and "TranslationAdminTask" not in folded["extra_state"]
    assert folded["last_optimizer_state"] is None


def test_the_text_of_the_training_stays():
    """By whose dictionaries an export or a training knows other data."""
    model, cfg = randomized(**JOINED)
    text = {"languages": ["de", "en"], "dictionaries": ["a", "b"]}
    state = checkpoint_of(model, cfg, task_state={"profile": {}, "text": text})
    assert text_of(fold(state)[0]) == text and fold(state)[0]["task_state"] == {"text": text}


@pytest.mark.parametrize("key", ["languages", "dictionaries"])
@pytest.mark.parametrize("damaged", [None, 7, "de", ["de"], ["de", None], ["de", "en", "fr"]])
def test_what_another_task_says_of_its_text_is_not_read(key, damaged):
    text = {"languages": ["de", "en"], "dictionaries": ["a", "b"], key: damaged}
    assert text_of({"task_state": {"text": text}}) == {}


def test_tensors_and_plain_containers_only(tmp_path):
    """Loaded in a process that never heard of the plugin's allow-list, in test_fold_command."""
    model, cfg = randomized(**JOINED)
    folded, _ = fold(checkpoint_of(model, cfg))

    def kinds(value):
        yield type(value)
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                yield from kinds(item)

    allowed = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    assert set(kinds(folded)) <= allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_file_is_no_larger_than_the_model(tmp_path, dtype):
    """Tied embeddings are in it once, also where the input held them three times, as from a GPU."""
    model, cfg = randomized(**JOINED, types=2000)
    state = checkpoint_of(model.to(dtype), cfg)
    state["model"] = {key: tensor.clone() for key, tensor in state["model"].items()}
    state["last_optimizer_state"] = {"state": {0: {"exp_avg": torch.zeros(10**6)}}}
    torch.save(state, tmp_path / "in.pt")
    fold_checkpoint(str(tmp_path / "in.pt"), str(tmp_path / "out.pt"))
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    overhead = 60_000  # configuration and the file's index; one more embedding table is 64,000
    assert (tmp_path / "out.pt").stat().st_size < parameters + overhead
    folded = read_checkpoint(str(tmp_path / "out.pt"))["model"]
    assert {tensor.dtype for tensor in folded.values() if tensor.dim() > 1} == {dtype}


def test_the_difference_is_measured_on_the_folded_weights(monkeypatch):
    """A wrong fold is refused: here the keys' columns are forgotten."""
    model, cfg = randomized(**JOINED)
    wrong = {**READERS, "self_attn": ("self_attn.q_proj", "self_attn.v_proj")}
    monkeypatch.setattr("fairseq_admin.checkpoints.fold.READERS", wrong)
    with pytest.raises(UserError, match="cannot be folded exactly"):
        fold(checkpoint_of(model, cfg))


def test_gradients_are_divided_by_the_factors():
    """What fold_moments rests on: dL/d(c w) = (dL/dw) / c."""
    model, cfg = randomized(**JOINED)
    model = model.double().eval()
    state = checkpoint_of(model, cfg)
    weights, _, factors, _ = fold_weights(state["model"], state["cfg"]["model"])
    plain = plain_model(fold(state)[0]).double().eval()
    plain.load_state_dict(weights)
    for m in (model, plain):
        m(**net_input())[0].square().sum().backward()
    before = {name: p.grad for name, p in model.named_parameters() if "omega" not in name}
    after = {name: p.grad for name, p in plain.named_parameters()}
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        expected = gradient / factors[name] if name in factors else gradient
        torch.testing.assert_close(after[name], expected, rtol=1e-6, atol=1e-9)


def with_adam(model, cfg, flat=False):
    """A checkpoint of *model* after Adam steps, as fairseq saves them: one state a parameter, or
    with ``--fp16`` one for all; and the steps' optimizer."""
    parameters = list(model.parameters())
    adam = torch.optim.Adam(parameters)
    for seed in (1, 2):
        adam.zero_grad()
        model(**net_input(seed=seed))[0].square().sum().backward()
        adam.step()
    saved = adam.state_dict()
    if flat:
        moments = list(saved["state"].values())
        one = {k: torch.cat([m[k].flatten() for m in moments]) for k in ("exp_avg", "exp_avg_sq")}
        saved = {"state": {0: one}, "param_groups": [{**saved["param_groups"][0], "params": [0]}]}
    return checkpoint_of(model, cfg, last_optimizer_state=saved)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        JOINED,
        TIED_OUTPUT,
        {**LEARN, "layernorm_embedding": True},
        {"residual": "analytic", "layernorm_embedding": True},
        {"residual": "deepnorm", "layernorm_embedding": True},
        {**JOINED, "residual": "pre-ln"},
    ],
)
def test_moments_follow_their_parameters(given, flat):
    model, cfg = randomized(**given)
    state = with_adam(model, cfg, flat)
    folded, _ = fold(state, keep_training_state=True)
    _, _, factors, _ = fold_weights(state["model"], state["cfg"]["model"])
    plain = plain_model(folded)
    before = with_adam_by_name(model, state, flat)
    after = with_adam_by_name(plain, folded, flat)
    assert after.keys() == {name for name in before if "omega" not in name}
    for name, moments in after.items():
        factor = factors.get(name, torch.ones(()))
        torch.testing.assert_close(moments["exp_avg"], (before[name]["exp_avg"] / factor).float())
        squared = (before[name]["exp_avg_sq"] / factor**2).float()
        torch.testing.assert_close(moments["exp_avg_sq"], squared)
    assert folded["extra_state"]["train_iterator"] == {"epoch": 3}


def with_adam_by_name(model, state, flat):
    """Moments by parameter, split as the optimizer of *model* would read them."""
    saved = state["last_optimizer_state"]["state"]
    named = list(model.named_parameters())
    if not flat:
        assert len(saved) == len(named)
        return {name: saved[i] for i, (name, _) in enumerate(named)}
    sizes = [p.numel() for _, p in named]
    parts = {k: saved[0][k].split(sizes) for k in ("exp_avg", "exp_avg_sq")}
    return {name: {k: parts[k][i].view_as(p) for k in parts} for i, (name, p) in enumerate(named)}


def test_moments_of_an_optimizer_unknown():
    model, cfg = randomized(**JOINED)
    state = with_adam(model, cfg)
    for moments in state["last_optimizer_state"]["state"].values():
        moments["exp_inf"] = moments.pop("exp_avg_sq")
    with pytest.raises(UserError, match="without the training state"):
        fold(state, keep_training_state=True)


def test_moments_where_there_are_none():
    model, cfg = randomized(**JOINED)
    with pytest.raises(UserError, match="holds no optimizer state"):
        fold(checkpoint_of(model, cfg), keep_training_state=True)


def test_the_other_mean_is_left_out():
    """--store-ema keeps a model of its own, whose omegas would be lost."""
    model, cfg = randomized(**JOINED)
    state = with_adam(model, cfg)
    state["extra_state"]["ema"] = state["model"]
    assert "ema" not in fold(state, keep_training_state=True)[0]["extra_state"]


def test_a_model_of_few_positions():
    model, cfg = randomized(**JOINED, **LEARN, max_source_positions=5, max_target_positions=4)
    assert fold(checkpoint_of(model, cfg))[1].exact < 1e-10


@pytest.mark.parametrize("dtype, bound", [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)])
def test_half_precision_is_bounded(dtype, bound):
    model, cfg = randomized(**JOINED)
    difference = fold(checkpoint_of(model.to(dtype), cfg))[1]
    assert difference.exact < 1e-10
    assert 1e-5 < difference.written < bound * max(1, difference.largest)


def test_a_fold_that_fp16_cannot_hold_is_refused():
    """Norms times an omega of 2e-6 have three digits less in fp16 than before."""
    model, cfg = randomized(**JOINED)
    model.half()
    with torch.no_grad():
        for layer in [*model.encoder.layers, *model.decoder.layers]:
            layer.ffn_residual.omega.fill_(2e-6)
            layer.fc1.weight.mul_(0.05)
            layer.fc1.bias.zero_()
            layer.fc2.weight.mul_(1e3)
    with pytest.raises(UserError, match="does not fit into its precision"):
        fold(checkpoint_of(model, cfg))
    with torch.no_grad():
        layer.fc1.weight.mul_(1e3)
    with pytest.raises(UserError, match="fc1.weight is larger than a number of torch.float16"):
        fold(checkpoint_of(model, cfg))


def test_options_of_the_time_before_hydra():
    """One namespace for the model's and the task's options."""
    model, cfg = randomized(**JOINED)
    state = checkpoint_of(model, cfg)
    options = {**state["cfg"]["model"], "arch": "transformer_admin", "task": "translation_admin"}
    options.update(data="data-bin", source_lang="de", target_lang="en", user_dir="fairseq_admin")
    folded, _ = fold({**state, "args": Namespace(**options), "cfg": None})
    assert folded["cfg"]["task"]["_name"] == folded["cfg"]["model"].task == "translation"
    assert folded["cfg"]["task"]["source_lang"] == "de"
    assert "admin" not in str(folded["cfg"])


def test_a_fold_of_another_task_is_of_fairseqs_own():
    """Of the multilingual one, and of a person's that is not known here."""
    model, cfg = randomized(**JOINED)
    own = {"profile_tokens": 4096, "omega_file": None, "profile_seed": 3, "user_dir": "/home/me"}
    for name, base in (
        ("translation_multi_simple_epoch_admin", "translation_multi_simple_epoch"),
        ("of_a_person", "translation"),
    ):
        state = checkpoint_of(model, cfg)
        state["cfg"]["task"] = {**state["cfg"]["task"], **own, "_name": name, "lang_pairs": "de-en"}
        state["extra_state"] = {"MyTranslation": {"profile": {}}, "metrics": {"a": 1}}
        state["last_optimizer_state"] = with_adam(model, cfg)["last_optimizer_state"]
        folded = fold(state, keep_training_state=True)[0]
        assert folded["cfg"]["task"]["_name"] == folded["cfg"]["model"].task == base
        assert not set(own) & {*folded["cfg"]["task"], *folded["cfg"]["model"]}
        assert ("lang_pairs" in folded["cfg"]["task"]) == (base != "translation")
        assert "MyTranslation" not in folded["extra_state"] and folded["extra_state"]["metrics"]


def test_a_pre_ln_decoder_without_its_last_norm():
    """It cannot be told from Post-LN by its weights: its options say it."""
    model, cfg = randomized(residual="pre-ln", no_decoder_final_norm=True)
    assert fold(checkpoint_of(model, cfg))[1].written == 0


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_are_not_of_the_configuration(tmp_path, change):
    model, cfg = randomized(**JOINED)
    state = checkpoint_of(model, cfg)
    if change == "missing":
        del state["model"]["decoder.layers.0.self_attn.q_proj.weight"]
    elif change == "extra":
        state["model"]["decoder.layers.0.more.weight"] = torch.ones(2)
    else:
        state["cfg"]["model"]["encoder_ffn_embed_dim"] = 8
    refused(tmp_path, state, "not those of the configuration|contradicts itself")


def refused(tmp_path, state, message):
    """Whether folding *state* is refused with *message* and writes nothing."""
    torch.save(state, tmp_path / "in.pt")
    with pytest.raises(UserError, match=message):
        fold_checkpoint(str(tmp_path / "in.pt"), str(tmp_path / "out.pt"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.pt"]


def test_what_cannot_be_folded_is_refused(tmp_path):
    crossed = {"cross_self_attention": True, "no_cross_attention": True}
    model, cfg = randomized(**crossed)
    refused(tmp_path, checkpoint_of(model, cfg), "cross-self-attention")
    with pytest.raises(Unfoldable):  # an evaluation goes on without it
        fold(checkpoint_of(model, cfg))
    model, cfg = randomized(residual="pre-ln", **crossed)
    assert fold(checkpoint_of(model, cfg))[1].written == 0  # a change of names
    model, cfg = randomized(**JOINED)
    state = checkpoint_of(model, cfg)
    state["model"]["encoder.layers.1.ffn_residual.omega"][3] = 0
    refused(tmp_path, state, "encoder.layers.1.ffn_residual.omega is 0")
    state["model"]["encoder.layers.1.ffn_residual.omega"][3] = float("nan")
    refused(tmp_path, state, "diverged")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    plain = build("transformer")
    cfg = model_config("transformer_admin", **TINY)
    refused(tmp_path, checkpoint_of(plain, cfg), "contradicts itself: .* is Admin")
    state = checkpoint_of(plain, cfg)
    del state["cfg"]["model"]["residual"]
    refused(tmp_path, state, "is no checkpoint of transformer_admin: there is nothing to fold")
    state["cfg"]["model"]["residual"] = "magic"
    refused(tmp_path, state, "is of the residual method 'magic', which is not known")


@pytest.mark.parametrize("residual, reason", [("rezero", "no norm"), ("keel", "two norms")])
def test_a_method_that_does_not_fold_says_why(tmp_path, residual, reason):
    for both in (residual, f"{residual}/admin", f"post-ln/{residual}"):
        model, cfg = randomized(residual=both)
        refused(tmp_path, checkpoint_of(model, cfg), f"does not fold .*{reason}.*--user-dir")


def test_a_folded_checkpoint_is_refused(tmp_path):
    model, cfg = randomized(**JOINED)
    torch.save(checkpoint_of(model, cfg), tmp_path / "in.pt")
    fold_checkpoint(str(tmp_path / "in.pt"), str(tmp_path / "out.pt"))
    with pytest.raises(UserError, match="folded already"):
        fold_checkpoint(str(tmp_path / "out.pt"), str(tmp_path / "again.pt"))
    assert not (tmp_path / "again.pt").exists()


def test_the_input_is_never_overwritten(tmp_path):
    model, cfg = randomized(**JOINED)
    source, link = tmp_path / "in.pt", tmp_path / "link.pt"
    torch.save(checkpoint_of(model, cfg), source)
    link.symlink_to(source)
    before = source.read_bytes()
    for output in (source, link):
        with pytest.raises(UserError, match="another name"):
            fold_checkpoint(str(source), str(output))
    assert source.read_bytes() == before


def test_the_bound_is_tight():
    """Rounding of a model in fp64 is far below it."""
    model, cfg = randomized(**JOINED)
    assert fold(checkpoint_of(model.double(), cfg))[1].exact < EXACT / 1000
