"""What theory predicts at initialization, as the analyses measure it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fairseq_admin.analysis import dependency, gradients, norms, output_change, updates
from fairseq_admin.analysis.figures import last_ffn
from fairseq_admin.methods import METHODS, STACKS
from fairseq_admin.residuals.omegas import next_omega
from fairseq_admin_cli.main import parser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # seconds
CLASSIC = ("post-ln", "pre-ln", "admin")  # whose gradients and norms the papers predict
SIZES = "--encoder-embed-dim 128 --encoder-ffn-embed-dim 512 --encoder-attention-heads 4 "
SIZES += "--decoder-attention-heads 4 --share-all-embeddings --dropout 0 --parameter-init paper"


def measure(analysis, *arguments, sizes=SIZES):
    """The models of an analysis' result, in this process."""
    name = analysis.__name__.rpartition(".")[2].replace("_", "-")
    words = ["analyze", name, *map(str, arguments), *sizes.split()]
    return analysis.measure(*parser("analyze").parse_known_args(words))["models"]


def layers(count):
    return "--encoder-layers", count, "--decoder-layers", count


def slope(x, y):
    """Of log y against log x."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


# --- omega and dependency -------------------------------------------------------------------------
def test_omegas():
    """omega_i^2 = Var(x_0) + sum_{j<i} Var(f_j), the variances measured by the probe; hence
    beta_ii^2 = Var(f_i) / omega_{i+1}^2 and about 1/i, as in Pre-LN."""
    for model in measure(dependency, "admin", *layers(12)):
        for stack in STACKS:
            rows, found = model["stacks"][stack]["rows"], model["stacks"][stack]
            start, branches = found["variances"]
            expected = [next_omega(start, branches[:i]) for i in range(len(branches))]
            np.testing.assert_allclose(found["scales"], expected, rtol=2e-3)
            check_diagonal(rows, found["expected"])


def check_diagonal(rows, expected):
    found = np.array([row["beta"][-1] ** 2 for row in rows])
    error = np.abs(found / np.square(expected) - 1)
    assert error.mean() < 0.12 and error.max() < 0.3  # one draw
    squares = [sum(np.square(row["beta"])) + row["bias"] ** 2 for row in rows]
    np.testing.assert_allclose(squares, 1, atol=0.3)
    assert abs(np.mean(squares) - 1) < 0.1


def test_dependency_of_the_others():
    """Pre-LN as Admin; Post-LN keeps about Var(f) / (1 + Var(f)) of each branch at any depth, and
    less, but as evenly, where one number scales all shortcuts; new ReZero models keep nothing."""
    others = [name for name in METHODS if name != "admin"]
    for model in measure(dependency, *others, *layers(18)):
        for stack in STACKS:
            found = model["stacks"][stack]
            rows = found["rows"]
            squares = np.array([row["beta"][-1] ** 2 for row in rows])
            if model["method"] == "rezero":
                assert not squares.any() and not any(found["expected"])
                continue
            falls = model["method"] == "pre-ln"
            if falls:
                check_diagonal(rows, found["expected"])
            i = np.arange(1, len(rows) + 1)
            steep = slope(i[5:], squares[5:])
            assert -1.4 < steep < -0.6 if falls else abs(steep) < 0.4, (model["method"], steep)
            ratio = np.mean(squares / np.square(found["expected"]))
            assert ratio == pytest.approx(1, abs=0.15)


# --- output change --------------------------------------------------------------------------------
DEPTHS = (1, 4, 16, 48, 100)


@pytest.mark.parametrize("method", METHODS)
def test_output_change(method):
    """O(N) of the encoder's sublayers in Post-LN, O(log N) in Pre-LN, Admin and Analytic; no growth
    in DeepNorm and Keel; new ReZero models do not move."""
    models = measure(output_change, method, "--depths", *DEPTHS, "--seeds", 5, "--tokens", 200)
    x, mean, _ = output_change.against_depth(models, "encoder", "random")[method]
    if method == "rezero":
        assert not any(mean)
        return
    if method in ("deepnorm", "keel"):
        assert slope(x, mean) < 0.1 and mean[-1] < mean[1]
        return
    linear, logarithmic = (output_change.fit(n, mean)["r2"] for n in (x, np.log(x)))
    growth = mean[-1] / mean[1]  # of 200 sublayers over 8: 25 in O(N), 2.5 in O(log N)
    if method == "post-ln":
        assert linear > logarithmic + 0.1 and linear > 0.8 and growth > 10
    else:
        assert logarithmic > linear + 0.05 and logarithmic > 0.9 and growth < 6


# --- gradients ------------------------------------------------------------------------------------
def test_last_ffn_gradient():
    """Of the decoder's last FFN: independent of L in Post-LN, 1/sqrt(L) in Pre-LN and Admin."""
    models = measure(gradients, *CLASSIC, "--depths", 6, 12, 24, 48, "--seeds", 3)
    for method, (x, found) in last_ffn(models, "decoder").items():
        steep = slope(x, found)
        assert abs(steep) < 0.15 if method == "post-ln" else -0.65 < steep < -0.35, (method, steep)


