"""transformer_admin: with every omega 1 it is fairseq's `transformer`; options, errors, sizes."""

import logging
import math
import re
from argparse import Namespace
from dataclasses import fields, is_dataclass

import pytest
import torch
from fairseq import models
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.models.transformer import TransformerConfig

from fairseq_admin.errors import UserError
from fairseq_admin.methods import METHODS, STACKS
from fairseq_admin.model import nested_config
from fairseq_admin.profiling import named_junctions, profile_model
from tests.helpers import (
    LENGTHS,
    PAD,
    TINY,
    batched,
    build,
    make_task,
    model_config,
    net_input,
    sentences,
)

DEEP = {"encoder_layers": 3, "decoder_layers": 3}


def pair(**given):
    """fairseq's own model and ours with every omega 1, of the same seed and options."""
    ours = build(parameter_init="fairseq", **given)
    for junctions in named_junctions(ours).values():
        for junction in junctions.values():
            junction.omega.requires_grad_(False)
    return build("transformer", **given), ours


def without_omegas(model):
    return {key: v for key, v in model.state_dict().items() if not key.endswith(".omega")}


def assert_same_weights(plain, ours):
    expected, got = plain.state_dict(), without_omegas(ours)
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert torch.equal(got[key], value), key


def outputs(model, seed=1):
    torch.manual_seed(seed)
    return model(**net_input())[0]


# --- omega == 1 equals fairseq's own model


def test_junctions_draw_nothing():
    """The random state after a model was built is that after fairseq's own."""
    states = []
    for arch, given in (("transformer", {}), ("transformer_admin", {"parameter_init": "fairseq"})):
        build(arch, **given)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("rates", [0.0, 0.1])
def test_training_steps_equal_fairseqs(rates):
    """20 steps of the same losses, with dropout too: both draw their masks from the same random
    stream. To 1e-6: autograd adds the gradients of a shortcut's readers in another order."""
    dropouts = {"dropout": rates, "attention_dropout": rates, "activation_dropout": rates}
    plain, ours = (
        losses(model, steps=20) for model in pair(**DEEP, **dropouts, share_all_embeddings=True)
    )
    assert len(ours) == 20
    assert plain[0] == ours[0] and plain[-1] < 0.8 * plain[0]  # it does train
    assert ours == pytest.approx(plain, rel=1e-6)


def losses(model, steps):
    """Label-smoothed losses of *steps* Adam updates on batches of changing size."""
    task = make_task()
    criterion = LabelSmoothedCrossEntropyCriterion(task, True, label_smoothing=0.1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=3e-3, betas=(0.9, 0.98))
    batches = [batched(sentences(LENGTHS[: 2 + i % 3], seed=i % 3)) for i in range(steps)]
    torch.manual_seed(1)
    model.train()
    found = []
    for batch in batches:
        loss, tokens, _ = criterion(model, batch)
        loss = loss / tokens
        adam.zero_grad()
        loss.backward()
        adam.step()
        found.append(loss.item())
    return found


# --- every option of fairseq's own transformer

OPTIONS = {
    "none": {},
    "no cross-attention": {"no_cross_attention": True},
    "cross+self-attention": {"no_cross_attention": True, "cross_self_attention": True},
    "layernorm_embedding": {"layernorm_embedding": True},
    "unequal widths": {
        "encoder_embed_dim": 16,
        "decoder_embed_dim": 24,
        "decoder_ffn_embed_dim": 40,
        "decoder_input_dim": 24,
        "decoder_output_dim": 24,
    },
    "decoder projections": {
        "decoder_embed_dim": 16,
        "decoder_input_dim": 12,
        "decoder_output_dim": 20,
    },
    "learned positions": {"encoder_learned_pos": True, "decoder_learned_pos": True},
    "no positions": {"no_token_positional_embeddings": True},
    "no_scale_embedding": {"no_scale_embedding": True},
    "gelu": {"activation_fn": "gelu"},
    "quant noise": {"quant_noise_pq": 0.1, "quant_noise_pq_block_size": 4},
    "layerdrop": {"encoder_layerdrop": 0.3, "decoder_layerdrop": 0.3},
    "shared embeddings": {"share_all_embeddings": True},
    "tied output": {"share_decoder_input_output_embed": True},
    "merged embeddings": {"merge_src_tgt_embed": True},
    "attention dropout": {"attention_dropout": 0.1},
    "relu_dropout": {"relu_dropout": 0.1},
    "checkpointing": {"checkpoint_activations": True},
    "layers to keep": {"encoder_layers_to_keep": "0,1", "decoder_layers_to_keep": "0"},
}


