"""The residual methods: each against its equation and its authors' own code, and what all share."""

import copy
import sys
from types import SimpleNamespace

import admin_torch
import pytest
import torch
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema.ema import EMA
from rezero.transformer import RZTXEncoderLayer
from torch import nn

from fairseq_admin import methods
from fairseq_admin.errors import UserError
from fairseq_admin.layers import ResidualEncoderLayer
from fairseq_admin.methods import METHODS, STACKS, Method, by_stack, junctions_of, method_of, title
from fairseq_admin.model import TransformerAdminModel, nested_config
from fairseq_admin.profiling import named_junctions, profile_model
from fairseq_admin.residuals.deepnorm import constants
from fairseq_admin.residuals.omegas import analytic_omega
from fairseq_admin.residuals.residual import Place, Residual
from tests.helpers import LENGTHS, PAD, TINY, build, make_task, model_config, net_input
from tests.unit.test_model import OPTIONS, losses, outputs

DEEP = {"encoder_layers": 3, "decoder_layers": 4}
NORMS_FIRST = {  # fairseq's own options for a method
    "post-ln": {},
    "pre-ln": {"encoder_normalize_before": True, "decoder_normalize_before": True},
    "post-ln/pre-ln": {"decoder_normalize_before": True},
}
STOCK = pytest.mark.parametrize("residual", NORMS_FIRST)
EVERY = pytest.mark.parametrize("residual", METHODS)


def pair(residual, **given):
    """fairseq's own model and ours of the same method, seed and options."""
    ours = build(residual=residual, parameter_init="fairseq", **given)
    return build("transformer", **NORMS_FIRST[residual], **given), ours


# --- post-ln and pre-ln are fairseq's own transformer, bit for bit


@STOCK
@pytest.mark.parametrize("rates", [0.0, 0.1])
def test_twenty_steps_are_fairseqs_own(residual, rates):
    dropouts = {"dropout": rates, "attention_dropout": rates, "activation_dropout": rates}
    plain, ours = (losses(m, steps=20) for m in pair(residual, **DEEP, **dropouts))
    assert ours == plain and plain[-1] < 0.8 * plain[0]


