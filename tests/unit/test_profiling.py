"""The pass that measures: right values, on the network that starts to train, and no trace."""

import math
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from fairseq_admin.errors import UserError
from fairseq_admin.methods import STACKS
from fairseq_admin.profiling import named_junctions, profile_model
from tests.helpers import LENGTHS, PAD, batched, build, net_input, sentences

DEEP = {"encoder_layers": 4, "decoder_layers": 4}


def profiled(model, inputs=None, seed=1):
    return profile_model(model, [net_input() if inputs is None else inputs], PAD, seed)


def branch_outputs(layer):
    """The last linear of each sublayer of *layer*, in order of execution."""
    cross = [layer.encoder_attn.out_proj] if hasattr(layer, "encoder_attn") else []
    return [layer.self_attn.out_proj, *cross, layer.fc2]


def make_branches_constant(model):
    """Every branch a fixed vector: weights 0, biases drawn; returns biases by stack."""
    generator = torch.Generator().manual_seed(7)
    biases = {stack: [] for stack in STACKS}
    with torch.no_grad():
        for stack in STACKS:
            for layer in getattr(model, stack).layers:
                for linear in branch_outputs(layer):
                    linear.weight.zero_()
                    scale = 0.2 + len(biases[stack])  # every branch another variance
                    linear.bias.copy_(scale * torch.randn(linear.bias.shape, generator=generator))
                    biases[stack].append(linear.bias.detach().double().numpy().copy())
    return biases