@pytest.mark.parametrize("kept", ["TransformerEncoder", "TransformerDecoderLayerBase", "x"])
def test_dropout_is_retained_in_modules_by_fairseqs_names(kept):
    """--retain-dropout-modules of fairseq-generate."""
    found = []
    for name in ("transformer", "transformer_admin"):
        model = build(name, **TINY)
        generation = Namespace(retain_dropout=True, retain_dropout_modules=[kept])
        model.prepare_for_inference_(Namespace(generation=generation))
        modules = {n: getattr(m, "apply_during_inference", None) for n, m in model.named_modules()}
        found.append({n for n, retained in modules.items() if retained})
    assert found[0] == found[1] and bool(found[0]) == (kept != "x")


@pytest.mark.parametrize("name", OPTIONS)
def test_option_means_what_it_means_in_fairseq(name):
    """The same weights, output and gradients as fairseq's model of the same option, dropout on;
    then it profiles, and trains a step with its omegas."""
    given = {"dropout": 0.1, **OPTIONS[name]}
    plain, ours = pair(**given)
    assert_same_weights(plain, ours)
    results = []
    for model in (plain, ours):
        out = outputs(model.train())
        out.square().mean().backward()
        results.append((out, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    (expected, expected_grads), (got, grads) = results
    assert torch.equal(got, expected)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-5)

    model = build(**given)
    profile = profile_model(model, [net_input()], PAD, 1)
    kinds = 2 if given.get("no_cross_attention") else 3
    layers = [len(stack.layers) for stack in (model.encoder, model.decoder)]
    assert [len(profile.stacks[s].sublayers) for s in STACKS] == [2 * layers[0], kinds * layers[1]]
    assert all(omega > 0.1 for omega in profile.omegas)
    (loss,) = losses(model, steps=1)
    assert math.isfinite(loss)
    if name != "layerdrop":
        unused = "encoder." if name == "no cross-attention" else "none"
        omegas = [(n, p) for n, p in model.named_parameters() if n.endswith(".omega")]
        assert all(p.grad.abs().sum() > 0 for n, p in omegas if not n.startswith(unused))


def test_adaptive_softmax():
    """As with fairseq's model, the decoder then ends in features, for criterion adaptive_loss."""
    given = {"adaptive_softmax_cutoff": [20, 40], "share_decoder_input_output_embed": False}
    plain, ours = pair(**given)
    assert_same_weights(plain, ours)
    target = batched(sentences(LENGTHS))["target"]
    for model in (plain, ours):
        loss, _ = model.decoder.adaptive_softmax(outputs(model), target)
        sum(part.square().sum() for part in loss if part is not None).backward()
    trained = [(n, p) for n, p in ours.named_parameters() if not n.endswith(".omega")]
    for (name, expected), (_, got) in zip(plain.named_parameters(), trained):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-4, msg=name)
    assert len(profile_model(ours, [net_input()], PAD, 1).omegas) == 10


# --- decoding


@pytest.mark.parametrize("heads", [None, 1, 2])
def test_alignment_attention_of_a_layer(heads):
    """`(batch, tgt_len, src_len)`, the mean of the first *heads* heads, as fairseq's decoder."""
    results = []
    for model in pair(**DEEP):
        inputs = net_input()
        with torch.no_grad():
            _, extra = model.eval()(**inputs, alignment_layer=1, alignment_heads=heads)
        results.append(extra["attn"][0])
    assert results[0].shape == (5, 12, 11)
    assert torch.equal(*results)
    assert results[1].sum(dim=-1) == pytest.approx(1, abs=1e-5)


def test_attention_of_each_head():
    model = build().eval()
    layer, x = model.decoder.layers[0], torch.randn(4, 3, 16)
    _, attn, _ = layer(x, encoder_out=torch.randn(5, 3, 16), need_head_weights=True)
    assert attn.shape == (2, 3, 4, 5)  # heads, batch, tgt_len, src_len


def test_encoder_layer_returns_its_ffn_output_when_asked():
    """fairseq's `return_fc`; what `--arch` alone never asks for."""
    from fairseq.modules.transformer_layer import TransformerEncoderLayerBase

    from fairseq_admin.layers import ResidualEncoderLayer

    cfg = nested_config(model_config("transformer_admin", **TINY, parameter_init="fairseq"))
    x, results = torch.randn(4, 3, 16), []
    for make in (TransformerEncoderLayerBase, ResidualEncoderLayer):
        torch.manual_seed(1)
        results.append(make(cfg, return_fc=True)(x, None))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