@pytest.mark.parametrize("residual", ["post-ln", "pre-ln"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_fairseqs_own(residual, name):
    """Keys and weights, and output in training and evaluation; gradients to rounding, since the
    encoder's are summed in another order by a checkpointed layer."""
    plain, ours = pair(residual, **{"dropout": 0.1, **OPTIONS[name]})
    assert list(plain.state_dict()) == list(ours.state_dict())
    for training in (True, False):
        found = [outputs(model.train(training)) for model in (plain, ours)]
        assert torch.equal(*found)
        assert all(torch.equal(x, y) for x, y in zip(plain.parameters(), ours.parameters()))
    for output in found:
        output.square().mean().backward()
    for (key, p), q in zip(plain.named_parameters(), ours.parameters()):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-7, msg=key)


# --- equations

EQUATIONS = {  # of a sublayer's x, branch f, norm, and the junction with its parameters
    "admin": lambda x, f, norm, j: norm(x * j.omega + f(x)),
    "analytic": lambda x, f, norm, j: norm(x * j.omega + f(x)),
    "deepnorm": lambda x, f, norm, j: norm(x * j.alpha + f(x)),
    "rezero": lambda x, f, norm, j: x + j.owner[0].resweight * f(x),
    "keel": lambda x, f, norm, j: norm(j.place.sublayers * x + f(j.norm(x))),
    "post-ln": lambda x, f, norm, j: norm(x + f(x)),
    "pre-ln": lambda x, f, norm, j: x + f(norm(x)),
}


def randomized(residual, **given):
    """A model whose vectors are drawn at random: omegas, norms, biases."""
    model = build(residual=residual, **given).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


@EVERY
def test_a_layer_computes_the_equation(residual):
    """Both kinds of layer, forward and gradients of every parameter, in fp64."""
    assert EQUATIONS.keys() == METHODS.keys()
    model = randomized(residual, **DEEP).double()
    x, memory = (torch.randn(5, 3, 16, dtype=torch.float64) for _ in range(2))
    for layer in (model.encoder.layers[1], model.decoder.layers[1]):
        branches = {
            "self_attn": lambda y, layer=layer: layer.self_attn(y, y, y)[0],
            "encoder_attn": lambda y, layer=layer: layer.encoder_attn(y, memory, memory)[0],
            "ffn": lambda y, layer=layer: layer.fc2(layer.fc1(y).relu()),
        }
        norms = {"self_attn": layer.self_attn_layer_norm, "ffn": layer.final_layer_norm}
        norms["encoder_attn"] = getattr(layer, "encoder_attn_layer_norm", None)
        expected = x
        for name, branch in branches.items():
            junction = getattr(layer, f"{name}_residual", None)
            if junction is not None:
                expected = EQUATIONS[residual](expected, branch, norms[name], junction)
        got = layer(x, None) if "encoder_attn_residual" not in layer._modules else layer(x, memory)
        got = got[0] if isinstance(got, tuple) else got
        # fairseq's cross-attention takes its softmax in fp32
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        parameters = list(layer.parameters())
        found = [torch.autograd.grad(y.square().sum(), parameters) for y in (got, expected)]
        for a, b in zip(*found):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@EVERY
def test_incremental_decoding_equals_full_decoding(residual):
    model, inputs = randomized(residual, **DEEP), net_input([(9, 7), (3, 7), (6, 7)])
    tokens, state = inputs["prev_output_tokens"], {}
    with torch.no_grad():
        memory = model.encoder(inputs["src_tokens"], inputs["src_lengths"])
        full = model.decoder(tokens, encoder_out=memory)[0]
        steps = [
            model.decoder(tokens[:, :n], encoder_out=memory, incremental_state=state)[0]
            for n in range(1, tokens.size(1) + 1)
        ]
    torch.testing.assert_close(torch.cat(steps, dim=1), full, rtol=1e-5, atol=1e-5)


@EVERY
def test_every_parameter_is_used_and_learns(residual):
    """Data parallel training refuses a parameter without a gradient."""
    model = build(residual=residual, share_all_embeddings=True)
    first, last = losses(model, steps=40)[::39]
    assert last < 0.9 * first
    assert all(p.grad is not None for p in model.parameters())


@EVERY
def test_sixteen_bits(residual):
    for dtype in (torch.float16, torch.bfloat16):
        model = build(residual=residual).to(dtype).eval()
        assert outputs(model).dtype == dtype and outputs(model).isfinite().all()


@EVERY
def test_a_profile_measures_every_method(residual):
    """Branch variances for all; omegas where the method has them; weights as they were."""
    model, plain = build(residual=residual), build(residual=residual)
    profile = profile_model(model, [net_input()], PAD, 1)
    variances = [s.branch_var for stack in profile.stacks.values() for s in stack.sublayers]
    assert len(variances) == 10 and min(variances) > 0
    assert len(profile.omegas) == (10 if residual in ("admin", "analytic") else 0)
    assert ("omega" in profile.table()) == bool(profile.omegas)
    if residual != "admin":
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters()))


# --- analytic: admin-torch


@pytest.mark.parametrize("change, theirs", [("log", "O(logn)"), ("constant", "O(1)")])
def test_analytic_omegas_are_those_of_admin_torch(change, theirs):
    for n in (1, 2, 12, 24, 36, 54, 120, 300):
        assert analytic_omega(n, change) == admin_torch.calculate_init(n, theirs)
    model = build(residual="analytic", output_change=change, **DEEP)
    for stack, n in (("encoder", 6), ("decoder", 12)):
        omegas = [j.omega for j in named_junctions(model)[stack].values()]
        assert len(omegas) == n and all(isinstance(omega, nn.Parameter) for omega in omegas)
        expected = torch.full((16,), admin_torch.calculate_init(n, theirs))
        assert all(torch.equal(omega, expected) for omega in omegas)


def test_the_profiles_table_has_the_analytic_omegas_beside_the_measured_ones():
    rows = profile_model(build(), [net_input()], PAD, 1).rows()
    assert {row[3] for row in rows if row[0].startswith("encoder.")} == {f"{analytic_omega(4):.4f}"}
    assert {row[3] for row in rows if row[0].startswith("decoder.")} == {f"{analytic_omega(6):.4f}"}


# --- deepnorm: torchscale

PUBLISHED = {  # alpha and beta of encoder and decoder, three decimals
    (6, 6): (1.418, 0.497, 2.060, 0.343),
    (18, 18): (1.999, 0.353, 2.711, 0.261),
    (60, 12): (2.633, 0.268, 2.450, 0.289),
}


