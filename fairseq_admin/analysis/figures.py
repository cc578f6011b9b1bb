"""The figures of what was measured in models; each takes its analysis' result."""

import textwrap
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from fairseq_admin.analysis.output_change import KINDS, against_depth
from fairseq_admin.analysis.plotting import THEORY, WIDTH, Axes, log_axes, panels, plt, save, styles
from fairseq_admin.analysis.sublayers import BRANCHES
from fairseq_admin.methods import STACKS

Model = Dict[str, Any]
KIND_LINES = dict(zip(BRANCHES, ("-", "--", ":")))
PREFIXES = {"self_attn": "self ", "encoder_attn": "cross ", "ffn": ""}  # of parameters' names
LOW = 2.6  # inches of a row where there are several
ALONE = 3.2  # inches of a row that is the figure
FITS = "{:>5} {:>6} {:>5}  {}"  # a line of them
TITLES = 75  # characters beside each other in a row of titles


def by_label(models: Sequence[Model]) -> Dict[str, List[Model]]:
    """The models of each label: one a seed."""
    found: Dict[str, List[Model]] = {}
    for model in models:
        found.setdefault(model["label"], []).append(model)
    return found


def styled(models: Sequence[Model]) -> List[Tuple[Dict[str, object], List[Model]]]:
    """How to draw each label, and its models."""
    groups = by_label(models)
    lines = [(group[0]["method"], label) for label, group in groups.items()]
    return list(zip(styles(lines), groups.values()))


def mean_of(models: List[Model], stack: str, value: Callable[[Dict[str, Any]], float]):
    """Mean over seeds of a value of each sublayer."""
    rows = [[value(row) for row in model["stacks"][stack]] for model in models]
    return np.mean(rows, axis=0)


def plot_output_change(result: Dict[str, Any], path: str) -> None:
    """Change against sublayers, on linear axes and on logarithmic ones; R^2 of the fits against N
    and log N, and the exponent, beside them."""
    rows = [(stack, kind) for stack in STACKS for kind in KINDS]
    figure, axes = panels(len(rows), 3, LOW, width_ratios=(1, 1, 0.62))
    for (stack, kind), (linear, logarithmic, text) in zip(rows, axes):
        plot_change(linear, logarithmic, result["models"], stack, kind)
        text.axis("off")
        told = [
            FITS.format(
                *(f"{x:.2f}" for x in (fit["N"]["r2"], fit["log N"]["r2"], fit["exponent"])),
                fit["label"],
            )
            for fit in result["fits"]
            if (fit["stack"], fit["step"]) == (stack, kind)
        ]
        if told:
            head = FITS.format("N", "log N", "p", "(R² of fits)") + "\n"
            told = "\n".join([head, *told, "\np: exponent of N"])
            text.text(0, 1, told, va="top", family="monospace", fontsize=7, parse_math=False)
    save(figure, path)


def plot_change(
    linear: Axes, logarithmic: Axes, models: Sequence[Model], stack: str, kind: str
) -> None:
    """The change of a *stack* under a *kind* of step, on axes of both kinds."""
    found = against_depth(models, stack, kind)
    for (style, _), (x, mean, std) in zip(styled(models), found.values()):
        for panel in (linear, logarithmic):
            panel.errorbar(x, mean, std, marker=".", linewidth=1.2, elinewidth=0.6, **style)
            panel.set(xlabel="N sublayers", title="the same, log axes")
    linear.set(title=f"{stack}, {kind} step", ylabel="E|F(x,W) - F(x,W*)|² / d")
    log_axes(logarithmic, xscale="log")
    logarithmic.tick_params(axis="x", which="minor", labelbottom=False)  # they overlap


def plot_output_change_encoder(result: Dict[str, Any], path: str) -> None:
    """The encoder's change after the random step alone."""
    figure, [axes] = panels(1, 2, ALONE)
    plot_change(*axes, result["models"], "encoder", "random")
    save(figure, path)


