"""What probes see of a model, and that they leave it as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from fairseq_admin.analysis.dependency import dependencies
from fairseq_admin.analysis.gradients import gradient_norms
from fairseq_admin.analysis.norms import hidden_norms
from fairseq_admin.analysis.output_change import output_changes
from fairseq_admin.analysis.sublayers import at_rest, attached, named_sublayers
from fairseq_admin.errors import UserError
from fairseq_admin.methods import METHODS
from tests.helpers import LENGTHS, PAD, batched, build, randomized, sentences

PRE_LN = {"encoder_normalize_before": True, "decoder_normalize_before": True}
RESIDUALS = [*METHODS, "post-ln/pre-ln"]


def trained(residual):
    """A model of a method, with norms, biases, omegas and ReZero's a as after training."""
    return randomized(residual=residual)[0]


MODELS = {
    "fairseq's post-ln": lambda: build("transformer"),
    "fairseq's pre-ln": lambda: build("transformer", **PRE_LN),
    "fairseq's mixed": lambda: build("transformer", decoder_normalize_before=True),
    **{residual: lambda residual=residual: trained(residual) for residual in RESIDUALS},
    "new rezero": lambda: build("transformer_admin", residual="rezero"),
    "layerdrop": lambda: build("transformer_admin", encoder_layerdrop=0.9, decoder_layerdrop=0.9),
    "dropout": lambda: build("transformer", dropout=0.3, attention_dropout=0.3),
}
PROBES = {
    "norms": hidden_norms,
    "dependency": dependencies,
    "gradients": gradient_norms,
    "output-change": lambda model, batch, pad: output_changes(model, batch, pad, seed=1),
}


def passages(model, batch):
    """What a probe is shown, by name of the sublayer."""
    seen = {}

    def observe(stack, passage):
        assert passage.sublayer.name.startswith(stack)
        seen[passage.sublayer.name] = passage

    with torch.no_grad(), at_rest(model), attached(model, batch["net_input"], PAD, observe):
        model(**batch["net_input"])
    return seen


