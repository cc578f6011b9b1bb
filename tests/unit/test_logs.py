"""The points of a log, whoever wrote it, and which runs diverged."""

import math
import os
import re

import pytest

from fairseq_admin.analysis.course import DIVERGED, PATIENCE
from fairseq_admin.analysis.logs import parse, read_curves
from fairseq_admin.errors import UserError
from fairseq_admin.outcome import ALARM

STAMP = "2024-05-01 10:00:00"
HEADS = {
    "fairseq-train": f"{STAMP} | INFO | {{}} | ",
    "hydra": f"[{STAMP},123][{{}}][INFO] - ",
    "--log-file": "",
}
each_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


def inner(update, ppl, head=HEADS["fairseq-train"]):
    """A line of `--log-format simple`."""
    return (
        f"{head.format('train_inner')}epoch 001:     {update} / 253 loss=10.587, nll_loss=10.561, "
        f"ppl={ppl}, wps=2656.5, num_updates={update}, lr=0.0001, wall=12"
    )


def summary(update, ppl, subset=None, head=HEADS["fairseq-train"]):
    """A line at the end of an epoch or a validation, of `simple` and `tqdm`."""
    what = f"valid on '{subset}' subset | " if subset else ""
    return (
        f"{head.format(subset or 'train')}epoch 001 | {what}loss 7.5 | nll_loss 7.1 | ppl {ppl} | "
        f"wps 8131 | num_updates {update} | best_loss 5.4 | best_ppl 1.5"
    )


def as_json(update, ppl, name="train_inner", head=HEADS["fairseq-train"]):
    """A line of `--log-format json`."""
    prefix = "" if name == "train_inner" else f"{name}_"
    named = f'"{prefix}loss": "7.5", "{prefix}ppl": "{ppl}", "{prefix}num_updates": "{update}"'
    return f'{head.format(name)}{{"epoch": 1, {named}, "{prefix}best_ppl": "1.5"}}'


def log(*lines):
    return parse("\n".join(lines))


@each_head
def test_simple(head):
    lines = [inner(20, 1510.99, head), inner(40, "1.2e+06", head), summary(50, 3.5, head=head)]
    curves = log("starts", *lines, summary(50, 137.77, "valid", head=head), "done")
    assert curves.train == [(20, 1510.99), (40, 1.2e6)]
    assert curves.valid == [(50, 137.77)]
    assert curves.diverged is None and curves.reason is None


@each_head
def test_json(head):
    rows = [(20, 1510.99, "train_inner"), (40, 2.5, "train_inner"), (50, 3, "train")]
    curves = log(*(as_json(*row, head) for row in [*rows, (50, 137.77, "valid")]))
    assert (curves.train, curves.valid) == ([(20, 1510.99), (40, 2.5)], [(50, 137.77)])


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": 1, "x": ' + "[" * 100_000 + "}",
        inner("9" * 5000, 2),
        inner(10**20, 2),
        as_json("9" * 5000, 2),
        as_json(5, 2).replace('"5"', "9" * 5000),
        as_json("Infinity", 2),
    ],
    ids=["deep", "long", "huge", "long in json", "number", "infinite"],
)
def test_a_line_that_no_training_wrote_is_left_out(line):
    assert log(inner(10, 5), line, inner(20, 4)).train == [(10, 5), (20, 4)]


def test_epochs_stand_for_updates_that_are_not_logged():
    """With a log interval above the run's length, and in tqdm's bars that end with a return."""
    bar = "epoch 001:  10%|#  | 25/253 [00:10<00:30, loss=9, ppl=512, num_updates=25]\r"
    assert log(bar + summary(50, 3.5), summary(100, 2.5)).train == [(50, 3.5), (100, 2.5)]
    assert log(as_json(50, 3.5, "train")).train == [(50, 3.5)]


def test_valid_is_the_subset_of_that_name_else_the_first():
    both = [summary(50, 9, "valid1"), summary(50, 8, "valid"), summary(90, 7, "valid1")]
    assert log(*both).valid == [(50, 8)]
    assert log(summary(50, 9, "train_dev"), summary(50, 8, "other")).valid == [(50, 9)]


@pytest.mark.parametrize("write", [inner, summary])
def test_a_number_cut_at_the_end_of_the_file_is_no_new_start(write):
    lines = "".join(f"{write(u, 50)}\n" for u in (1000, 2000))
    end = write(3000, 50).rpartition("num_updates")[0] + "num_updates"
    for cut in ("=3", " 3", "=30", " 30"):
        found = parse(lines + end + cut).train
        assert [update for update, _ in found] == [1000, 2000]


