"""Admin's formula: omega from variances, and the junction's sum x * omega + f(x)."""

import math

import pytest
import torch
from torch import nn

from fairseq_admin.profiling import moments
from fairseq_admin.residuals.admin import AdminResidual
from fairseq_admin.residuals.omegas import next_omega
from fairseq_admin.residuals.residual import Place


@pytest.mark.parametrize(
    "input_var, branch_vars, omega",
    [
        (1.0, [0.44], 1.2),
        (1.0, [0.44, 0.25, 0.56], 1.5),
        (0.5, [3.5], 2.0),
        (4.0, [5.0, 16.0], 5.0),
        (4.0, [], 1.0),  # the first sublayer's
    ],
)
def test_omega_is_the_root_of_input_variance_plus_branch_variances(input_var, branch_vars, omega):
    assert next_omega(input_var, branch_vars) == pytest.approx(omega, rel=1e-15)


def test_variance_is_biased_and_over_positions_and_channels():
    x = torch.tensor([[[0.0, 2.0]], [[4.0, 6.0]]])  # mean 3, squares 9 + 1 + 1 + 9
    assert moments(x, torch.ones(2, 1, dtype=torch.bool))[2] == 5.0


def test_variance_leaves_padding_out():
    x = torch.tensor([[[0.0, 2.0], [1e6, -1e6]], [[4.0, 6.0], [math.nan, math.inf]]])
    valid = torch.tensor([[True, False], [True, False]])
    assert moments(x, valid)[2] == 5.0


def test_variance_of_half_precision_is_computed_in_fp32():
    """4096 and 4096 + 512: deviations of 256, whose square is beyond fp16."""
    x = torch.tensor([[[4096.0, 4608.0]]], dtype=torch.float16)
    assert moments(x, torch.ones(1, 1, dtype=torch.bool))[2] == 65536.0


def test_junction_scales_the_shortcut_and_not_the_branch():
    junction = AdminResidual(Place(2))
    with torch.no_grad():
        junction.omega.copy_(torch.tensor([2.0, 0.5]))
    out = junction.add(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[10.0, 20.0]]]))
    assert out.tolist() == [[[16.0, 22.0]]]  # 3 * 2 + 10, 4 * 0.5 + 20


def test_fill_sets_every_channel():
    junction = AdminResidual(Place(3))
    junction.fill(1.5)
    assert junction.omega.tolist() == [1.5] * 3
    assert junction.omega.requires_grad


def test_frozen_omega_is_saved_but_not_trained():
    junction = AdminResidual(Place(3))
    junction.fill(2.0)
    junction.be_first()
    assert list(junction.parameters()) == []
    assert list(junction.state_dict()) == ["omega"]
    assert junction.omega.tolist() == [2.0] * 3
    junction.fill(1.25)
    assert junction.add(torch.ones(1, 1, 3), torch.zeros(1, 1, 3)).tolist() == [[[1.25] * 3]]


@pytest.mark.parametrize("frozen", [False, True])
def test_omega_stays_in_fp32_when_a_model_is_cast_to_16_bits(frozen):
    """It is cast where it is used; other casts and devices are as ever."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), AdminResidual(Place(2)))
    if frozen:
        model[1].be_first()
    model[1].fill(2.0003)
    for cast in (model.half, model.bfloat16, lambda: model.to(dtype=torch.float16)):
        cast()
        assert model[1].omega.dtype == torch.float32 != model[0].weight.dtype
        assert model[1].omega[0].item() == pytest.approx(2.0003, abs=1e-7)
        x = torch.ones(1, 1, 2, dtype=model[0].weight.dtype)
        assert model[1].add(x, x).dtype == x.dtype
    assert model.double()[1].omega.dtype == torch.float64
    assert model.to("meta")[1].omega.is_meta


def test_gradients_of_the_junction():
    """torch.autograd.gradcheck with respect to shortcut, branch and omega, in fp64."""
    junction = AdminResidual(Place(3)).double()
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def call(shortcut, branch, omega):
        return torch.func.functional_call(
            junction, {"omega": omega}, (shortcut, branch, nn.Identity())
        )

    assert torch.autograd.gradcheck(call, (random(4, 2, 3), random(4, 2, 3), random(3)))