def outputs_of(model, batch, modules):
    """What each of *modules* gave in a forward pass."""
    found = {}
    handles = [
        module.register_forward_hook(lambda m, i, output, name=name: found.update({name: output}))
        for name, module in modules.items()
    ]
    with torch.no_grad(), at_rest(model):
        model(**batch["net_input"])
    for handle in handles:
        handle.remove()
    return {n: o[0] if isinstance(o, tuple) else o for n, o in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_branches_are_what_the_modules_give(name):
    model, batch = MODELS[name](), batched(sentences(LENGTHS))
    seen = passages(model, batch)
    layers = [("encoder", i) for i in range(2)] + [("decoder", i) for i in range(2)]
    expected = []
    for stack, i in layers:
        kinds = ("self_attn", "ffn") if stack == "encoder" else ("self_attn", "encoder_attn", "ffn")
        expected += [f"{stack}.layers.{i}.{kind}" for kind in kinds]
    assert list(seen) == expected
    modules = {
        name: getattr(passage.sublayer.layer, passage.sublayer.kind.replace("ffn", "fc2"))
        for name, passage in seen.items()
    }
    for name, output in outputs_of(model, batch, modules).items():
        of_layer = getattr(seen[name].sublayer.layer, "ffn_residual", None)
        output = output * getattr(of_layer, "resweight", 1)  # ReZero's a
        torch.testing.assert_close(seen[name].added, output, atol=1e-4, rtol=1e-4)


def test_no_layer_is_dropped_in_training_mode():
    model = MODELS["layerdrop"]().train()
    before = torch.get_rng_state()
    names = [s.name for sublayers in named_sublayers(model).values() for s in sublayers]
    assert len(names) == 2 * 2 + 2 * 3 and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", MODELS)
def test_stream_goes_from_sublayer_to_sublayer(name):
    model, batch = MODELS[name](), batched(sentences(LENGTHS))
    seen = list(passages(model, batch).values())
    for stack in ("encoder", "decoder"):
        found = [p for p in seen if p.sublayer.name.startswith(stack)]
        for before, after in zip(found, found[1:]):
            assert after.shortcut is before.output
        for passage in found:
            total = passage.shortcut * passage.sublayer.scale + passage.added
            torch.testing.assert_close(total, passage.total)
            norm = passage.sublayer.post_norm
            ends = passage.total if norm is None else norm(passage.total)
            assert torch.equal(passage.output, ends)
    norm = model.encoder.layer_norm or (lambda x: x)
    with torch.no_grad(), at_rest(model):
        ends = model.encoder(batch["net_input"]["src_tokens"])["encoder_out"][0]
    last = [p for p in seen if p.sublayer.name.startswith("encoder")][-1]
    assert torch.equal(norm(last.output), ends)


@pytest.mark.parametrize("residual", METHODS)
def test_where_norms_stand_and_what_multiplies_shortcuts(residual):
    """By the formulas of the methods, at initialization: 4 sublayers in the encoder, 6 in the
    decoder, 2 layers each."""
    scales = {
        "analytic": [(5 / np.log(5) - 1) ** 0.5, (7 / np.log(7) - 1) ** 0.5],
        "deepnorm": [0.81 * (2**4 * 2) ** (1 / 16), (3 * 2) ** 0.25],
        "keel": [4.0, 6.0],
    }.get(residual, [1.0, 1.0])
    model = build("transformer_admin", residual=residual)
    for sublayers, scale in zip(named_sublayers(model).values(), scales):
        for sublayer in sublayers:
            found = torch.as_tensor(sublayer.scale).detach()
            torch.testing.assert_close(found, torch.full_like(found, scale))
            assert (sublayer.post_norm is None) == (residual in ("pre-ln", "rezero"))
            assert (sublayer.norm is None) == (residual == "rezero")


def test_matrices_are_named():
    stacks = named_sublayers(build("transformer_admin"))
    attention = {f"{part}_proj.weight" for part in ("q", "k", "v", "out")}
    for sublayers in stacks.values():
        for sublayer in sublayers:
            ffn = {"fc1.weight", "fc2.weight"}
            assert set(sublayer.weights) == (ffn if sublayer.kind == "ffn" else attention)


def state_of(model):
    """All that a probe might change, bit for bit."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
        "gradients": {n: p.grad for n, p in model.named_parameters()},
        "requires": {n: p.requires_grad for n, p in model.named_parameters()},
        "places": {n: p.data_ptr() for n, p in model.named_parameters()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "hooks": {n: [len(getattr(m, h)) for h in hooks] for n, m in model.named_modules()},
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "numpy": np.random.get_state()[1].tolist(),
    }


def assert_same(before, after):
    weights = before.pop("weights"), after.pop("weights")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert before == after


@pytest.mark.parametrize("probe, name", [(p, n) for p in PROBES for n in MODELS])
def test_a_probe_changes_nothing(probe, name):
    model, batch = MODELS[name](), batched(sentences(LENGTHS))
    model.train()
    model.decoder.layers[0].eval()  # a mixture
    before = state_of(model)
    PROBES[probe](model, batch, PAD)
    assert_same(before, state_of(model))


def test_nor_does_one_that_fails():
    model, batch = MODELS["admin"](), batched(sentences(LENGTHS))
    before = state_of(model)

    def observe(stack, passage):
        raise KeyError(stack)

    with pytest.raises(KeyError), at_rest(model), attached(model, batch["net_input"], PAD, observe):
        model(**batch["net_input"])
    assert_same(before, state_of(model))


@pytest.mark.parametrize("name", ["fairseq's post-ln", *METHODS])
@pytest.mark.parametrize("probe", PROBES)
def test_padding_is_no_part_of_any_number(probe, name):
    model = MODELS[name]()
    tight, wide = (batched(sentences(LENGTHS), **to) for to in ({}, {"source": 40, "target": 37}))
    assert wide["net_input"]["src_tokens"].shape[1] == 40
    numbers = [flat(PROBES[probe](model, batch, PAD)) for batch in (tight, wide)]
    assert len(numbers[0]) > 10
    exact = 1e-5 if probe == "dependency" else 0  # its remainders are differences about 0
    assert numbers[1] == pytest.approx(numbers[0], rel=2e-2, abs=exact)


def flat(found):
    """All numbers in a result."""
    if isinstance(found, dict):
        return [x for value in found.values() for x in flat(value)]
    if isinstance(found, (list, tuple)):
        return [x for value in found for x in flat(value)]
    return [found] if isinstance(found, float) else []


def test_models_of_other_parts():
    with pytest.raises(UserError, match="Linear has no encoder layers"):
        named_sublayers(nn.Linear(1, 1))
    model = build("transformer")
    del model.encoder.layers[1].self_attn_layer_norm
    with pytest.raises(UserError, match=r"encoder.layers.1 .* has no sublayer self_attn"):
        named_sublayers(model)
    model = build("transformer_admin", residual="rezero")
    named_sublayers(model)
    del model.encoder.layers[1].fc2
    with pytest.raises(UserError, match=r"encoder.layers.1 .* has no sublayer ffn"):
        named_sublayers(model)
    model = build("transformer")
    model.decoder.layers[1].w_resid = nn.Parameter(torch.ones(16))
    with pytest.raises(UserError, match=r"decoder.layers.1 .*scale_resids"):
        named_sublayers(model)


def test_a_layer_of_two_streams():
    """As those of ResiDual, which keeps what no norm has touched beside what is normalized."""

    class TwoStreams(nn.Module):
        def __init__(self, layer):
            super().__init__()
            for name, part in layer.named_children():
                self.add_module(name, part)
            self.layer = [layer]  # no part of it
            self.normalize_before = layer.normalize_before

        def forward(self, x, encoder_padding_mask=None):
            x = x[0] if isinstance(x, tuple) else x
            return self.layer[0](x, encoder_padding_mask=encoder_padding_mask), x, x

    model = build("transformer")
    model.encoder.layers = nn.ModuleList(map(TwoStreams, model.encoder.layers))
    with pytest.raises(UserError, match="TwoStreams reads more than one stream"):
        passages(model, batched(sentences(LENGTHS)))