@pytest.mark.parametrize("layers", PUBLISHED)
def test_deepnorms_constants(layers):
    found = [constants(Place(1, stack, dict(zip(STACKS, layers)))) for stack in STACKS]
    assert [x for pair_ in found for x in pair_] == pytest.approx(PUBLISHED[layers], abs=6e-4)


@pytest.fixture
def torchscale(monkeypatch):
    """Its encoder and decoder. What it imports for mixtures of experts, sharding and stochastic
    depth is not installed, and none of it is called here."""
    drop_path, fairscale = SimpleNamespace(drop_path=None), SimpleNamespace()
    for name in ("timm", "timm.models"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "timm.models.layers", drop_path)
    fairscale.checkpoint_wrapper, fairscale.wrap = None, lambda layer: layer
    monkeypatch.setitem(sys.modules, "fairscale", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "fairscale.nn", fairscale)
    for part in ("moe_layer", "routing"):
        made = SimpleNamespace(MOELayer=None, Top1Gate=None, Top2Gate=None)
        monkeypatch.setitem(sys.modules, f"torchscale.component.xmoe.{part}", made)
    from torchscale.architecture.config import EncoderDecoderConfig
    from torchscale.architecture.decoder import Decoder
    from torchscale.architecture.encoder import Encoder

    def made(deepnorm, layers):
        sizes = {f"{stack}_layers": n for stack, n in zip(STACKS, layers)}
        for stack in STACKS:
            sizes.update({f"{stack}_embed_dim": 16, f"{stack}_ffn_embed_dim": 32})
            sizes.update({f"{stack}_attention_heads": 2})
        cfg = EncoderDecoderConfig(**sizes, deepnorm=deepnorm, vocab_size=8, subln=False)
        kinds = {"encoder": Encoder, "decoder": Decoder}
        return {s: kind(cfg, is_encoder_decoder=True) for s, kind in kinds.items()}

    return made


@pytest.mark.parametrize("layers", [(6, 6), (3, 5)])
def test_deepnorm_is_that_of_torchscale(torchscale, layers):
    """The same constants on the shortcut, and the same matrices made smaller by the same factor.
    Only in the encoder's it has 1.15 where the paper's figure 2 has 0.87, which is the inverse."""
    torch.manual_seed(1)
    scaled = torchscale(True, layers)
    torch.manual_seed(1)
    plain = torchscale(False, layers)
    for stack in STACKS:
        alpha, beta = constants(Place(1, stack, dict(zip(STACKS, layers))))
        assert scaled[stack].layers[0].alpha == pytest.approx(alpha, rel=1e-12)
        for (name, a), b in zip(scaled[stack].named_parameters(), plain[stack].parameters()):
            if "layers." in name and name.endswith("weight") and "norm" not in name:
                small = any(part in name for part in ("fc1", "fc2", "v_proj", "out_proj"))
                factor = beta * (1.15 / 0.87 if stack == "encoder" else 1)
                expected = factor if small else 1.0
                assert (a.norm() / b.norm()).item() == pytest.approx(expected, rel=1e-6), name


def test_deepnorms_initialization():
    """xavier_normal of gain beta, or 1 for query and key; biases as chosen."""
    wide = {"encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128, **DEEP}
    model = build(residual="deepnorm", **wide)
    for stack in STACKS:
        _, beta = constants(next(iter(named_junctions(model)[stack].values())).place)
        for name, weight in getattr(model, stack).layers.named_parameters():
            if name.endswith("weight") and weight.dim() == 2:
                gain = 1 if "q_proj" in name or "k_proj" in name else beta
                std = gain * (2 / sum(weight.shape)) ** 0.5
                assert weight.std().item() == pytest.approx(std, rel=0.06), name
            if ".fc" in name and name.endswith("bias"):
                assert not weight.any()


# --- rezero: its authors' package


def test_rezero_is_its_authors_layer():
    """With copied weights, forward and backward."""
    cfg = nested_config(model_config("transformer_rezero", **TINY))
    ours = ResidualEncoderLayer(cfg).double()
    theirs = RZTXEncoderLayer(16, 2, 32, dropout=0.0).double()
    assert [n for n, _ in ours.named_parameters() if "residual" in n] == ["ffn_residual.resweight"]
    assert torch.equal(ours.ffn_residual.resweight, theirs.resweight)  # 0
    with torch.no_grad():
        ours.ffn_residual.resweight.fill_(0.7)
        theirs.resweight.fill_(0.7)
        projections = [getattr(ours.self_attn, f"{x}_proj") for x in "qkv"]
        for projection in projections:
            projection.bias.normal_()
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.self_attn.out_proj.load_state_dict(ours.self_attn.out_proj.state_dict())
        theirs.linear1.load_state_dict(ours.fc1.state_dict())
        theirs.linear2.load_state_dict(ours.fc2.state_dict())
    x = torch.randn(5, 3, 16, dtype=torch.float64)
    found = []
    for layer in (lambda y: ours(y, None), theirs):
        y = x.clone().requires_grad_()
        out = layer(y)
        out.square().sum().backward()
        found.append((out, y.grad))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for a, b in (
        (ours.ffn_residual.resweight, theirs.resweight),
        (ours.fc1.weight, theirs.linear1.weight),
        (ours.self_attn.out_proj.weight, theirs.self_attn.out_proj.weight),
    ):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-6)