def test_a_resumed_run_takes_the_place_of_what_it_does_again():
    lines = [inner(u, 100 - u) for u in (10, 20, 30, 40)] + [inner(u, 50 - u) for u in (20, 30)]
    assert log(*lines).train == [(10, 90), (20, 30), (30, 20)]


@pytest.mark.parametrize(
    "ppls, at, reason",
    [
        ([90, 60, 50, 70, 59, 58, 69, 58], None, None),  # stuck
        ([90, 60, 50, 400, 300, 40, 30], None, None),  # a spike
        ([90, 60, 50, 400, 300], None, None),  # fewer than PATIENCE points
        ([90, 60, 50, 100, 100, 100], None, None),  # not above DIVERGED times the best
        ([90, 60, 50, 101, 101, 101], 4, "rose above 2 times its best"),
        ([90, 60, 50, 400, 60, 400, 350, 200], 6, "rose above 2 times"),  # the last rise
        ([50, 90, 120, 150, 200], 3, "rose above 2 times"),  # bit by bit
        ([90, 60, 50, "nan"], 4, "nan or inf"),
        ([90, 60, 50, 400, "inf"], 4, "nan or inf"),
        (["nan", "nan"], 1, "nan or inf"),
        ([90, "inf", 50, 40], None, None),  # one batch, after which training went on
    ],
)
def test_diverged(ppls, at, reason):
    assert (DIVERGED, PATIENCE) == (2, 3)
    curves = log(*(inner(i, ppl) for i, ppl in enumerate(ppls, 1)))
    assert curves.diverged == at
    assert curves.reason is None if reason is None else reason in curves.reason
    assert all(math.isfinite(ppl) for _, ppl in curves.train)
    assert len(curves.train) == sum(ppl not in ("nan", "inf") for ppl in ppls)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("FloatingPointError: gradients are Nan/Inf", "gradients are nan or inf"),
        ("FloatingPointError: Minimum loss scale reached (0.0001). Your loss", "loss scale"),
        ("rank   0 = nan", "gradients are nan or inf"),  # of several GPUs
    ],
)
def test_fairseq_gave_up(line, reason):
    ended = log(inner(20, 90), inner(40, 60), summary(45, 70, "valid"), "Traceback", line)
    assert ended.diverged == 45 and reason in ended.reason
    rise = [inner(20, 90), inner(40, 60), inner(60, 400), inner(80, 500)]
    assert log(*rise).diverged is None and log(*rise, line).diverged == 60
    assert log(line, "more").diverged == 0 and log(line, "more").train == []
    went_on = log(inner(20, 90), inner(40, 60), line, "starts again", inner(40, 55))
    assert went_on.diverged is None and went_on.reason is None


def test_other_ends_are_no_divergence():
    for line in ("KeyboardInterrupt", "rank   0 = 1.25", "OOM during optimization", "nan inf"):
        assert log(inner(20, 90), line).diverged is None


def test_a_valid_perplexity_that_ends_infinite():
    curves = log(inner(20, 9), summary(20, 8, "valid"), summary(30, "inf", "valid"))
    assert (curves.diverged, curves.valid) == (30, [(20, 8)])
    assert "valid" in curves.reason


def test_the_log_in_a_folder(tmp_path):
    (tmp_path / "a.log").write_text("Namespace(ppl=5)\n")
    (tmp_path / "b.log").write_text(inner(10, 5))
    assert read_curves(str(tmp_path)).train == [(10, 5)]
    (tmp_path / "train.log").write_text(inner(10, 7))
    assert read_curves(str(tmp_path)).train == [(10, 7)]
    assert read_curves(str(tmp_path / "b.log")).train == [(10, 5)]


def test_a_later_start_in_a_log_of_its_own(tmp_path):
    """It went on: the first log's end is not that of the training."""
    gave_up = "FloatingPointError: Minimum loss scale reached (0.0001). Your loss"
    (tmp_path / "train.log").write_text(f"{inner(100, 9)}\n{inner(200, 8)}\n{gave_up}\n")
    assert read_curves(str(tmp_path)).diverged == 200
    (tmp_path / "again.log").write_text(f"{inner(300, 7)}\n{inner(400, 6)}\n")
    found = read_curves(str(tmp_path))
    assert found.train == [(100, 9), (200, 8), (300, 7), (400, 6)] and found.diverged is None