# --- options of its own


def test_paper_initialization_of_the_ffn():
    """xavier_uniform with zero biases; everything else as fairseq draws it."""
    wide = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 96}
    paper, plain = build(**wide), build("transformer", **wide)
    bound = math.sqrt(6 / (32 + 96))
    for stack in STACKS:
        for layer in getattr(paper, stack).layers:
            for linear in (layer.fc1, layer.fc2):
                assert linear.weight.abs().max() <= bound
                assert linear.weight.abs().max() > 0.98 * bound
                assert linear.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.1)
                assert not linear.bias.any()
    same = [k for k, v in plain.state_dict().items() if torch.equal(v, paper.state_dict()[k])]
    assert "encoder.embed_tokens.weight" in same
    assert not any(".fc" in key for key in same)


def test_learn_first_omega():
    """By default the first omega of each stack is saved but not trained."""
    firsts = {f"{stack}.layers.0.self_attn_residual.omega" for stack in STACKS}
    constant, learned = build(), build(learn_first_omega=True)
    all_omegas = {key for key in constant.state_dict() if key.endswith(".omega")}
    assert len(all_omegas) == 10
    assert list(learned.state_dict()) and set(learned.state_dict()) == set(constant.state_dict())
    trained = {n for n, _ in learned.named_parameters() if n.endswith(".omega")}
    assert trained == all_omegas
    assert {n for n, _ in constant.named_parameters() if n.endswith(".omega")} == trained - firsts
    learned.load_state_dict(constant.state_dict())  # one's checkpoint is the other's


@pytest.mark.parametrize("stack", STACKS)
def test_pre_ln_is_refused(stack):
    with pytest.raises(UserError, match="transformer_admin takes --residual pre-ln") as error:
        build(**{f"{stack}_normalize_before": True})
    assert "\n" not in str(error.value)


# --- architectures

NAMES = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
SIZES = {  # encoder and decoder: NAMES, as the issue and the papers give them
    "transformer_admin": ((6, 512, 2048, 8), (6, 512, 2048, 8)),
    "transformer_admin_iwslt_de_en": ((6, 512, 1024, 4), (6, 512, 1024, 4)),
    "transformer_admin_wmt_en_de": ((6, 512, 2048, 8), (6, 512, 2048, 8)),
    "transformer_admin_wmt_en_de_12l": ((12, 512, 2048, 8), (12, 512, 2048, 8)),
    "transformer_admin_wmt_en_de_18l": ((18, 512, 2048, 8), (18, 512, 2048, 8)),
    "transformer_admin_wmt_en_fr": ((6, 512, 2048, 8), (6, 512, 2048, 8)),
    "transformer_admin_wmt_en_fr_60l_12l": ((60, 512, 2048, 8), (12, 512, 2048, 8)),
    "transformer_admin_36l_12l_768": ((36, 768, 3072, 12), (12, 768, 3072, 12)),
}


@pytest.mark.parametrize("arch", SIZES)
def test_sizes_of_an_architecture(arch):
    cfg = nested_config(model_config(arch))
    assert SIZES[arch] == tuple(
        tuple(getattr(getattr(cfg, stack), name) for name in NAMES) for stack in STACKS
    )
    narrow = {"encoder_embed_dim": 24, "encoder_ffn_embed_dim": 8}
    model = models.build_model(model_config(arch, **narrow), make_task())
    assert [len(model.encoder.layers), len(model.decoder.layers)] == [
        sizes[0] for sizes in SIZES[arch]
    ]
    assert model.decoder.layers[0].embed_dim == 24  # follows the encoder's width, as in fairseq
    assert model.decoder.layers[0].fc1.out_features == 8


def test_every_registered_architecture_is_tested():
    ours = {name for name in models.ARCH_MODEL_REGISTRY if name.startswith("transformer_admin")}
    assert ours == set(SIZES)


@pytest.mark.parametrize("residual", METHODS)
def test_each_method_is_an_architecture_of_the_base_sizes(residual):
    arch = f"transformer_{residual.replace('-', '_')}"
    expected = settings(nested_config(model_config("transformer_admin", residual=residual)))
    assert settings(nested_config(model_config(arch))) == expected