def test_rezero_starts_as_the_identity_without_norms():
    model = build(residual="rezero", **DEEP)
    inputs = net_input()
    embedded = model.encoder.forward_embedding(inputs["src_tokens"])[0].transpose(0, 1)
    encoded = model.encoder(inputs["src_tokens"], inputs["src_lengths"])["encoder_out"][0]
    valid = inputs["src_tokens"].ne(PAD).t()
    assert torch.equal(encoded[valid], embedded[valid])
    assert not any("layer_norm" in key for key in model.state_dict())
    resweights = {id(p) for n, p in model.named_parameters() if n.endswith("resweight")}
    assert len(resweights) == sum(DEEP.values())  # one a layer


# --- an eighth method


class LayerScaleResidual(Residual):
    """``LN(x + gamma * f(x))``, gamma a trained vector (Touvron et al. 2021)."""

    unfoldable = "it scales the branch"

    def __init__(self, place):
        super().__init__(place)
        self.gamma = nn.Parameter(torch.full((place.embed_dim,), 0.1))

    def add(self, x, branch):
        return torch.addcmul(x, branch, self.gamma)


def test_an_eighth_method_is_a_class_and_a_line(monkeypatch):
    """It trains, is profiled, and is told from others."""
    file = SimpleNamespace(LayerScaleResidual=LayerScaleResidual)
    monkeypatch.setitem(sys.modules, "layerscale", file)
    line = Method("LayerScale", "#000000", "layerscale.LayerScaleResidual")
    monkeypatch.setitem(methods.METHODS, "layerscale", line)
    model = build(residual="layerscale", share_all_embeddings=True)
    first, last = losses(model, steps=40)[::39]
    assert last < 0.9 * first
    assert not torch.equal(model.encoder.layers[1].ffn_residual.gamma, torch.full((16,), 0.1))
    sublayers = profile_model(model, [net_input()], PAD, 1).stacks["decoder"].sublayers
    assert len(sublayers) == 6 and min(s.branch_var for s in sublayers) > 0
    assert title(method_of({"residual": "layerscale"})) == "LayerScale"
    with pytest.raises(UserError, match="encoder is of LayerScale, the model's of Admin"):
        build().load_state_dict(model.state_dict())


# --- names, options, checkpoints


def test_names_of_methods():
    assert by_stack("post-ln/pre-ln") == {"encoder": "post-ln", "decoder": "pre-ln"}
    assert method_of({"residual": "keel/keel"}) == "keel"
    assert method_of({"decoder_normalize_before": True}) == "post-ln/pre-ln"
    named = {"transformer_admin_iwslt_de_en": "admin", "transformer_post_ln": "post-ln"}
    named.update(transformer_deepnorm="deepnorm", transformer="post-ln", transformer_admin="admin")
    assert {arch: method_of({"_name": arch}) for arch in named} == named
    assert title("post-ln/pre-ln") == "Post-LN/Pre-LN" and title("conv") == "conv"
    assert len({m.colour for m in METHODS.values()}) == len(METHODS)
    assert all(issubclass(junctions_of(name)["encoder"], Residual) for name in METHODS)


