"""The numbers of the probes, against values worked out by hand or by another way."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fairseq_admin.analysis import updates
from fairseq_admin.analysis.dependency import dependencies, expected_diagonal
from fairseq_admin.analysis.gradients import gradient_norms
from fairseq_admin.analysis.norms import hidden_norms
from fairseq_admin.analysis.omega import omegas
from fairseq_admin.analysis.output_change import (
    NOISE,
    STEP,
    against_depth,
    fit,
    fits,
    gradient_steps,
    moved,
    output_changes,
    random_steps,
)
from fairseq_admin.analysis.sublayers import at_rest, named_sublayers
from fairseq_admin.errors import UserError
from fairseq_admin.methods import METHODS
from fairseq_admin.profiling import profile_model, profiled
from tests.helpers import LENGTHS, PAD, batched, build, randomized, sentences


@pytest.fixture
def batch():
    return batched(sentences(LENGTHS))


@pytest.mark.parametrize("arch", ["transformer", "transformer_admin"])
@pytest.mark.parametrize("pre_ln", [False, True])
def test_norm_of_the_stack_output(batch, pre_ln, arch):
    """The last sum of a stack, normalized, is its output; and its square is what is told."""
    if arch == "transformer_admin":
        model = build(arch, residual="pre-ln" if pre_ln else "post-ln")
    else:
        model = build(arch, encoder_normalize_before=pre_ln, decoder_normalize_before=pre_ln)
    rows = hidden_norms(model, batch, PAD)["encoder"]
    sums = []
    norm = model.encoder.layer_norm if pre_ln else model.encoder.layers[-1].final_layer_norm
    handle = norm.register_forward_pre_hook(lambda module, inputs: sums.append(inputs[0]))
    tokens = batch["net_input"]["src_tokens"]
    with torch.no_grad(), at_rest(model):
        model.encoder(tokens)
    handle.remove()
    squares = sums[0][tokens.ne(PAD).t()].square().sum(-1)  # of each token
    assert rows[-1]["norm2"] == pytest.approx(squares.mean().item() / 16, rel=1e-5)
    assert [row["kind"] for row in rows] == ["input"] + 2 * ["self_attn", "ffn"]


def pre_ln_of_fairseq():
    model = build("transformer", encoder_normalize_before=True, decoder_normalize_before=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("residual", ["fairseq", *METHODS])
def test_shares_make_up_the_sum(batch, residual):
    """x_i is the sum of what each branch gave, also with trained gains, biases and omegas; so the
    squares and covariances of the shares of a normalized vector sum to 1."""
    ours = residual in METHODS
    model = randomized(residual=residual)[0] if ours else pre_ln_of_fairseq()
    stream = residual in ("fairseq", "pre-ln", "rezero")  # no norm behind its sums
    for found in dependencies(model, batch, PAD).values():
        for i, row in enumerate(found["rows"], 1):
            assert len(row["beta"]) == i + 1
            assert row["unexplained"] < 1e-4
            assert stream == (row["bias"] == 0) or i == 1


@pytest.mark.parametrize("residual", METHODS)
def test_dependency_at_initialization(batch, residual):
    """Branches are independent: squares sum to about 1, and the diagonal is the expected one."""
    sizes = {"encoder_embed_dim": 64, "encoder_ffn_embed_dim": 64, "residual": residual}
    model = build("transformer_admin", **sizes)
    if profiled(model):
        profile_model(model, [batch["net_input"]], PAD, seed=1)
    for found in dependencies(model, batch, PAD).values():
        diagonal = [row["beta"][-1] for row in found["rows"]]
        assert diagonal == pytest.approx(found["expected"], rel=0.15)
        for row in found["rows"]:
            assert abs(row["remainder"]) < 0.2
        assert (max(diagonal) == 0) == (residual == "rezero")  # its branches are 0


def test_dependency_by_hand(batch):
    """Two sublayers of an encoder whose branches are switched off or are constants of a token."""
    model = build("transformer_admin", encoder_layers=1)
    layer = model.encoder.layers[0]
    layer.ffn_residual.fill(3.0)
    with torch.no_grad():
        for parameter in (*layer.self_attn.out_proj.parameters(), *layer.fc2.parameters()):
            parameter.zero_()
        layer.fc2.bias[0] = 4.0  # the same for all tokens: 16 channels, one of them 4
    first, second = dependencies(model, batch, PAD)["encoder"]["rows"]
    assert first["beta"] == pytest.approx([1.0, 0.0], abs=1e-4)
    # a branch of 16 channels (4, 0, ..., 0) has variance 1 - 1/16, beside a shortcut of 9
    assert second["beta"][1] == 0 and second["bias"] == 0
    variance = 1 - 1 / 16
    assert second["beta"][2] ** 2 == pytest.approx(variance / (9 + variance), rel=0.3)
    assert second["beta"][0] ** 2 == pytest.approx(9 / (9 + variance), rel=0.3)


def test_expected_diagonal_by_hand():
    """With all variances 1: 1/(i+1) of Pre-LN and Admin, 1/2 of Post-LN, 1/10 of shortcuts that
    are scaled by 3; nothing of branches that are 0."""
    ones, falling = [1.0] * 3, [math.sqrt(1 / 2), math.sqrt(1 / 3), math.sqrt(1 / 4)]
    assert expected_diagonal(1.0, ones, ones, post_norm=False) == pytest.approx(falling)
    omegas = [1.0, math.sqrt(2), math.sqrt(3)]
    assert expected_diagonal(1.0, ones, omegas, post_norm=True) == pytest.approx(falling)
    halves = [math.sqrt(1 / 2)] * 3
    assert expected_diagonal(1.0, ones, ones, post_norm=True) == pytest.approx(halves)
    tenths = [math.sqrt(1 / 19), math.sqrt(1 / 10)]
    assert expected_diagonal(2.0, [1.0] * 2, [3.0] * 2, post_norm=True) == pytest.approx(tenths)
    assert expected_diagonal(3.0, [1.0], ones, post_norm=True) == [0.5]
    assert expected_diagonal(1.5, [0.0] * 2, ones, post_norm=False) == [0.0, 0.0]


def test_gradients_are_those_of_a_backward_pass(batch):
    model = build("transformer_admin", share_all_embeddings=True)
    found = gradient_norms(model, batch, PAD)
    model.eval()
    logits = model(**batch["net_input"])[0].flatten(0, 1)
    nn.functional.cross_entropy(logits, batch["target"].flatten(), ignore_index=PAD).backward()
    parameters = dict(model.named_parameters())
    for rows in found.values():
        for row in rows:
            prefix = row["name"][: -len(".ffn")] if row["kind"] == "ffn" else row["name"]
            for name, norm in row["parameters"].items():
                gradient = parameters[f"{prefix}.{name}.weight"].grad
                assert norm == pytest.approx(gradient.norm().item(), rel=1e-4, abs=1e-9)
            squares = sum(norm**2 for norm in row["parameters"].values())
            assert row["weights"] == pytest.approx(math.sqrt(squares))


def test_gradient_of_an_output(batch):
    """That of the decoder's last sublayer is the gradient of what the projection reads."""
    model = build("transformer_admin", share_all_embeddings=True)
    found = gradient_norms(model, batch, PAD)["decoder"][-1]["output"]
    with at_rest(model):
        features, _ = model(**batch["net_input"], features_only=True)
        features = features.detach().requires_grad_(True)
        logits = model.decoder.output_layer(features).flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, batch["target"].flatten(), ignore_index=PAD)
        loss.backward()
    assert found == pytest.approx(features.grad.norm().item(), rel=1e-4)


