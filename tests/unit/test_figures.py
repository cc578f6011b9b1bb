"""What the figures draw: a line a label, the mean of its seeds, each model at its own depth."""

import pytest

from fairseq_admin.analysis import figures


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


def test_heat_maps_are_means_over_seeds(drawn):
    def stacks(*betas):
        rows = {"rows": [{"beta": list(beta), "kind": "ffn"} for beta in betas]}
        return {"encoder": rows, "decoder": rows}

    models = [model("a", stacks((0.2, 0.4))), model("a", stacks((0.4, 0.8)), seed=2)]
    (image,) = drawn(figures.plot_dependency, models)[0].get_images()
    assert image.get_array().data.tolist() == [pytest.approx([0.3, 0.6])]


def test_output_change_over_depths(drawn):
    def changes(*values):
        kinds = {"random": list(values), "gradient": list(values)}
        return {"encoder": kinds, "decoder": kinds}

    models = [model("a", changes(1.0)), model("a", changes(1.0, 3.0)), model("a", changes(5.0))]
    axes = drawn(figures.plot_output_change, models, fits=[])
    assert len(axes) == 8
    assert list(axes[0].containers[0].lines[0].get_ydata()) == [3.0, 3.0]  # mean of 1 and 5; 3
