"""Figures: one colour a method everywhere, axes with units, legend outside the data."""

from typing import Dict, List, Sequence, Tuple

import matplotlib

matplotlib.use("Agg")  # no display on a training machine
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from fairseq_admin.profiling import STACKS, Profile  # noqa: E402

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = {"admin": "#0072B2", "post-ln": "#D55E00", "pre-ln": "#009E73"}
OTHER = ("#CC79A7", "#E69F00", "#56B4E9", "#000000")  # methods without a colour of their own
THEORY = {"color": "#666666", "linestyle": ":", "linewidth": 1}
WIDTH = 8  # inches of a figure
HEIGHT = 4.5  # inches of a row of panels
DPI = 120  # 960 pixels wide


def panels(rows: int, columns: int, height: float = HEIGHT) -> Tuple[Figure, List[List[Axes]]]:
    """A figure of *rows* times *columns* axes, *height* inches a row."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, height * rows), squeeze=False, constrained_layout=True
    )
    return figure, [list(row) for row in axes]


def styles(lines: Sequence[Tuple[str, str]]) -> List[Dict[str, object]]:
    """How to draw each line of (method, label): a method's colour, lighter for its earlier ones
    where it has several (checkpoints of a training)."""
    methods = [method for method, _ in lines]
    others = [m for m in dict.fromkeys(methods) if m not in COLOURS]
    found = []
    for i, (method, label) in enumerate(lines):
        colour = COLOURS.get(method) or OTHER[others.index(method) % len(OTHER)]
        share = methods[: i + 1].count(method) / methods.count(method)
        found.append({"color": colour, "alpha": 0.3 + 0.7 * share, "label": label})
    return found


def save(figure: Figure, path: str) -> None:
    """Write *figure* as PNG with one legend of all its axes, beside them."""
    entries = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=DPI, format="png")
    plt.close(figure)


def plot_omegas(profile: Profile, path: str) -> None:
    """Omega over depth, a line a stack."""
    figure, [[axes]] = panels(1, 1)
    for stack, style in zip(STACKS, ("-", "--")):
        omegas = [s.omega for s in profile.stacks[stack].sublayers]
        axes.plot(range(1, len(omegas) + 1), omegas, style, color=COLOURS["admin"], label=stack)
    axes.set(xlabel="sublayer", ylabel="omega", title="Omega over depth", ylim=(0, None))
    save(figure, path)


def plot_curves(curves: Dict[str, List[Tuple[int, float]]], what: str, path: str) -> None:
    """Perplexity over updates, a line a method.

    Args:
        curves: (update, perplexity) points of each method, by the names of COLOURS.
        what: what the perplexity is of, for the axis.
    """
    figure, [[axes]] = panels(1, 1)
    for style, points in zip(styles([(m, m) for m in curves]), curves.values()):
        axes.plot(*zip(*points), **style)
    axes.set(xlabel="update", ylabel=f"{what} perplexity", yscale="log")
    save(figure, path)
