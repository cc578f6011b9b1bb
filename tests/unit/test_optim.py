"""Optimizers of torch under fairseq's options: `radam`, and `adam_fused` for its own `adam`."""

import copy

import pytest
import torch
from fairseq import optim, options, utils
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.adam import FairseqAdamConfig
from omegaconf import OmegaConf

import fairseq_admin  # noqa: F401  registers radam
from fairseq_admin.errors import UserError
from fairseq_admin.optim import RAdamConfig
from fairseq_admin.residuals.admin import AdminResidual
from fairseq_admin.residuals.residual import Place


def weights():
    return torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))


def optimizer(parameter, **given):
    cfg = OmegaConf.structured(RAdamConfig(_name="radam", **{"lr": [0.1], **given}))
    return optim.build_optimizer(cfg, [parameter])


def steps(parameter, stepper, count=10):
    """*parameter* after *count* updates on the gradient of a quartic."""
    for _ in range(count):
        stepper.zero_grad()
        parameter.pow(4).sum().backward()
        stepper.step()
    return parameter.detach()


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, {"betas": (0.9, 0.999)}),
        ({"radam_betas": "(0.9, 0.98)"}, {"betas": (0.9, 0.98)}),
        ({"radam_betas": [0.8, 0.9]}, {"betas": (0.8, 0.9)}),
        ({"radam_betas": (0.8, 0.9), "radam_eps": 1e-3}, {"betas": (0.8, 0.9), "eps": 1e-3}),
        ({"weight_decay": 0.3}, {"weight_decay": 0.3}),
        (
            {"weight_decay": 0.3, "decoupled_weight_decay": True},
            {"weight_decay": 0.3, "decoupled_weight_decay": True},
        ),
    ],
)
def test_ten_steps_equal_torchs(given, expected):
    ours, theirs = weights(), weights()
    got = steps(ours, optimizer(ours, **given))
    expected = steps(theirs, torch.optim.RAdam([theirs], lr=0.1, **expected))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(got, weights())


def test_a_state_saved_by_torchs_loop_over_parameters_goes_on_as_there():
    """Checkpoints of either are the other's, and 100 updates agree to 1e-6."""
    ours, theirs, both = weights(), weights(), weights()
    stepper, loop = optimizer(ours), torch.optim.RAdam([theirs], lr=0.1, foreach=False)
    steps(both, first := torch.optim.RAdam([both], lr=0.1, foreach=False), 40)
    second = optimizer(both)
    second.load_state_dict(first.state_dict())
    assert second.optimizer.param_groups[0]["foreach"] is True
    expected = steps(theirs, loop, 100)
    for got in (steps(ours, stepper, 100), steps(both, second, 60)):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def adam(parameter, name):
    betas = (0.9, 0.98)
    given = {"lr": [0.1], "weight_decay": 0.01, "adam_betas": betas, "adam_eps": 1e-3, "tpu": False}
    cfg = OmegaConf.structured(FairseqAdamConfig(_name=name, **given))
    return optim.build_optimizer(cfg, [parameter])


def test_adam_fused_is_fairseqs_adam_and_each_goes_on_from_the_others_checkpoint():
    """eps is so large that it matters on which side of the bias correction it stands."""
    expected = weights()
    steps(expected, adam(expected, "adam"), 100)
    assert not torch.allclose(expected, weights(), rtol=0.1)
    for first, second in (["adam_fused"] * 2, ["adam", "adam_fused"], ["adam_fused", "adam"]):
        got = weights()
        steps(got, one := adam(got, first), 40)
        saved = copy.deepcopy(one.state_dict())
        other = adam(got, second)
        other.load_state_dict(saved)
        assert saved["param_groups"][0]["eps"] == 1e-3 and "updates" not in saved["param_groups"][0]
        assert second == "adam" or other.param_groups[0]["fused"]
        steps(got, other, 60)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_adam_fused_takes_another_eps_at_a_resume():
    results = []
    for name in ("adam", "adam_fused"):
        got = weights()
        steps(got, one := adam(got, name), 3)
        other = adam(got, name)
        other.load_state_dict(copy.deepcopy(one.state_dict()), {"eps": 1e-1})
        results.append(steps(got, other, 3))
        assert other.state_dict()["param_groups"][0]["eps"] == 1e-1
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam_fused", "radam"])
def test_a_state_of_other_parameters_is_one_line(name):
    stepper = adam(weights(), name) if "adam_" in name else optimizer(weights())
    state = stepper.state_dict()
    state["param_groups"][0]["params"] = [0, 1]
    with pytest.raises(UserError, match="optimizer had other parameters .*--reset-optimizer"):
        stepper.load_state_dict(state)