@pytest.mark.parametrize(
    "ours, fairseqs",
    [
        ("transformer_admin", "transformer"),
        ("transformer_admin_iwslt_de_en", "transformer_iwslt_de_en"),
        ("transformer_admin_wmt_en_de", "transformer_wmt_en_de"),
    ],
)
def test_every_default_is_that_of_fairseqs_architecture(ours, fairseqs):
    """Also of options that the tests do not name."""
    flat = Namespace()
    models.ARCH_CONFIG_REGISTRY[fairseqs](flat)
    expected = settings(TransformerConfig.from_namespace(flat))
    got = settings(nested_config(model_config(ours)))
    different = {k: (v, got[k]) for k, v in expected.items() if got[k] != v}
    assert different == {}


def settings(config):
    """Dotted names and values of a nested dataclass."""
    found = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            found.update({f"{f.name}.{name}": v for name, v in settings(value).items()})
        elif not f.name.startswith("_"):
            found[f.name] = value
    return found


# --- checkpoints that do not fit


def fails_to_load(model, state_dict):
    with pytest.raises(UserError) as error:
        model.load_state_dict(state_dict, model_cfg=model.cfg)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"encoder_layers": 3, "decoder_layers": 1}, "it has 3-1 layers, the model has 2-2"),
        ({"encoder_embed_dim": 24}, "embed_tokens.weight is (64, 24) there and (64, 16) in the"),
        ({"types": 70}, "embed_tokens.weight is (74, 16) there and (64, 16) in the model"),
    ],
)
def test_checkpoint_of_other_sizes(given, told):
    assert told in fails_to_load(build(), build(**given).state_dict())


@pytest.mark.parametrize("option", ["layernorm_embedding", "encoder_learned_pos"])
def test_checkpoint_of_other_keys(option):
    told = (
        r"^fairseq_admin: the {} has no encoder\.[a-z_]+\.weight: give the options of its training"
    )
    other = build(**{option: True})
    assert re.match(told.format("checkpoint"), fails_to_load(other, build().state_dict()))
    assert re.match(told.format("model"), fails_to_load(build(), other.state_dict()))


@pytest.mark.parametrize("name", ["encoder_ratio_change", "residual_cross.omega", "rezero_weight"])
def test_checkpoint_of_a_fork(name):
    weights = {**build("transformer").state_dict(), f"decoder.layers.0.{name}": torch.ones(2)}
    assert "the checkpoint is of a fork of fairseq that scales" in fails_to_load(build(), weights)


def test_checkpoint_with_the_keys_of_older_releases():
    model = build(share_decoder_input_output_embed=True)
    weights, old = model.state_dict(), "encoder.layers.0.self_attn."
    for kind in ("weight", "bias"):
        parts = [weights.pop(f"{old}{x}_proj.{kind}") for x in "qkv"]
        weights[f"{old}in_proj_{kind}"] = torch.cat(parts)
        norm = weights.pop(f"decoder.layers.1.final_layer_norm.{kind}")
        weights[f"decoder.layers.1.layer_norms.2.{kind}"] = norm
    weights["decoder.embed_positions._float_tensor"] = torch.zeros(1)
    del weights["decoder.output_projection.weight"]
    fresh = build(seed=2, share_decoder_input_output_embed=True)
    fresh.load_state_dict(weights)
    for key, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


IMPOSSIBLE = {
    "--dropout 1.5: give a share": {"dropout": 1.5},
    "--attention-dropout -0.1: give a share": {"attention_dropout": -0.1},
    "--activation-dropout nan: give a share": {"activation_dropout": math.nan},
    "--encoder-embed-dim 16 is not divisible by --encoder-attention-heads 3": {
        "encoder_attention_heads": 3
    },
    "--decoder-attention-heads 0: give": {"decoder_attention_heads": 0},
}


@pytest.mark.parametrize("told", IMPOSSIBLE)
def test_numbers_that_no_model_has(told):
    with pytest.raises(UserError, match=f"{told}.*from 0 to 1|{told}.*heads that divides it"):
        build(**IMPOSSIBLE[told])


# --- training without a profile


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "fairseq_admin.model"]


def test_training_without_a_profile_is_said_once(caplog):
    model = build()
    with caplog.at_level(logging.WARNING):
        model.set_num_updates(0)
        model.set_num_updates(0)
        model.set_num_updates(1)
    (message,) = warnings_of(caplog)
    assert "NO OMEGA WAS PROFILED" in message


def test_a_loaded_model_has_its_omegas(caplog):
    model = build()
    model.load_state_dict(build().state_dict())
    with caplog.at_level(logging.WARNING):
        model.set_num_updates(0)
    assert warnings_of(caplog) == []