@pytest.mark.parametrize("residual", ["magic", "", "admin/magic", "admin/", "admin/admin/admin"])
def test_an_unknown_method_names_those_there_are(residual):
    with pytest.raises(UserError) as told:
        build(residual=residual)
    assert "admin, analytic, deepnorm, rezero, keel, post-ln, pre-ln" in str(told.value)
    assert f"--residual {residual}: " in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "residual, given, option",
    [
        ("deepnorm", {"learn_first_omega": True}, "--learn-first-omega"),
        ("analytic", {"learn_first_omega": True}, "--learn-first-omega"),
        ("admin", {"output_change": "constant"}, "--output-change"),
    ],
)
def test_an_option_that_means_nothing_is_refused(residual, given, option):
    with pytest.raises(UserError, match=f"{option} means nothing to --residual {residual}: leave"):
        build(residual=residual, **given)
    build(residual=f"{residual}/admin" if option == "--learn-first-omega" else "analytic", **given)


@EVERY
def test_a_checkpoint_of_another_method_is_told_by_its_weights(residual, states):
    """Admin's and analytic's are alike: the task compares their options."""
    model = build(residual=residual)
    for given, state in states.items():
        if residual == given or {residual, given} == {"admin", "analytic"}:
            model.load_state_dict(state)
            continue
        with pytest.raises(UserError) as told:
            model.load_state_dict(state)
        assert f"of {title(given)}" in str(told.value) or f"or {title(given)}" in str(told.value)
        assert f"the model's of {title(residual)}; give its own --residual" in str(told.value)
        assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def states():
    """Weights of a model by method."""
    return {name: build(residual=name, seed=2).state_dict() for name in METHODS}


@EVERY
def test_pruning_where_a_model_is_decoded_leaves_its_constants(residual):
    """The layers that are kept compute what they computed in the whole model."""
    trained = randomized(residual, encoder_layers=4, decoder_layers=4)
    kept = {"encoder_layers_to_keep": "0,2", "decoder_layers_to_keep": "0,2"}
    given = {"residual": residual, "encoder_layers": 4, "decoder_layers": 4, **kept}
    pruned, flat = build(**given).eval(), model_config("transformer_admin", **{**TINY, **given})
    pruned.load_state_dict(trained.state_dict(), model_cfg=flat)
    for stack in (trained.encoder, trained.decoder):
        del stack.layers[3], stack.layers[1]
    assert torch.equal(outputs(pruned), outputs(trained))


def test_a_constant_of_another_model_is_told():
    state = build(residual="deepnorm").state_dict()
    state["decoder.layers.1.ffn_residual.alpha"] += 1
    with pytest.raises(UserError, match=r"decoder.layers.1.ffn_residual.alpha is 2\.565 there"):
        build(residual="deepnorm").load_state_dict(state)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"no_cross_attention": True}, "a decoder with cross-attention"),
        ({"decoder_layers": 0}, "give both layers"),
    ],
)
def test_what_deepnorm_has_no_constants_for_is_refused(given, told):
    with pytest.raises(UserError, match=told) as error:
        build(residual="deepnorm", **given)
    assert "\n" not in str(error.value)


def test_rezeros_number_is_one_parameter_under_one_key():
    """fairseq's EMA steps by key: two keys of one parameter would decay twice."""
    model = build(residual="rezero")
    ema = EMA(model, EMAConfig(store_ema=True, ema_decay=0.9))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "resweight" in name else None
    ema.step(model)
    moved = [v.item() for k, v in ema.model.state_dict().items() if k.endswith("resweight")]
    assert moved == [pytest.approx(0.1)] * 4
    copied = copy.deepcopy(model).double()
    junctions = copied.encoder.layers[1]
    assert junctions.self_attn_residual.owner[0] is junctions.ffn_residual
    assert junctions.ffn_residual.resweight.dtype == torch.float64


def test_a_nested_config_is_built_more_than_once():
    cfg = nested_config(model_config("transformer_admin", **TINY, residual="pre-ln"))
    for _ in range(2):
        assert TransformerAdminModel.build_model(cfg, make_task()).encoder.layer_norm is not None


@STOCK
def test_a_checkpoint_of_fairseqs_own_transformer_goes_on_as_its_method(residual):
    _, ours = pair(residual)
    plain = build("transformer", seed=2, **NORMS_FIRST[residual])
    ours.load_state_dict(plain.state_dict())
    assert len(LENGTHS) == len(outputs(plain)) and torch.equal(outputs(plain), outputs(ours))