def test_gradients_vanish_in_the_post_ln_decoder_only():
    """... through cross-attention most, and not in the encoder, nor in Pre-LN and Admin."""
    for model in measure(gradients, *CLASSIC, *layers(18), "--seeds", 3):
        for stack in STACKS:
            rows = model["stacks"][stack]
            outputs = np.array([row["output"] for row in rows])
            weights = np.array([row["weights"] for row in rows])
            vanishes = (model["method"], stack) == ("post-ln", "decoder")
            for found in (outputs, weights):
                ratio = found[0] / found[-1]  # near the input, of that near the output
                assert ratio < 0.1 if vanishes else 0.3 < ratio < 6
            if vanishes:
                lost = np.log(outputs[:-1] / outputs[1:])  # on the way back through each sublayer
                kinds = [row["kind"] for row in rows[1:]]
                by_kind = {k: np.mean([x for x, y in zip(lost, kinds) if y == k]) for k in kinds}
                assert min(by_kind, key=by_kind.get) == "encoder_attn"


# --- norms ----------------------------------------------------------------------------------------
def test_hidden_norms():
    """Xiong et al., lemma 2, with an FFN as wide as the model, as it takes it: an FFN adds 1/2, an
    attention at most 1, of which a decoder's layer has two."""
    sizes = SIZES.replace("ffn-embed-dim 512", "ffn-embed-dim 128")
    for model in measure(norms, *CLASSIC, *layers(18), "--seeds", 3, sizes=sizes):
        for stack in STACKS:
            rows = [row["norm2"] for row in model["stacks"][stack] if row["kind"] == "ffn"]
            if model["method"] == "post-ln":
                assert np.mean(rows) == pytest.approx(1.5, rel=0.1)
            else:
                attentions = STACKS.index(stack) + 1
                for layer, found in enumerate(rows, 1):
                    assert 1 + layer / 2 < found < 1 + layer * (attentions + 1 / 2)


# --- updates --------------------------------------------------------------------------------------
def test_adam_evens_updates_out(corpus, tmp_path):
    """Relative gradient norms of deep Post-LN spread over orders of magnitude, updates do not."""
    command = [Path(sys.executable).with_name("fairseq-train"), corpus, "--arch", "transformer"]
    sizes = SIZES.replace("128", "32").replace("512", "64").replace("--parameter-init paper", "")
    command += [*map(str, layers(18)), *sizes.split()]
    command += ["--optimizer", "adam", "--lr", "1e-3", "--max-tokens", "500", "--cpu"]
    command += ["--max-update", "40", "--save-interval-updates", "20", "--disable-validation"]
    run = subprocess.run([*command, "--save-dir", tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    saved = [next(tmp_path.glob("checkpoint_*_20.pt")), tmp_path / "checkpoint_last.pt"]
    (model,) = measure(updates, *saved, "--data", corpus, sizes="")
    assert model["spread"]["gradient"] > 2 * model["spread"]["update"]
    assert model["spread"]["gradient"] > 0.5  # of an order of magnitude


# --- cost -----------------------------------------------------------------------------------------
STEP = """
import resource, sys, torch
from types import SimpleNamespace
from fairseq_admin.analysis.gradients import mean_loss
from fairseq_admin.analysis.subjects import subjects
((subject, batch),) = subjects(SimpleNamespace(**{options}), {rest})
{work}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
WORK = {
    "train": """
optimizer = torch.optim.Adam(subject.model.parameters())
mean_loss(subject.model.train(), batch, subject.pad).backward()
optimizer.step()
""",
    **{
        name: f"""
from fairseq_admin.analysis.{module} import {function}
{function}(subject.model, batch, subject.pad{more})
"""
        for name, module, function, more in (
            ("norms", "norms", "hidden_norms", ""),
            ("dependency", "dependency", "dependencies", ""),
            ("gradients", "gradients", "gradient_norms", ""),
            ("output change", "output_change", "output_changes", ", 1"),
        )
    },
}


def test_no_probe_of_100_layers_needs_more_memory_than_a_training_step(capsys):
    """100-100 layers of width 512, peak memory of processes of their own."""
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 20e9:
        pytest.skip("a training step of 100-100 layers takes 15 GB")
    options = {"models": ["admin"], "data": None, "split": None, "tokens": 500, "seeds": 1}
    options.update(depths=[100], parameter_init=None, user_dir=None)
    rest = ["--share-all-embeddings", "--encoder-embed-dim", "512", "--dropout", "0"]
    peaks = {}
    for name, work in WORK.items():
        code = STEP.format(options=options, rest=rest, work=work)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        peaks[name] = int(run.stdout.split()[-1]) / 2**20  # GiB
    with capsys.disabled():
        print({name: f"{peak:.1f} GiB" for name, peak in peaks.items()})
    assert all(peak <= peaks["train"] for peak in peaks.values()), peaks
