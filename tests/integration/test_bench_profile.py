"""scripts/bench.py --profile: what a training waits for, and that the draw biases no omega."""

from argparse import Namespace

from bench.profiles import bench_profiles

OPTIONS = {"layers": ["1-2"], "widths": [16], "dropout": 0.1, "pairs": 2}


def test_the_time_of_a_profile_and_its_padding(corpus):
    (row,) = bench_profiles(Namespace(**OPTIONS, profile=str(corpus), seeds=None))
    assert (row["layers"], row["width"], row["runs"]) == ("1-2", 16, 2)
    assert row["read_s"] > 0 and row["pass_s"] > 0
    assert 1 <= row["positions_a_token"] <= 1.25 and row["batches"] >= 1


def test_omegas_of_the_draw_are_those_of_the_whole(corpus):
    rows = list(bench_profiles(Namespace(**OPTIONS, profile=str(corpus), seeds=3)))
    assert [row["draw"] for row in rows] == ["grouped", "one batch"]
    for row in rows:
        low, high = row["mean"]
        assert 0.97 < low <= high < 1.03 and 0 < row["std"] < 0.03