def test_a_log_that_was_moved_aside_is_none_of_the_training(tmp_path):
    gave_up = "FloatingPointError: Minimum loss scale reached (0.0001). Your loss"
    (tmp_path / "first.log").write_text(f"{inner(400, 9)}\n{inner(500, 9)}\n{gave_up}\n")
    os.utime(tmp_path / "first.log", (1, 1))
    (tmp_path / "train.log").write_text(f"{inner(100, 8)}\n{inner(200, 7)}\n")
    (tmp_path / "hydra_train.log").write_text(f"{inner(100, 8)}\n{inner(200, 7)}\n")
    found = read_curves(str(tmp_path))
    assert found.train == [(100, 8), (200, 7)] and found.diverged is None


def test_a_new_start_whose_first_line_is_the_last_and_not_finished():
    lines = [inner(100, 9), summary(200, 8, "valid"), inner(50, 9), summary(50, 8, "valid")]
    assert log(*lines).valid == [(50, 8)]


def write_events(folder, points):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for update, ppl in points:
            writer.add_scalar("ppl", ppl, update)


def test_tensorboard_files_through_links_and_beside_others(tmp_path):
    """Links that lead around, and a folder and a damaged file that are called as such a file is."""
    logs = tmp_path / "logs"
    write_events(logs / "train_inner", [(10, 9.5), (20, 8.5)])
    write_events(logs / "valid", [(20, 7.5)])
    for name in ("a", "b"):
        (logs / name).symlink_to(logs)
    (logs / "valid" / "events.out.tfevents.0").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(logs)
    curves = read_curves(str(tmp_path / "run"))
    assert (curves.train, curves.valid) == ([(10, 9.5), (20, 8.5)], [(20, 7.5)])


@pytest.mark.parametrize("content", [b"", b"x" * 1000, b"\xff" * 24])
def test_damaged_tensorboard_files_are_one_line(tmp_path, content):
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_curves(str(tmp_path))
    assert "\n" not in error.value.message


def test_a_tensorboard_file_damaged_within_is_no_shorter_curve(tmp_path):
    write_events(tmp_path / "train_inner", [(n, 100 - n) for n in range(50)])
    (file,) = (tmp_path / "train_inner").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])  # a last record that is being written
    assert len(read_curves(str(tmp_path)).train) == 49
    file.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    with pytest.raises(UserError, match=f"{file} is damaged"):
        read_curves(str(tmp_path))


def test_the_perplexity_of_r_drop_is_that_of_one_pass(tmp_path):
    """Its criterion adds up the loss of two passes over the same tokens, told in train lines."""
    lines = [f"{inner(10, 900)}, rdrop_kl_loss=0.1", summary(10, 400, "valid")]
    assert log(*lines).train == [(10, 30)] and log(*lines).valid == [(10, 20)]
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "train_inner")) as writer:
        for tag, value in (("ppl", 900), ("rdrop_kl_loss", 0.1)):
            writer.add_scalar(tag, value, 10)
    assert read_curves(str(tmp_path)).train == [(10, 30)]


@pytest.mark.parametrize("text", ["", "\n", "Namespace(ppl=5)\n", '{"epoch": 1, "ppl": \n'])
def test_no_curve_is_one_line(tmp_path, text):
    (tmp_path / "train.log").write_text(text)
    for path in (tmp_path, tmp_path / "train.log"):
        with pytest.raises(UserError, match="holds no perplexity: give the log of a training"):
            read_curves(str(path))
    with pytest.raises(UserError, match="no such log or folder"):
        read_curves(str(tmp_path / "other"))


def test_a_new_start_in_the_same_log_takes_the_place_of_all_that_came_after():
    old = [inner(400, 30), inner(500, 20), summary(500, 25, "valid")]
    curves = log(*old, inner(100, 800), inner(200, 300))
    assert (curves.train, curves.valid) == ([(100, 800), (200, 300)], [])
    infinite = [inner(900, 30), summary(900, "inf", "valid")]
    assert log(*infinite, inner(700, 20), inner(800, 10)).diverged is None
    alarm = f"{ALARM} at update 300: its loss is"
    assert log(inner(300, 800), alarm, inner(350, 800)).stuck == 300
    assert log(inner(300, 800), alarm, inner(50, 800), inner(900, 5)).stuck is None


def test_updates_beyond_a_million_are_logged_in_six_digits():
    lines = [inner(n, ppl) for n, ppl in ((999900, 5), (1000000, 5), (1234570, "nan"))]
    lines[1:] = [
        re.sub(r"num_updates=\d+", lambda n: f"num_updates={float(n[0][12:]):g}", x)
        for x in lines[1:]
    ]
    found = log(*lines)
    assert found.train == [(999900, 5), (1000000, 5)] and found.diverged == 1234570


def test_epochs_logged_before_another_format_stay():
    found = log(summary(50, 90), summary(100, 60), inner(110, 50), summary(150, 40))
    assert found.train == [(50, 90), (100, 60), (110, 50)]
