"""Figures: a method's own colour everywhere, axes with units, legend outside the data."""

import logging
import os
import textwrap
from typing import Any, Dict, List, Sequence, Tuple

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # the root is at DEBUG under fairseq

import matplotlib  # noqa: E402

matplotlib.use("Agg")  # no display on a training machine
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from fairseq_admin.methods import METHODS, STACKS  # noqa: E402
from fairseq_admin.omega_file import Profile  # noqa: E402

OTHER = ("#000000", "#999999", "#882255", "#332288")  # of what is no method, or two
THEORY = {"color": "#666666", "linestyle": ":", "linewidth": 1}
WIDTH = 8  # inches of a figure
LINE = 95  # characters of a legend's line in that width, with the strokes before its labels
STROKE = 8  # characters that such a stroke takes
HEIGHT = 4.5  # inches of a row of panels
ROWS, ROW = 4, 0.2  # lines of a legend that fit below a row of panels, and inches of a further one
DPI = 120  # 960 pixels wide
FEW = 20  # points of a line below which each is marked


def plain(text: str) -> str:
    """*text* to be drawn as it is, no formula, and not left out of a legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def panels(
    rows: int, columns: int, height: float = HEIGHT, **more: Any
) -> Tuple[Figure, List[List[Axes]]]:
    """A figure of *rows* times *columns* axes, *height* inches a row."""
    size = {"figsize": (WIDTH, height * rows), "squeeze": False, "constrained_layout": True}
    figure, axes = plt.subplots(rows, columns, **size, **more)
    return figure, [list(row) for row in axes]


def styles(lines: Sequence[Tuple[str, str]]) -> List[Dict[str, object]]:
    """How to draw each line of (method, label): a method's colour, lighter for its earlier ones
    where it has several (checkpoints of a training)."""
    methods = [method.lower() for method, _ in lines]
    others = [m for m in dict.fromkeys(methods) if m not in METHODS]
    colours = [
        METHODS[m].colour if m in METHODS else OTHER[others.index(m) % len(OTHER)] for m in methods
    ]
    found = []
    for i, (colour, (_, label)) in enumerate(zip(colours, lines)):
        share = colours[: i + 1].count(colour) / colours.count(colour)
        found.append({"color": colour, "alpha": 0.3 + 0.7 * share, "label": plain(label)})
    return found


def values(handle: Any) -> List[float]:
    """The points of a line, or of one with error bars, along y."""
    return list(getattr(handle, "lines", [handle])[0].get_ydata())


def log_axes(axes: Axes, **more: str) -> None:
    """A logarithmic y axis, if anything there is above 0."""
    if any(y > 0 for handle in axes.get_legend_handles_labels()[0] for y in values(handle)):
        axes.set(yscale="log", **more)


def save(figure: Figure, path: str) -> None:
    """Write *figure* as PNG with one legend of all its axes, below them. It says which lines are 0
    everywhere, and so on no logarithmic axis."""
    entries = {}
    found = [(axes, *x) for axes in figure.axes for x in zip(*axes.get_legend_handles_labels())]
    drawn = ((label, values(x)) for axes, x, label in found if axes.get_yscale() == "log")
    zero = {label for label, ys in drawn if ys and max(ys) <= 0}
    for _, handle, label in found:
        label = f"{label} (0 where not drawn)" if label in zero else label
        entries.setdefault(textwrap.fill(label, LINE - STROKE), handle)
    if entries:
        fit = LINE // (STROKE + max(map(len, entries)))
        columns = min(len(entries), max(1, fit))
        place = {"loc": "outside lower center", "ncols": columns, "frameon": False}
        figure.legend(entries.values(), entries.keys(), **place)
        rows = -(-len(entries) // columns) - ROWS  # beyond those for which there is place
        figure.set_figheight(figure.get_figheight() + ROW * max(0, rows))
    figure.savefig(path, dpi=DPI, format="png")
    plt.close(figure)


def plot_omegas(profile: Profile, path: str) -> None:
    """Omega over depth, a line a stack that has any."""
    figure, [[axes]] = panels(1, 1)
    for stack, style in zip(STACKS, ("-", "--")):
        sublayers = enumerate(profile.stacks[stack].sublayers, 1)
        points = [(i, s.omega) for i, s in sublayers if s.omega is not None]
        if points:
            axes.plot(*zip(*points), style, color=METHODS["admin"].colour, label=stack)
    axes.set(xlabel="sublayer", ylabel="omega", title="Omega over depth", ylim=(0, None))
    save(figure, path)


def plot_curves(result: Dict[str, Any], path: str) -> None:
    """Train and valid perplexity over updates of what `curves.measure` gave, a line a run. A cross
    is the last finite point of one that diverged."""
    runs = result["runs"]
    kinds = [kind for kind in ("train", "valid") if any(run[kind] for run in runs)] or ["train"]
    figure, [row] = panels(1, len(kinds))
    for axes, kind in zip(row, kinds):
        for run, style in zip(runs, styles([(run["method"], run["label"]) for run in runs])):
            updates, values = [point[0] for point in run[kind]], [point[1] for point in run[kind]]
            if run["diverged"] is not None:
                style["label"] += f", diverged at {run['diverged']}"
                axes.plot(updates[-1:], values[-1:], "x", color=style["color"], markersize=9)
            elif run["stuck"] is not None:
                style["label"] += f", stuck at {run['stuck']}"
            axes.plot(updates, values, ".-" if len(updates) < FEW else "-", **style)
        axes.set(xlabel="update", ylabel=f"{kind} perplexity", yscale="log")
    save(figure, path)


def plot_errors(result: Dict[str, Any], path: str) -> None:
    """BLEU by sentence length and F1 by word frequency of what `errors.measure` gave, bars a
    system; below each bucket how many sentences or words are in it."""
    figure, rows = panels(2, 1, height=3.5)
    systems, counted = result["systems"], plain(os.path.basename(result["counts_of"]))
    drawn = (
        ("lengths", "bleu", "BLEU", "sentences", "words of the reference sentence"),
        ("frequencies", "f1", "F1 of words", "words", f"occurrences of the word in {counted}"),
    )
    width = 0.8 / len(systems)  # of a bar, where buckets are 1 apart
    for [axes], (table, value, measured, size, bucketed) in zip(rows, drawn):
        for i, style in enumerate(styles([(s["label"], s["label"]) for s in systems])):
            heights = [row[value] for row in systems[i][table]]
            places = [x + (i - (len(systems) - 1) / 2) * width for x in range(len(heights))]
            axes.bar(places, heights, width, **style)
        names = [f"{row['bucket']}\n{row[size]}" for row in systems[0][table]]
        axes.set_xticks(range(len(names)), names, fontsize="x-small")
        axes.set(xlabel=f"{bucketed} (and {size} in the bucket)", ylabel=measured)
    save(figure, path)


def plot_doctor(result: Dict[str, Any], path: Any) -> None:
    """What the first steps leave of the difference between tokens, sublayer by sublayer, of what
    `doctor.examination.examine` found."""
    figure, (row,) = panels(1, len(STACKS), sharey=True)
    method = METHODS.get(result["method"])
    colour = method.colour if method else OTHER[0]
    for panel, stack in zip(row, STACKS):
        rows = [found for found in result["sublayers"] if found["name"].startswith(stack)]
        numbers = range(1, len(rows) + 1)
        for when, style in (("before", ":"), ("after", "-")):
            spreads = [found[f"spread_{when}"] for found in rows]
            panel.plot(numbers, spreads, style, color=colour, label=f"{when} the first steps")
        log_axes(panel)
        panel.set(xlabel=f"sublayer of the {stack}")
    row[0].set(ylabel="share of the output in which tokens differ")
    figure.suptitle(plain(f"{result['training']}: {result['verdict']}"))
    save(figure, path)