def test_steps():
    weights = [nn.Parameter(torch.randn(40, 50)), nn.Parameter(3 * torch.randn(20, 30))]
    for weight, step in zip(weights, random_steps(weights, seed=1)):
        assert step.std().item() == pytest.approx(NOISE * weight.std().item(), rel=0.1)
    assert torch.equal(*(next(random_steps(weights, seed=1)) for _ in range(2)))
    assert not torch.equal(*(next(random_steps(weights, seed=seed)) for seed in (1, 2)))
    gradients = [torch.randn(40, 50), torch.randn(20, 30)]
    steps = list(gradient_steps(weights, gradients))
    length = math.sqrt(sum(step.square().sum().item() for step in steps))
    mean = sum(weight.norm().item() for weight in weights) / 2
    assert length == pytest.approx(STEP * mean, rel=1e-4)
    for step, gradient in zip(steps, gradients):
        cosine = nn.functional.cosine_similarity(step.flatten(), gradient.flatten(), dim=0)
        assert cosine.item() == pytest.approx(-1, abs=1e-5)


def test_moved_weights_come_back_bit_for_bit_also_after_an_error():
    weights = [nn.Parameter(torch.randn(30, 30))]
    before = weights[0].detach().clone()
    with pytest.raises(KeyError), moved(weights, random_steps(weights, 1)):
        assert not torch.equal(weights[0], before)
        raise KeyError
    assert torch.equal(weights[0], before)


