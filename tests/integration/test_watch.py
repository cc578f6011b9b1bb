"""A training that does not learn is told, once, and ended where that is wanted."""

import argparse
import math
import re
import sys
from contextlib import suppress

import pytest
import torch
from fairseq.tasks import FairseqTask, LegacyFairseqTask, setup_task
from torch import nn

from fairseq_admin.analysis import curves
from fairseq_admin.analysis.logs import parse
from fairseq_admin.arguments import training_config
from fairseq_admin.outcome import ALARM
from fairseq_admin.watch import DIVERGED, WINDOW, Watch, WatchedTask, largest_gradient
from fairseq_admin_cli import main as cli

STILL = ["--lr", "0", "--max-update", "160", "--stuck-after", "60", "--warmup-updates", "1"]


def told(watch, bits, first=1):
    """What is said of updates with these losses, bits a token, of a hundred tokens each."""
    said = ((u, watch.take(u, 100 * b, 100)) for u, b in enumerate(bits, first))
    return [(update, line) for update, line in said if line]


def test_what_never_was_better_is_told_once():
    watch = Watch(entropy=8.0, after=120)
    ((update, line),) = told(watch, [8.0] * 400)
    assert update == 150  # the first end of a window from 120 on
    assert line.startswith(f"{ALARM} at update 150: its loss is 8.00 bits") and "never was" in line


def test_what_learns_slowly_is_left_alone():
    """As SGD does, whose loss is still above the unigrams' when it is first asked about."""
    watch = Watch(8.0, after=100)  # 0.05 bits in 50 updates are 0.6 %
    assert not told(watch, [8.27 - update / 1000 for update in range(500)] + [7.7] * WINDOW)
    assert told(Watch(8.0, after=100), [8.27 - update / 2000 for update in range(500)])
    # one window of harder sentences tells nothing
    assert told(watch, [7.9] * 2 * WINDOW, first=551)[0][0] == 650


@pytest.mark.parametrize("bits", [7.7, 3.0])
def test_what_learns_is_left_alone(bits):
    """8 * 0.97 = 7.76; one bad update among good ones is none."""
    assert not told(Watch(entropy=8.0, after=0), [9.0] * WINDOW + ([bits] * 49 + [bits + 0.5]) * 5)
    assert not told(Watch(entropy=8.0, after=100), [9.0] * WINDOW + [bits] * 300)


def test_what_forgets_is_told_since_when():
    ((update, line),) = told(Watch(8.0, after=0), [6.0] * 200 + [8.1] * 200)
    assert (update, "since update 200" in line) == (250, True)


def test_a_loss_beyond_all_perplexities_is_told():
    ((update, line),) = told(Watch(8.0, after=0), [2000.0] * 3 * WINDOW)
    assert update == 3 * WINDOW and "its loss is 2000.00 bits" in line


def test_tokens_weigh():
    """The mean is of tokens: one update of many wins over many of few."""
    watch = Watch(8.0, after=0)
    for update in range(1, WINDOW):
        assert watch.take(update, 8.0, 1) is None
    assert watch.take(WINDOW, 1000 * 5.0, 1000) is None and watch.learned == WINDOW


def test_after_a_resume_a_whole_window_is_waited_for():
    watch = Watch(8.0, after=0)
    ((update, line),) = told(watch, [8.0] * 200, first=180)
    assert update == 350 and "bits; since update 180" in line.replace(f"{8:.2f};", "bits;")


@pytest.mark.parametrize("criterion", ["R-Drop", "ignored prefix"])
def test_the_loss_is_of_the_tokens_that_have_one(criterion, monkeypatch):
    """R-Drop sums it over two passes; ignored positions are among the tokens."""
    seen = []

    class Task(WatchedTask, LegacyFairseqTask):
        watch = argparse.Namespace(take=lambda *given: seen.append(given))

    logs = {"nll_loss": 8 * 120 * math.log(2), "ntokens": 120, "nsentences": 20}
    prefix = 0
    if criterion == "R-Drop":
        logs.update(nll_loss=2 * logs["nll_loss"], rdrop_kl_loss=1)
    else:
        logs["ntokens"], prefix = 140, 1
    of = argparse.Namespace(training=True, ignore_prefix_size=prefix)
    monkeypatch.setattr(LegacyFairseqTask, "reduce_metrics", lambda *_: None)
    task = Task(argparse.Namespace())
    task.cfg, task.datasets = argparse.Namespace(train_subset="train"), {"train": None}
    task.reduce_metrics([logs, logs], of)
    ((_, bits, tokens),) = seen
    assert (bits, tokens) == (pytest.approx(8 * 240), 240)


LAST = ["--max-update", "80000"]