def test_adam_fused_has_no_statistics_in_fp16():
    given = {"_name": "adam_fused", "lr": [0.1], "fp16_adam_stats": True}
    with pytest.raises(UserError, match="--fp16-adam-stats means nothing to adam_fused"):
        optim.build_optimizer(OmegaConf.structured(FairseqAdamConfig(**given)), [weights()])


@pytest.mark.parametrize("name", ["adam_fused", "radam"])
def test_one_flat_copy_of_all_parameters_will_do(name):
    """--fp16 makes it, and asks."""
    stepper = adam(weights(), name) if "adam_" in name else optimizer(weights())
    assert stepper.supports_flat_params


def test_a_trainer_takes_checkpoints_of_either_adam():
    """It compares the names of classes."""
    names = {type(adam(weights(), name)).__name__ for name in ("adam", "adam_fused")}
    assert names == {"FairseqAdam"}


def test_learning_rate_is_set_by_the_scheduler():
    stepper = optimizer(weights())
    stepper.set_lr(0.02)
    assert stepper.get_lr() == 0.02
    assert [group["lr"] for group in stepper.optimizer.param_groups] == [0.02]


def test_options_of_the_command_line():
    arguments = ["data", "--arch", "transformer_admin", "--optimizer", "radam", "--lr", "7e-4"]
    arguments += ["--radam-betas", "(0.9, 0.98)", "--weight-decay", "1e-4"]
    args = options.parse_args_and_arch(options.get_training_parser(), arguments)
    parameter = weights()
    defaults = optim.build_optimizer(args, [parameter]).optimizer.defaults
    assert (defaults["lr"], defaults["betas"]) == (7e-4, (0.9, 0.98))
    assert (defaults["weight_decay"], defaults["decoupled_weight_decay"]) == (1e-4, False)


VARIANTS = {  # what the trainer casts the model to, and the optimizer that it wraps
    "fp32": (torch.float32, None),
    "fp16": (torch.float16, optim.FP16Optimizer),
    "memory-efficient fp16": (torch.float16, optim.MemoryEfficientFP16Optimizer),
    "bf16": (torch.bfloat16, optim.FP16Optimizer),
    "memory-efficient bf16": (torch.bfloat16, optim.MemoryEfficientFP16Optimizer),
}


@pytest.mark.parametrize(
    "variant, name",
    [*((v, "adam") for v in VARIANTS), *((v, "adam_fused") for v in ("fp32", "fp16", "bf16"))],
)
def test_omegas_move_by_what_adam_says(variant, name):
    """Updates of 1e-4 on an omega of 3, where the numbers of fp16 lie 2e-3 apart, those of bf16
    2e-2: ten add up, also over a resume from what is saved."""
    dtype, wrapper = VARIANTS[variant]
    cfg = OmegaConf.structured(FairseqConfig)
    cfg.common.bf16, cfg.common.fp16_no_flatten_grads = dtype == torch.bfloat16, True
    cfg.common.fp16_init_scale = 4
    cfg.optimizer = OmegaConf.structured(FairseqAdamConfig(_name=name, lr=[1e-4]))

    def resumed(saved, state):
        """A junction and its optimizer, built as the trainer does."""
        junction = AdminResidual(Place(4))
        junction.fill(3.0)
        if saved:
            junction.load_state_dict(saved)
        junction.to(dtype=dtype)
        build = (
            wrapper.build_optimizer
            if wrapper
            else lambda cfg, p: optim.build_optimizer(cfg.optimizer, p)
        )
        stepper = build(cfg, list(junction.parameters()))
        if state:
            stepper.load_state_dict(state)
        return junction, stepper

    saved, state = None, None
    for _ in range(2):
        junction, stepper = resumed(saved, state)
        for _ in range(5):
            out = junction.add(torch.ones(2, 3, 4, dtype=dtype), torch.zeros(2, 3, 4, dtype=dtype))
            assert out.dtype == dtype
            stepper.zero_grad()
            stepper.backward(out.sum())
            stepper.clip_grad_norm(0.0)
            stepper.step()
        saved, state = utils.move_to_cpu(
            copy.deepcopy([junction.state_dict(), stepper.state_dict()])
        )
    assert junction.omega.tolist() == pytest.approx([3 - 10 * 1e-4] * 4, abs=2e-5)
