"""The page of a study: what it asks, the table and the figure of its records, what is missing."""

import statistics
from pathlib import Path
from typing import List, Sequence

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_file
from records.columns import COLUMNS, TRAINED, Record
from records.table import rewritten
from studies.study import Study
from studies.trial import Trial

BESIDE = 0.04  # of the distance of two labels, between the points of two methods


def records_of(trials: Sequence[Trial]) -> List[Record]:
    """The records of *trials*, in their order; UserError for one of no trial, or of other data."""
    found = [trial.record() for trial in trials]
    folder = trials[0].path.parent
    for path in sorted(set(folder.glob("*.json")) - {t.path for t, r in zip(trials, found) if r}):
        raise UserError(f"{path} is of no training of the study as it is now: remove it")
    records = [record for record in found if record]
    if len({record["data_sha256"] for record in records}) > 1:
        raise UserError(f"the records in {folder} are of different data: remove those of one")
    return records


def write_page(study: Study, trials: Sequence[Trial]) -> Path:
    """Write README.md and figure.png beside the records; the page's path.

    Raises:
        UserError: where there is no record, or one of another definition.
    """
    found, path = records_of(trials), trials[0].path.parent / "README.md"
    if not found:
        raise UserError(f"no record of {study.name}: run bash scripts/study.sh {study.name}")
    if study.figure:
        draw(study, found, path.with_name("figure.png"))
    with whole_file(path) as f:
        f.write(page(study, trials, path.parent))
    return path


def page(study: Study, trials: Sequence[Trial], folder: Path) -> str:
    """The Markdown of README.md in *folder*."""
    missing = [trial.setting.name for trial in trials if not trial.record()]
    parts = [
        f"# {study.title}",
        study.asks.strip(),
        f"`bash scripts/study.sh {study.name}` runs it and `--table` writes this page, of the "
        f"records beside it; what was trained is in `studies/{study.name}.yaml`.",
        f"<!-- table: {study.table} from *.json -->\n<!-- end of table -->",
    ]
    if study.figure:
        parts.append(f"![{study.title}](figure.png)")
    if missing:
        names = "\n".join(f"- `{name}`" for name in missing)
        parts.append(f"Not run yet, {len(missing)} of {len(trials)} trainings:\n\n{names}")
    return rewritten("\n\n".join(parts) + "\n", folder)


def draw(study: Study, found: Sequence[Record], path: Path) -> None:
    """Mean and standard deviation of a column over an axis, a line a method, a panel for each label
    of the axes `row` and `column`; methods stand beside each other. A cross at the bottom: some of
    its trainings failed."""
    from fairseq_admin.analysis import plotting  # matplotlib logs at its import
    from fairseq_admin.methods import title

    axis, (measured, value, _) = study.figure["x"], COLUMNS[study.figure["y"]]
    split = [study.figure.get(key) for key in ("row", "column")]
    labels = [ordered(found, name) if name else [None] for name in split]
    methods = list(dict.fromkeys(record["method"] for record in found))
    styles = plotting.styles([(method, title(method)) for method in methods])
    figure, rows = plotting.panels(*map(len, labels), height=3.5, sharey=True)
    for panels, row in zip(rows, labels[0]):
        for axes, column in zip(panels, labels[1]):
            told = [f"{plain(name)} {x}" for name, x in zip(split, (row, column)) if name]
            here = [
                record
                for record in found
                if all(not n or record["labels"][n] == x for n, x in zip(split, (row, column)))
            ]
            places = {x: i for i, x in enumerate(ordered(here, axis))}
            for i, (method, style) in enumerate(zip(methods, styles)):
                points, beside = [], BESIDE * (i - (len(methods) - 1) / 2)
                for x, place in places.items():
                    runs = [r for r in here if r["method"] == method and r["labels"][axis] == x]
                    trained = [r for r in runs if r["outcome"] == TRAINED]
                    values = [x for x in map(value, trained) if x is not None]
                    if values:
                        spread = statistics.stdev(values) if len(values) > 1 else 0
                        points.append((place + beside, statistics.mean(values), spread))
                    if len(trained) < len(runs):
                        cross = {"color": style["color"], "transform": axes.get_xaxis_transform()}
                        axes.plot([place + beside], [0.02], "x", clip_on=False, **cross)
                if points:
                    xs, ys, spreads = zip(*points)
                    axes.errorbar(xs, ys, spreads, marker=".", capsize=3, **style)
            axes.set_xticks(list(places.values()), list(places), fontsize="small")
            axes.set_title(", ".join(told), fontsize="small")
            axes.set(xlabel=plain(axis), ylabel=measured if axes is panels[0] else "")
    plotting.save(figure, str(path))


def plain(axis: str) -> str:
    """The name of an axis in words."""
    return axis.replace("_", " ")


def ordered(found: Sequence[Record], axis: str) -> List[str]:
    """The labels of *axis*, in the order of the records."""
    return list(dict.fromkeys(record["labels"][axis] for record in found))