def plot_dependency(result: Dict[str, Any], path: str) -> None:
    """Heat maps of beta_ij, a column a model, and beta_ii^2 against i."""
    groups = by_label(result["models"])
    figure = plt.figure(figsize=(WIDTH, 7.5), layout="constrained")
    maps, diagonals = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    axes = maps.subplots(len(STACKS), len(groups), squeeze=False)
    for column, (label, models) in enumerate(groups.items()):
        for panel, stack in zip(axes[:, column], STACKS):
            rows = [model["stacks"][stack]["rows"] for model in models]
            square = np.full((len(rows[0]), len(rows[0]) + 1), np.nan)
            for i, of_seeds in enumerate(zip(*rows)):
                square[i, : i + 2] = np.mean([row["beta"] for row in of_seeds], axis=0)
            extent = (-0.5, len(square) + 0.5, len(square) + 0.5, 0.5)
            image = panel.imshow(square, vmin=0, vmax=1, aspect="auto", extent=extent)
        told = broken(label, TITLES // len(groups))
        axes[0, column].set_title(told, fontsize=8, parse_math=False)
    for panel, stack in zip(axes[:, 0], STACKS):
        panel.set_ylabel(f"{stack}, sublayer i")
    maps.supxlabel("branch j (0: the stack's input)", fontsize=10)
    maps.colorbar(image, ax=axes, label="beta_ij")
    for panel, stack in zip(diagonals.subplots(1, 2), STACKS):
        plot_diagonal(panel, stack, result["models"])
    save(figure, path)


def broken(label: str, width: int) -> str:
    """*label* in lines of at most *width* characters, broken where its parts meet if it can be."""
    parts = label.replace(" at ", "\nat ").replace("/", "/\n").split("\n")
    return "\n".join(line for part in parts for line in textwrap.wrap(part, max(1, width)))


def plot_diagonal(panel: Axes, stack: str, models: Sequence[Model]) -> None:
    """beta_ii^2 against i, with the line 1/i."""
    longest = 0
    for style, group in styled(models):
        betas = [[r["beta"][-1] ** 2 for r in m["stacks"][stack]["rows"]] for m in group]
        x = np.arange(1, len(betas[0]) + 1)
        longest = max(longest, len(x))
        panel.plot(x, np.mean(betas, axis=0), marker=".", markersize=3, linewidth=1, **style)
    x = np.arange(1, longest + 1)
    panel.plot(x, 1 / x, label="1/i", **THEORY)
    panel.set(xscale="log", yscale="log", xlabel="i", ylabel="beta_ii²", title=stack)


def deepest(models: List[Model]) -> List[Model]:
    """Those of the most sublayers."""
    depths = [sum(map(len, model["stacks"].values())) for model in models]
    return [model for model, depth in zip(models, depths) if depth == max(depths)]


def plot_gradients(result: Dict[str, Any], path: str) -> None:
    """Gradient norms along the sublayers, by kind of parameter, and against depth."""
    several = len({model["layers"] for model in result["models"]}) > 1
    figure, axes = panels(3 + several, len(STACKS), LOW)
    for column, stack in enumerate(STACKS):
        weights, outputs, kinds = (axes[row][column] for row in range(3))
        for style, models in styled(result["models"]):
            models = deepest(models)
            norms = mean_of(models, stack, lambda row: row["weights"])
            weights.plot(np.arange(1, len(norms) + 1), norms, linewidth=1, **style)
            norms = mean_of(models, stack, lambda row: row["output"])
            found = [row["kind"] for row in models[0]["stacks"][stack]]
            for kind, line in KIND_LINES.items():
                x = [i for i, of in enumerate(found) if of == kind]
                outputs.plot(np.add(x, 1), norms[x], line, linewidth=1, **style)
            means = mean_by_parameter(models, stack)
            kinds.plot(list(means), list(means.values()), ".", **style)
        weights.set(title=stack, xlabel="sublayer", ylabel="|dL/dW|, matrices")
        outputs.set(xlabel="- self, -- cross, ·· FFN", ylabel="|dL/dx|, output")
        kinds.set(ylabel="|dL/dW|, mean")
        for panel in (weights, outputs, kinds):
            log_axes(panel)
        kinds.tick_params(axis="x", labelrotation=90, labelsize=7)
        if several:
            plot_last(axes[3][column], stack, result["models"])
    save(figure, path)


def mean_by_parameter(models: List[Model], stack: str) -> Dict[str, float]:
    """Mean norm over layers and seeds, by kind of sublayer and parameter."""
    found: Dict[str, List[float]] = {}
    for model in models:
        for row in model["stacks"][stack]:
            for name, norm in row["parameters"].items():
                name = f"{PREFIXES[row['kind']]}{name}"
                found.setdefault(name, []).append(norm)
    return {name: float(np.mean(norms)) for name, norms in found.items()}


def last_ffn(models: Sequence[Model], stack: str) -> Dict[str, Tuple[List[int], List[float]]]:
    """By label: layers of the stack, and mean over seeds of the last FFN's gradient norm."""
    found = {}
    for label, group in by_label(models).items():
        norms: Dict[int, List[float]] = {}
        for model in group:
            ffns = [row for row in model["stacks"][stack] if row["kind"] == "ffn"]
            norms.setdefault(len(ffns), []).append(ffns[-1]["weights"])
        found[label] = sorted(norms), [float(np.mean(norms[n])) for n in sorted(norms)]
    return found


def plot_last(panel: Axes, stack: str, models: Sequence[Model]) -> None:
    """The last FFN's gradient norm against depth, with lines of 1/sqrt(L) for Pre-LN and Admin."""
    ticks = set()
    for (style, group), (x, norms) in zip(styled(models), last_ffn(models, stack).values()):
        ticks.update(x)
        panel.plot(x, norms, marker=".", linewidth=1, **style)
        if len(x) > 1 and group[0]["method"] in ("pre-ln", "admin"):
            panel.plot(x, norms[-1] * np.sqrt(x[-1] / np.array(x)), label="1/sqrt(L)", **THEORY)
    panel.set(xscale="log", xlabel=f"L {stack} layers", ylabel="|dL/dW|, last FFN")
    log_axes(panel)
    panel.set_xticks(sorted(ticks), sorted(ticks))
    panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def plot_updates(result: Dict[str, Any], path: str) -> None:
    """Histograms of relative norms on a logarithmic axis, gradients beside updates."""
    figure, [axes] = panels(1, 2)
    bins = np.logspace(-5, 0, 31)
    for panel, kind in zip(axes, ("gradient", "update")):
        for style, models in styled(result["models"]):
            norms = [norm for model in models for norm in model["norms"][kind].values()]
            weights = np.full(len(norms), 1 / len(norms))
            clipped = np.clip(norms, bins[0], None)
            panel.hist(clipped, bins, weights=weights, histtype="step", linewidth=1.5, **style)
        panel.set(xscale="log", xlabel=f"relative {kind} norm", ylabel="share of the matrices")
    save(figure, path)


def plot_norms(result: Dict[str, Any], path: str) -> None:
    """E|x|^2 / d after each layer, with the bounds of lemma 2; a decoder has two attentions."""
    figure, [axes] = panels(1, 2)
    for panel, stack in zip(axes, STACKS):
        longest = 0
        for style, models in styled(result["models"]):
            kinds = [row["kind"] for row in models[0]["stacks"][stack]]
            norms = mean_of(models, stack, lambda row: row["norm2"])
            norms = norms[[i for i, kind in enumerate(kinds) if kind == "ffn"]]
            longest = max(longest, len(norms))
            panel.plot(range(1, len(norms) + 1), norms, marker=".", linewidth=1, **style)
        x = np.arange(1, longest + 1)
        panel.plot(x, np.full(len(x), 1.5), label="3/2: Post-LN", **THEORY)
        bounds = {**THEORY, "linestyle": "--"}
        most = 1.5 if stack == "encoder" else 2.5
        panel.plot(x, 1 + 0.5 * x, label="1 + l/2, 1 + 3l/2 or 5l/2: Pre-LN", **bounds)
        panel.plot(x, 1 + most * x, **bounds)
        panel.set(xlabel="layer l", ylabel="E|x|² / d before the norm", title=stack, yscale="log")
    save(figure, path)


def plot_omega(result: Dict[str, Any], path: str) -> None:
    """Mean over channels, and one standard deviation around it."""
    figure, [axes] = panels(1, 2)
    for panel, stack in zip(axes, STACKS):
        for style, models in styled(result["models"]):
            if not models[0]["stacks"][stack]:
                continue  # of a method without omegas
            mean = mean_of(models, stack, lambda row: row["mean"])
            std = mean_of(models, stack, lambda row: row["std"])
            x = np.arange(1, len(mean) + 1)
            panel.plot(x, mean, linewidth=1, **style)
            panel.fill_between(x, mean - std, mean + std, color=style["color"], alpha=0.15, lw=0)
        panel.set(xlabel="sublayer", ylabel="omega", title=stack, ylim=(0, None))
    save(figure, path)
