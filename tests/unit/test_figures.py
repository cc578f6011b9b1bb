"""What the figures draw: a line a label, the mean of its seeds, each model at its own depth."""

import io
from itertools import combinations

import pytest

from fairseq_admin.analysis import figures, plotting


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a plot function made, not written."""
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))

    def draw(plot, models, **more):
        plot({"models": models, **more}, "unused")
        return kept[-1].axes

    return draw


def model(label, stacks, method="admin", layers="1-1", seed=1):
    found = {"label": label, "method": method, "layers": layers, "seed": seed, "updates": None}
    return {**found, "stacks": stacks}


def norm_rows(*values):
    rows = [{"name": "input", "kind": "input", "norm2": 1.0}]
    return {s: rows + [{"kind": "ffn", "norm2": v} for v in values] for s in ("encoder", "decoder")}


def line(axes, label):
    (found,) = (x for x in axes.get_lines() if x.get_label() == label)
    return list(found.get_ydata())


def test_a_line_is_the_mean_over_seeds(drawn):
    models = [model("a", norm_rows(1.0, 2.0)), model("a", norm_rows(3.0, 6.0), seed=2)]
    models.append(model("b", norm_rows(5.0)))  # less deep
    axes = drawn(figures.plot_norms, models)[0]
    assert line(axes, "a") == [2.0, 4.0] and line(axes, "b") == [5.0]


def gradient_rows(layers, weight):
    def row(i, kind):
        parameters = {"fc1": weight, "fc2": weight} if kind == "ffn" else {"q_proj": weight}
        norms = {"output": weight, "weights": weight + i, "parameters": parameters}
        return {"name": f"{i}.{kind}", "kind": kind, **norms}

    rows = [row(i, kind) for i in range(layers) for kind in ("self_attn", "ffn")]
    return {"encoder": rows, "decoder": rows}


def test_gradients_of_models_of_other_depths(drawn):
    """Each is drawn at its deepest; the last FFN against all its depths."""
    models = [model("a", gradient_rows(n, 1.0), layers=f"{n}-{n}") for n in (2, 4)]
    models.append(model("b", gradient_rows(3, 5.0), "post-ln", "3-3"))
    axes = drawn(figures.plot_gradients, models)
    assert len(line(axes[0], "a")) == 8 and len(line(axes[0], "b")) == 6
    last = axes[6]
    assert line(last, "a") == [2.0, 4.0] and line(last, "b") == [7.0]
    assert [tick.get_text() for tick in last.get_xticklabels()] == ["2", "3", "4"]
    assert len([x for x in last.get_lines() if x.get_label() == "1/sqrt(L)"]) == 1  # none of b


def beta_rows(*betas):
    rows = {"rows": [{"beta": list(beta), "kind": "ffn"} for beta in betas]}
    return {"encoder": rows, "decoder": rows}


def test_heat_maps_are_means_over_seeds(drawn):
    models = [model("a", beta_rows((0.2, 0.4))), model("a", beta_rows((0.4, 0.8)), seed=2)]
    (image,) = drawn(figures.plot_dependency, models)[0].get_images()
    assert image.get_array().data.tolist() == [pytest.approx([0.3, 0.6])]


@pytest.mark.parametrize("label", ["runs/demo_post_ln/checkpoint_{}", "x" * 25 + "_{}"])
def test_long_labels_fit(monkeypatch, label):
    """The titles of five columns beside each other; a legend that leaves the page to the data."""
    kept = []
    monkeypatch.setattr(plotting.plt, "close", kept.append)
    models = [model(label.format(i), beta_rows((0.2, 0.4))) for i in range(5)]
    figures.plot_dependency({"models": models}, io.BytesIO())
    (figure,) = kept
    titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_images()]
    assert len(titles) == 10 and not any(a.overlaps(b) for a, b in combinations(titles[:5], 2))
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert legend.height < page.height / 5 and legend.x0 >= 0 and legend.x1 <= page.width


def test_output_change_over_depths(drawn):
    def changes(*values):
        kinds = {"random": list(values), "gradient": list(values)}
        return {"encoder": kinds, "decoder": kinds}

    models = [model("a", changes(1.0)), model("a", changes(1.0, 3.0)), model("a", changes(5.0))]
    axes = drawn(figures.plot_output_change, models, fits=[])
    assert len(axes) == 8
    assert list(axes[0].containers[0].lines[0].get_ydata()) == [3.0, 3.0]  # mean of 1 and 5; 3