@pytest.mark.parametrize(
    "schedule, after",
    [
        ([], 300),
        (["--warmup-updates", "8000"], 8000),
        (["--lr-scheduler", "tri_stage", "--warmup-steps", "8000"], 8000),
        (["--lr-scheduler", "tri_stage", "--phase-ratio", "(0.1, 0.4, 0.5)", *LAST], 8000),
    ],
)
def test_nothing_is_told_in_the_warmup_and_validation_is_not_watched(
    corpus, schedule, after, monkeypatch
):
    """The options of a real command line."""
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    options = ["--task", "translation_admin", "--arch", "transformer_admin", "--optimizer", "adam"]
    config = training_config([str(corpus), *options, *schedule])
    task = setup_task(config.task)
    task.datasets = {"train": argparse.Namespace(tgt=[torch.tensor([4, 5, 2])])}
    monkeypatch.setattr(FairseqTask, "reduce_metrics", lambda *_: None)
    logs = [{"loss": 1, "ntokens": 1, "nsentences": 1}]
    task.reduce_metrics(logs, argparse.Namespace(training=False))
    assert task.watch is None
    task.reduce_metrics(logs, argparse.Namespace(training=True))
    assert task.watch.after == after


@pytest.fixture(scope="module")
def still(corpus, lab, tmp_path_factory):
    """A training whose rate is 0."""
    folder = tmp_path_factory.mktemp("still")
    log = ["--log-file", folder / "train.log"]
    command = lab.train_command(corpus, folder, *STILL, *log, "--stop-when-stuck")
    return folder, lab.run(command).ok()


def test_a_training_that_is_stuck_ends_well(still):
    folder, run = still
    (line,) = (line for line in run.output.splitlines() if ALARM in line)
    update, loss, entropy = re.search(
        r"update (\d+): its loss is ([\d.]+) .* has ([\d.]+);", line
    ).groups()
    assert update == "150" and float(loss) > 0.97 * float(entropy) > 1
    assert f'num_updates": "{update}' not in run.output and "done training" not in run.output


def test_curves_and_report_tell_it(still, tmp_path):
    folder, _ = still
    (found,) = curves.measure(argparse.Namespace(runs=[str(folder)]))["runs"]
    assert found["stuck"] == 150 and found["diverged"] is None
    assert all(math.isfinite(ppl) for _, ppl in found["train"])
    cli.main(["report", str(folder), "--output", str(tmp_path / "report.html")])
    assert "It was stuck at update 150" in (tmp_path / "report.html").read_text()


def test_a_training_that_learns_says_nothing(admin):
    assert ALARM not in admin.run.output


# NaN, and a loss scale at its minimum


def test_the_largest_gradient_is_that_of_a_hand_count():
    """Of decoder.layers.0: 3 and 4 in fc1 and fc2 are an FFN of 5; a NaN wins over any number."""
    branches = {name: nn.Linear(1, 1, bias=False) for name in ("self_attn", "fc1", "fc2")}
    layer = nn.ModuleDict({**branches, "self_attn_layer_norm": nn.Linear(1, 1, bias=False)})
    model = nn.ModuleDict({"decoder": nn.ModuleDict({"layers": nn.ModuleList([layer])})})
    for name, gradient in (("self_attn", 4.5), ("fc1", 3), ("fc2", 4)):
        branches[name].weight.grad = torch.full((1, 1), float(gradient))
    layer["self_attn_layer_norm"].weight.grad = torch.full((1, 1), 9.0)
    assert largest_gradient(model) == "decoder.layers.0.ffn (norm 5)"
    branches["self_attn"].weight.grad *= math.nan
    told = "decoder.layers.0.self_attn (no number, as in 1 of 2 sublayers)"
    assert largest_gradient(model) == told


def test_ranks_that_disagree_about_gradients_have_diverged(caplog):
    """fairseq names the numbers of all ranks in lines of their own."""

    class Task(WatchedTask):
        train_subset = "train"

    model = nn.Linear(1, 1)
    model.weight.grad = torch.ones(1, 1)
    told = "Fatal error: gradients are inconsistent\ngrad_norm across the workers:\nrank   0 = nan"
    with suppress(AttributeError):  # of the base, which is none of fairseq's
        try:
            raise FloatingPointError(told)
        except FloatingPointError:
            Task().train_step(None, model, None, None, 6)
    assert parse(caplog.text).crashed and "at update 7: gradients are Nan/Inf;" in caplog.text


@pytest.mark.parametrize(
    ("options", "cause", "gradient"),
    [
        (["--lr", "1e30"], "gradients are Nan/Inf", r"no number, as in \d+ of 15 sublayers"),
        (
            [
                "--memory-efficient-fp16",
                "--fp16-init-scale",
                "4294967296",
                "--min-loss-scale",
                "4e9",
            ],
            "Minimum loss scale reached",
            r"(norm [\d.e+]+|no number.*)",
        ),
    ],
)
def test_a_training_that_breaks_off_names_a_sublayer(
    corpus, lab, tmp_path, options, cause, gradient
):
    options = ["--max-update", "9", "--warmup-updates", "1", "--clip-norm", "1", *options]
    run = lab.run(lab.train_command(corpus, tmp_path, *options))
    assert run.code and run.last_line.startswith("FloatingPointError: ") and cause in run.last_line
    (line,) = (line for line in run.output.splitlines() if DIVERGED in line)
    assert re.search(
        rf"at update \d: {cause}.*; the largest gradient is that of \w+coder\.layers\.\d\.\w+ "
        rf"\({gradient}\)\. What helps: docs/",
        line,
    ), line
