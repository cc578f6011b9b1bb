"""What the figures draw: a line a label, the mean of its seeds, each model at its own depth, each
method in its own colour."""

import io
import json
import logging
import warnings
from itertools import combinations
from pathlib import Path

import pytest

from fairseq_admin.analysis import figures, output_change, plotting
from fairseq_admin.methods import METHODS
from fairseq_admin.omega_file import Profile, StackProfile, SublayerProfile

FIGURES = Path(__file__).resolve().parents[2] / "results" / "figures"


@pytest.fixture(autouse=True)
def closed():
    """Figures that a test kept from being closed."""
    yield
    plotting.plt.close("all")


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


@pytest.mark.parametrize(
    "label", ["runs/demo_post_ln/checkpoint_{}", "x" * 25 + "_{}", r"a{}$\frac$"]
)
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


def changes(*values):
    kinds = {"random": list(values), "gradient": list(values)}
    return {"encoder": kinds, "decoder": kinds}


def test_output_change_over_depths(drawn):
    models = [model("a", changes(1.0)), model("a", changes(1.0, 3.0)), model("a", changes(5.0))]
    axes = drawn(figures.plot_output_change, models, fits=[])
    assert len(axes) == 12  # the third of each row is for the fits
    assert list(axes[0].containers[0].lines[0].get_ydata()) == [3.0, 3.0]  # mean of 1 and 5; 3


def of_method(analysis, method):
    """Models of a *method* as an analysis has them; new ReZero models do not move."""
    moves = 0.0 if method == "rezero" else 1.0
    if analysis == "output_change":
        return [model(method, changes(*[n * moves] * n), method) for n in (1, 2, 4)]
    stacks = {
        "dependency": beta_rows((1.0, moves), (0.5, 0.5, moves)),
        "gradients": gradient_rows(2, moves),
        "norms": norm_rows(1.0, 2.0),
    }
    return [model(method, stacks[analysis], method)]


def whole_figure(monkeypatch, plot, models, **more):
    """The figure as it is written, with its legend; a warning is an error."""
    kept = []
    monkeypatch.setattr(plotting.plt, "close", kept.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot({"models": models, **more}, io.BytesIO())
    return kept[0]


ALL = ["output_change", "output_change_encoder", "dependency", "gradients", "norms"]


@pytest.mark.parametrize("methods", [tuple(METHODS), ("rezero",)], ids=len)
@pytest.mark.parametrize("figure", ALL)
def test_seven_methods_in_their_colours(monkeypatch, figure, methods):
    """Each in every panel and in the legend, which says what is 0, and does not hide the data;
    logarithmic axes bear a method alone whose values are all 0."""
    analysis = figure.replace("_encoder", "")
    models = [x for method in methods for x in of_method(analysis, method)]
    fits = output_change.fits(models) if analysis == "output_change" else []
    made = whole_figure(monkeypatch, getattr(figures, f"plot_{figure}"), models, fits=fits)
    (legend,) = made.legends
    named = [text.get_text().partition(" (")[0] for text in legend.get_texts()]
    assert set(methods) <= set(named)
    panels = [x for x in made.axes if x.get_legend_handles_labels()[1]]
    assert len(panels) >= 2
    for panel in panels:
        colours = {}
        for handle, label in zip(*panel.get_legend_handles_labels()):
            drawn = getattr(handle, "lines", [handle])[0]
            colours.setdefault(label, set()).add(drawn.get_color())
        for method in methods:
            assert colours[method] == {METHODS[method].colour}
    zeros = [text.get_text() for text in legend.get_texts() if "0 where" in text.get_text()]
    hidden = figure == "dependency" or (figure != "norms" and len(methods) > 1)
    assert zeros == ["rezero (0 where not drawn)"] * hidden
    inside, page = legend.get_window_extent(), made.bbox
    assert page.width <= 1200 and inside.x0 >= 0 and inside.x1 <= page.width
    assert inside.height < page.height / 3


def test_omegas_that_there_are(monkeypatch):
    """Of a profile of two methods: one stack without, one with a first sublayer without."""
    kept = []
    monkeypatch.setattr(plotting, "save", lambda figure, path: kept.append(figure))
    rows = [SublayerProfile("a", None, 0.5), *(SublayerProfile("b", 1.0 + i) for i in range(2))]
    stacks = {"encoder": StackProfile(1.0, rows), "decoder": StackProfile(1.0, rows[:1])}
    plotting.plot_omegas(Profile(stacks), "unused")
    (found,) = kept[0].axes[0].get_lines()
    assert found.get_label() == "encoder"
    assert found.get_xydata().tolist() == [[2.0, 1.0], [3.0, 2.0]]


def test_omega_of_a_stack_without(drawn):
    row = {"name": "a", "mean": 2.0, "std": 0.5, "min": 1.0, "max": 3.0}
    axes = drawn(figures.plot_omega, [model("a", {"encoder": [row], "decoder": []})])
    assert [len(panel.get_lines()) for panel in axes] == [1, 0]


def test_colours_of_what_is_no_method():
    """Others than those of the methods."""
    lines = [("post-ln/pre-ln", "a"), ("Admin", "b"), ("a system", "c")]
    mixed, admin, other = (style["color"] for style in plotting.styles(lines))
    assert admin == METHODS["admin"].colour and mixed != other
    assert not {mixed, other} & {method.colour for method in METHODS.values()}


def test_promises_stand_beside_the_numbers_of_the_figure():
    """A row a method, with the fits of the encoder's random step."""
    text = (FIGURES / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert {row[0].strip("`") for row in rows} == METHODS.keys()
    found = json.loads((FIGURES / "output_change.json").read_text())["fits"]
    fits = {f["label"]: f for f in found if (f["stack"], f["step"]) == ("encoder", "random")}
    for name, _, *numbers, _ in rows:
        fit = fits.get(name.strip("`"))
        numbers_of = [fit["N"]["r2"], fit["log N"]["r2"], fit["exponent"]] if fit else []
        assert numbers == ([f"{x:.2f}" for x in numbers_of] or ["–"] * 3)


def test_matplotlib_tells_no_details_whatever_the_root_logger_does(monkeypatch):
    """Once a process has built a model the root logger is at DEBUG: a report printed thousands of
    lines."""
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    logging.getLogger("matplotlib.font_manager").manager._clear_cache()
    assert not logging.getLogger("matplotlib.font_manager").isEnabledFor(logging.INFO)


def test_lines_without_a_method_can_be_told_apart_and_all_stand_in_the_legend():
    found = plotting.styles([("", f"_{i}") for i in range(9)])
    assert len({(style["color"], style["alpha"]) for style in found}) == 9
    assert not any(style["label"].startswith("_") for style in found)
