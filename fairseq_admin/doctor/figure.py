"""What the first steps leave of the difference between tokens, sublayer by sublayer."""

from typing import Any, Dict

from fairseq_admin.analysis.plotting import OTHER, log_axes, panels, plain, save
from fairseq_admin.methods import METHODS, STACKS


def plot_doctor(result: Dict[str, Any], path: Any) -> None:
    """Draw *result*, of `examine`, to a path or file."""
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