def test_output_change_of_one_matrix(batch):
    """The change of the encoder's output, against a model that was changed by hand."""
    model = build("transformer")
    changes = output_changes(model, batch, PAD, seed=5)
    sublayers = named_sublayers(model)["encoder"]
    weights = [weight for sublayer in sublayers for weight in sublayer.weights.values()]
    tokens = batch["net_input"]["src_tokens"]
    with torch.no_grad(), at_rest(model):
        before = model.encoder(tokens)["encoder_out"][0]
        for weight, step in zip(weights, random_steps(weights, seed=5)):
            weight.add_(step)
        after = model.encoder(tokens)["encoder_out"][0]
    change = (after - before)[tokens.ne(PAD).t()].square().mean().item()
    assert changes["encoder"]["random"][-1] == pytest.approx(change, rel=1e-3)
    assert 0 < changes["encoder"]["gradient"][-1] < changes["encoder"]["random"][-1]
    assert len(changes["encoder"]["random"]) == 4 and len(changes["decoder"]["gradient"]) == 6


def test_fits_of_known_lines():
    x = np.array([2, 4, 8, 16, 200])
    assert fit(x, 3 + 2 * x) == pytest.approx({"slope": 2, "intercept": 3, "r2": 1})
    assert fit(np.log(x), 3 + 2 * np.log(x))["r2"] == pytest.approx(1)
    assert fit(x, np.log(x))["r2"] < 0.9 < 1 > fit(np.log(x), x)["r2"]
    assert fit([1, 2, 3], [1, 3, 2])["r2"] == pytest.approx(0.25)


def test_exponents_tell_a_constant_and_what_does_not_move_has_no_fit():
    def change(label, value):
        stacks = {"encoder": {"random": [value], "gradient": [0.0]}}
        return {"label": label, "stacks": stacks}

    models = []
    for n in (1, 2, 4, 8):
        depth = [change("a", 3.0 * n), change("b", 2.0), change("c", 0.0)]
        for model in depth:
            model["stacks"]["encoder"] = {k: v * n for k, v in model["stacks"]["encoder"].items()}
        models += depth
    a, b = fits(models)
    assert (a["label"], a["points"], b["label"]) == ("a", 4, "b")
    assert [a["exponent"], b["exponent"]] == pytest.approx([1, 0], abs=1e-6)
    assert a["N"]["r2"] == pytest.approx(1) and a["N"]["slope"] == pytest.approx(3)


def test_new_rezero_does_not_move(batch):
    changes = output_changes(build("transformer_admin", residual="rezero"), batch, PAD, seed=1)
    assert {x for kinds in changes.values() for found in kinds.values() for x in found} == {0.0}


def test_depths_and_seeds_are_put_together():
    def model(label, changes):
        return {"label": label, "stacks": {"encoder": {"random": changes}}}

    models = [model("a", [1.0, 2.0]), model("a", [3.0, 4.0]), model("a", [1.0, 1.0, 9.0])]
    assert against_depth(models, "encoder", "random") == {"a": ([2, 3], [3.0, 9.0], [1.0, 0.0])}
    models = [model("b", [1.0, 2.0]), model("b", [3.0, 6.0])]  # one depth: along its sublayers
    assert against_depth(models, "encoder", "random") == {"b": ([1, 2], [2.0, 4.0], [1.0, 2.0])}


def test_omegas_of_channels():
    model = build("transformer_admin")
    model.encoder.layers[1].ffn_residual.fill(2.0)
    with torch.no_grad():
        model.encoder.layers[1].ffn_residual.omega[:8] = 4.0
    found = omegas(model)
    expected = {"name": "encoder.layers.1.ffn", "mean": 3.0, "std": 1.0, "min": 2.0, "max": 4.0}
    assert found["encoder"][-1] == expected
    assert [len(rows) for rows in found.values()] == [4, 6]
    found = omegas(build("transformer_admin", residual="analytic/pre-ln"))
    assert [len(rows) for rows in found.values()] == [4, 0]
    for other in (build("transformer"), build("transformer_admin", residual="deepnorm")):
        with pytest.raises(UserError, match="no omega there: give .* admin or analytic"):
            omegas(other)


def test_an_encoder_that_nobody_reads(batch):
    """Without cross-attention its gradient is 0, and a step down it no step."""
    model = build("transformer", no_cross_attention=True)
    assert {row["weights"] for row in gradient_norms(model, batch, PAD)["encoder"]} == {0.0}
    changes = output_changes(model, batch, PAD, seed=1)
    assert max(changes["encoder"]["gradient"]) == 0 < min(changes["encoder"]["random"])


def test_no_gradient_of_an_adaptive_softmax(batch):
    model = build("transformer", adaptive_softmax_cutoff="10,20")
    with pytest.raises(UserError, match="adaptive softmax"):
        gradient_norms(model, batch, PAD)


def test_relative_norms_and_their_spread():
    assert updates.relative({"a": 4.0, "b": 1.0, "c": 0.0}) == {"a": 1.0, "b": 0.25, "c": 0.0}
    assert updates.spread({"a": 1.0, "b": 0.01, "c": 0.0}) == 1.0  # of exponents 0 and -2
    assert updates.relative({"a": 0.0}) == {"a": 0.0}
