"""Figures: one colour a method everywhere, axes with units, legend outside the data."""

from typing import Dict, List, Tuple

import matplotlib

matplotlib.use("Agg")  # no display on a training machine
import matplotlib.pyplot as plt  # noqa: E402

from fairseq_admin.profiling import STACKS, Profile  # noqa: E402

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = {"admin": "#0072B2", "post-ln": "#D55E00", "pre-ln": "#009E73"}
SIZE = (8, 4.5)  # inches
DPI = 120  # 960 pixels wide


def save(figure, path: str) -> None:
    """Write *figure* as PNG with its legend beside the axes."""
    figure.axes[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path, dpi=DPI, bbox_inches="tight", format="png")
    plt.close(figure)


def plot_omegas(profile: Profile, path: str) -> None:
    """Omega over depth, a line a stack."""
    figure, axes = plt.subplots(figsize=SIZE)
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
    figure, axes = plt.subplots(figsize=SIZE)
    for method, points in curves.items():
        axes.plot(
            [update for update, _ in points],
            [ppl for _, ppl in points],
            color=COLOURS[method],
            label=method,
        )
    axes.set(xlabel="update", ylabel=f"{what} perplexity", yscale="log")
    save(figure, path)