def embedded(stack, tokens):
    """Non-padding columns of embedding and sinusoidal position, `(tokens, embed_dim)`, by hand."""
    dim = stack.embed_tokens.embedding_dim
    table = stack.embed_tokens.weight.detach().double().numpy()
    rows = []
    for sentence in tokens.tolist():
        position = PAD  # fairseq numbers positions from the padding index + 1
        for token in sentence:
            if token == PAD:
                continue
            position += 1
            angles = [position * 10000 ** (-k / (dim // 2 - 1)) for k in range(dim // 2)]
            wave = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(math.sqrt(dim) * table[token] + np.array(wave))
    return np.stack(rows)


def measured_afterwards(model, inputs):
    """Independent of the package: (input, branch, sum) of each junction over non-padding
    positions, by stack, as the model runs now."""
    seen = {stack: [] for stack in STACKS}
    tokens = {"encoder": inputs["src_tokens"], "decoder": inputs["prev_output_tokens"]}

    def record(stack, junction, arguments, out):
        valid = tokens[stack].t().ne(PAD)
        x, branch, _ = arguments
        total = junction.add(x, branch)
        values = [t.detach()[valid].double().numpy() for t in (x, branch, total)]
        seen[stack].append((*values, junction.omega.detach().double().numpy()))

    handles = [
        junction.register_forward_hook(
            lambda module, arguments, out, stack=stack: record(stack, module, arguments, out)
        )
        for stack, junctions in named_junctions(model).items()
        for junction in junctions.values()
    ]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def test_omega_of_known_branch_variances():
    """Branches are constant vectors, so Var(f) is the variance of the vector, and
    omega_i^2 = Var(x_0) + sum_{j<i} Var(f_j) follows by hand, a sum for each stack."""
    model = build()
    biases = make_branches_constant(model)
    inputs = net_input()
    profile = profiled(model, inputs)
    tokens = {"encoder": inputs["src_tokens"], "decoder": inputs["prev_output_tokens"]}
    assert [len(biases[stack]) for stack in STACKS] == [4, 6]  # cross-attention counts
    for stack in STACKS:
        variances = [bias.var() for bias in biases[stack]]
        total = embedded(getattr(model, stack), tokens[stack]).var()
        assert profile.stacks[stack].input_var == pytest.approx(total, rel=1e-5)
        expected = [1.0]
        for variance in variances[:-1]:
            total += variance
            expected.append(math.sqrt(total))
        got = profile.stacks[stack].sublayers
        assert [s.branch_var for s in got] == pytest.approx(variances, rel=1e-5)
        assert [s.omega for s in got] == pytest.approx(expected, rel=1e-5)
        for junction, omega in zip(named_junctions(model)[stack].values(), expected):
            assert junction.omega.tolist() == pytest.approx([omega] * 16, rel=1e-5)


def test_law_holds_on_the_network_that_starts_to_train():
    """Measured again with the omegas in place: the same variances, the same omegas; and every
    junction gives x * omega + f, the shortcut scaled. So omega_i was applied before f_{i+1} was
    measured, other than in the paper's text."""
    model = build(**DEEP)
    inputs = net_input()
    profile = profiled(model, inputs)
    for stack, seen in measured_afterwards(model, inputs).items():
        sublayers = profile.stacks[stack].sublayers
        assert len(sublayers) == len(seen)
        total = seen[0][0].var()
        for i, (shortcut, branch, out, omega) in enumerate(seen):
            assert branch.var() == pytest.approx(sublayers[i].branch_var, rel=1e-5)
            assert omega == pytest.approx(1.0 if i == 0 else math.sqrt(total), rel=1e-5)
            np.testing.assert_allclose(out, shortcut * omega + branch, rtol=1e-5, atol=1e-5)
            total += branch.var()


def test_profile_of_a_profiled_model_is_the_same():
    """Omegas that stand in the model beforehand do not leak into the measurement."""
    model = build(**DEEP)
    assert profiled(model).to_dict() == profiled(model).to_dict()


@pytest.mark.parametrize("columns", [{"source": 19}, {"target": 17}, {"source": 30, "target": 30}])
def test_padding_changes_nothing(columns):
    """Sources are padded on the left, targets on the right."""
    samples = sentences(LENGTHS)
    plain, padded = batched(samples)["net_input"], batched(samples, **columns)["net_input"]
    assert padded["src_tokens"][1, 0] == padded["prev_output_tokens"][2, -1] == PAD
    narrow = profiled(build(**DEEP), plain)
    wide = profiled(build(**DEEP), padded)
    assert wide.omegas == pytest.approx(narrow.omegas, rel=1e-5)
    for stack in STACKS:
        assert wide.stacks[stack].input_var == pytest.approx(narrow.stacks[stack].input_var, 1e-5)


@pytest.mark.parametrize("residual", ["admin", "pre-ln"])
def test_batches_side_by_side_are_one_batch(residual):
    """Groups of one, two and two sentences give the profile of all five in one padded batch."""
    samples = sentences(LENGTHS)
    profiles = []
    for groups in ([range(5)], [[1], [0, 3], [2, 4]]):
        model = build(residual=residual)
        inputs = [batched([samples[i] for i in group])["net_input"] for group in groups]
        profiles.append(profile_model(model, inputs, PAD, 1))
    rows = [
        [stack.input_var, *(x for s in stack.sublayers for x in (s.branch_var, s.omega or 0))]
        for profile in profiles
        for stack in profile.stacks.values()
    ]
    assert rows[:2] == [pytest.approx(row, rel=1e-5) for row in rows[2:]]


@pytest.mark.parametrize("more", [{}, {"adaptive_input": True}], ids=["", "adaptive input"])
def test_quant_noise_is_drawn_anew_for_each_batch(more):
    """On the same weights: a branch of several batches keeps the variance of one."""
    given = {"quant_noise_pq": 0.5, "quant_noise_pq_block_size": 4, "encoder_embed_dim": 64, **more}
    variances = []
    for count in (1, 12):
        model = build(**given)
        profile = profile_model(model, [net_input()] * count, PAD, 1)
        stacks = profile.stacks.values()
        variances.append([s.branch_var for stack in stacks for s in stack.sublayers])
    assert np.mean(variances[1]) == pytest.approx(np.mean(variances[0]), rel=0.25)


def test_dropout_is_on_while_profiling_also_for_a_model_in_eval_mode():
    """Dropout of rate p scales a branch's mean square by 1 / (1 - p)."""
    wide = {"encoder_embed_dim": 64, "encoder_layers": 1, "decoder_layers": 1}
    without, with_dropout = build(**wide), build(**wide, dropout=0.5).eval()
    for model in (without, with_dropout):
        make_branches_constant(model)
        with torch.no_grad():  # mean 0, so that the variance is the mean square
            bias = model.encoder.layers[0].fc2.bias
            bias.sub_(bias.mean())
    ratio = [profiled(m).stacks["encoder"].sublayers[1].branch_var for m in (with_dropout, without)]
    assert ratio[0] / ratio[1] == pytest.approx(2, rel=0.1)


def test_dropout_masks_follow_the_seed():
    one, same, other = (profiled(build(dropout=0.3), seed=s).omegas for s in (1, 1, 2))
    assert one == same
    assert one != other


def random_states():
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


@pytest.mark.parametrize("dropout", [0.3, 1.0])
def test_random_states_are_as_before(dropout):
    """Also where the pass ends in an error, which a dropout of 1 is."""
    model = build(dropout=dropout, encoder_layerdrop=0.5)
    before = random_states()
    with pytest.raises(UserError) if dropout == 1 else nullcontext():
        profiled(model, seed=2**40)  # more than the 32 bits NumPy takes
    assert random_states() == before


@pytest.mark.parametrize("broken", [False, True])
def test_modes_and_hooks_are_as_before(broken):
    """Also where the pass ends in an error."""
    model = build(encoder_layerdrop=0.5, decoder_layerdrop=0.5).eval()
    model.decoder.layers[1].train()
    own_hook = model.encoder.layers[0].fc1.register_forward_pre_hook(lambda *_: None)
    if broken:
        break_weight(model)

    def state():
        return {
            name: (module.training, list(module._forward_pre_hooks), list(module._forward_hooks))
            for name, module in model.named_modules()
        }

    before = state()
    with pytest.raises(UserError) if broken else nullcontext():
        profiled(model)
    assert state() == before
    own_hook.remove()


@pytest.mark.parametrize("quant_noise", [0, 0.5])
def test_only_omegas_change_and_no_gradient_is_left(quant_noise):
    """Quant noise zeroes blocks of weights in a forward pass in training; not for good here."""
    model = build(dropout=0.1, quant_noise_pq=quant_noise, quant_noise_pq_block_size=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    profiled(model)
    for key, value in model.state_dict().items():
        changed = not torch.equal(value, before[key])
        first = key.startswith(("encoder.layers.0.self_attn_r", "decoder.layers.0.self_attn_r"))
        assert changed == (key.endswith(".omega") and not first), key
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters() if p.dim() > 1)


def test_layerdrop_drops_nothing_while_profiling():
    """18 sublayers; at layerdrop 0.9 a draw of 2 + 2 layers that misses none is unlikely."""
    with_layerdrop = build(**DEEP, encoder_layerdrop=0.9, decoder_layerdrop=0.9)
    assert profiled(with_layerdrop).omegas == profiled(build(**DEEP)).omegas


def test_activation_checkpointing_does_not_change_the_profile():
    plain = profiled(build(dropout=0.1))
    assert profiled(build(dropout=0.1, checkpoint_activations=True)) == plain


def test_a_learned_first_omega_starts_at_1():
    """With the first omega learned it is profiled like the constant one: 1."""
    learned = profiled(build(learn_first_omega=True))
    assert learned.omegas == profiled(build()).omegas
    assert learned.omegas[0] == learned.omegas[4] == 1.0


def break_weight(model):
    model.decoder.layers[1].fc2.weight.data[0, 0] = math.nan


def zero_embedding(model):
    model.encoder.embed_tokens.weight.data.zero_()


def zero_branch(model):
    model.encoder.layers[1].self_attn.out_proj.weight.data.zero_()


@pytest.mark.parametrize(
    "given, damage, sublayer",
    [
        ({}, break_weight, "the branch of decoder.layers.1.ffn has variance nan"),
        (
            {"no_token_positional_embeddings": True},
            zero_embedding,
            "the input of encoder.layers.0.self_attn has variance 0.0",
        ),
        ({}, zero_branch, "the branch of encoder.layers.1.self_attn has variance 0.0"),
        ({"dropout": 1.0}, None, "the input of encoder.layers.0.self_attn has variance 0.0"),
    ],
)
def test_no_omega_follows_from_a_broken_model(given, damage, sublayer):
    model = build(**given)
    if damage:
        damage(model)
    with pytest.raises(UserError, match=sublayer) as error:
        profiled(model)
    assert "\n" not in str(error.value)


def test_last_omegas_at_18_18_d512():
    """With the paper's initialization and dropout 0.1: 3.65 / 4.61 in encoder and decoder."""
    sizes = {
        "encoder_layers": 18,
        "decoder_layers": 18,
        "encoder_embed_dim": 512,
        "encoder_ffn_embed_dim": 2048,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "dropout": 0.1,
        "share_all_embeddings": True,
    }
    model = build(types=1000, **sizes)
    lengths = [(length, 50 - length) for length in range(10, 41, 2)]  # 400 tokens a side
    profile = profiled(model, net_input(lengths, types=1000))
    last = [profile.stacks[stack].sublayers[-1].omega for stack in STACKS]
    assert last == pytest.approx([3.65, 4.61], rel=0.03)
