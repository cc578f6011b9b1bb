"""What a report says of one or several runs, as plain data: side by side, and where they differ."""

import json
import os
from typing import Any, Dict, Iterable, List, Tuple

from fairseq_admin.analysis.labels import shortest
from fairseq_admin.errors import UserError
from fairseq_admin.methods import title as method_title
from fairseq_admin.reporting.run import Run
from fairseq_admin.reporting.run_folder import read_run
from fairseq_admin.scoring.outputs import letters
from fairseq_admin.scoring.score import METRICS
from fairseq_admin.text import printable

TRANSLATIONS = 10  # of a test set
NOT_THERE = object()  # unlike every value of an option
# options that differ between any two runs
OWN = {"checkpoint.save_dir", "common.log_file", "common.tensorboard_logdir"}
FACTS = {
    "method": "Method",
    "layers": "Layers, encoder-decoder",
    "width": "Width",
    "seed": "Seed",
    "updates": "Updates",
    "outcome": "How it ended",
    "wall_seconds": "Time of training",
    "hardware": "Hardware of the evaluation",
    "versions": "Versions",
    "commit": "Commit",
    "checkpoint": "Checkpoint",
    "averaging": "Averaged by",
    "decoding": "Decoded with",
    "sentences": "Sentences translated",
    "reference": "Scored against",
    "fold": "Folded into a plain transformer",
    "same_translations": "Same translations after folding",
}


def read_runs(folders: List[str]) -> List[Run]:
    """The runs in *folders*, each with a label of its own; UserError for a folder given twice, and
    as `read_run`."""
    for i, folder in enumerate(folders):
        if any(os.path.realpath(folder) == os.path.realpath(other) for other in folders[:i]):
            raise UserError(f"{folder} is given twice")
    runs = [read_run(folder) for folder in folders]
    for run, label in zip(runs, shortest([run.folder for run in runs])):
        run.label = printable(label)
    tell_paths_apart(runs)
    return runs


def tell_paths_apart(runs: List[Run]) -> None:
    """Let options of *runs* that are paths differ where only the folders of the files do."""
    for option in {option for run in runs for option in run.paths}:
        having = [run for run in runs if option in run.paths]
        paths = list(dict.fromkeys(run.paths[option] for run in having))
        if len(paths) > len({run.config[option] for run in having}):
            labels = dict(zip(paths, shortest(paths)))
            for run in having:
                run.config[option] = labels[run.paths[option]]


def fact_rows(runs: List[Run]) -> List[Tuple[str, List[str]]]:
    """What was run: name of the fact, its text of each run; facts that no run has are left out."""
    rows = []
    for name, title in FACTS.items():
        values = [run.facts.get(name) for run in runs]
        if any(value is not None for value in values):
            rows.append((title, [fact(name, value) for value in values]))
    return rows


def fact(name: str, value: Any) -> str:
    """The *value* of the fact *name*, as people read it."""
    if value is None:
        return "–"
    if name == "wall_seconds":
        return duration(value)
    if name == "method":
        return method_title(value)
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def duration(seconds: float) -> str:
    """*seconds* in the two largest units."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def differing(runs: List[Run]) -> Tuple[List[Tuple[str, list]], List[Tuple[str, list]]]:
    """Options that differ between *runs* that have them all, and options that only some have, each
    with its value in every run (NOT_THERE where it has none). What fairseq repeats in another
    section is told once."""
    known = [run for run in runs if run.config]
    everywhere, somewhere = [], []
    told: Dict[str, List[list]] = {}
    names = {name for run in known for name in run.config} - OWN
    # those of the task and the model, which repeat others, at the end
    for name in sorted(names, key=lambda n: (n.startswith("model."), n.startswith("task."), n)):
        values = [run.config.get(name, NOT_THERE) for run in runs]
        rows = told.setdefault(name.partition(".")[2], [])
        repeated = (  # in an option of the same name
            all(value is NOT_THERE or value == other for value, other in zip(values, row))
            for row in rows
        )
        if not name.endswith("._name") and any(repeated):
            continue
        rows.append(values)
        own = [run.config.get(name, NOT_THERE) for run in known]
        if any(value is NOT_THERE for value in own):
            somewhere.append((name, values))
        elif any(value != own[0] for value in own):
            everywhere.append((name, values))
    return everywhere, somewhere


def missing(run: Run) -> List[Tuple[str, str]]:
    """What *run* lacks, and the command that makes it; a command once."""
    found: Dict[str, List[str]] = {}
    for what, command in run.missing:
        found.setdefault(command, []).append(what)
    return [("; ".join(whats), command) for command, whats in found.items()]


def as_rows(cells: Iterable[Tuple]) -> List[Tuple[str, list]]:
    """What begins each of *cells*, and the others, as a table of the page takes them."""
    return [(name, values) for name, *values in cells]


def shown(value: Any) -> str:
    """A cell's text: an option's value as JSON unless it is a word, a dash where a run has none."""
    if value is NOT_THERE:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def score_rows(runs: List[Run]) -> List[Tuple[str, List[str]]]:
    """Name of the metric and its score of each run."""
    metrics = [m for m in METRICS if any(m in run.scores for run in runs)]
    return [
        (METRICS[m], [f"{run.scores[m][0]:.2f}" if m in run.scores else "–" for run in runs])
        for m in metrics
    ]


def signatures(runs: List[Run]) -> List[Tuple[str, str, List[str]]]:
    """(metric, signature, labels of its runs), a signature once."""
    found = {}
    for metric, title in METRICS.items():
        for run in runs:
            if metric in run.scores:
                key = title, run.scores[metric][1]
                found.setdefault(key, []).append(run.label)
    return [(*key, names) for key, names in found.items()]


def same_sets(runs: List[Run]) -> List[List[Run]]:
    """Runs that translated the same sentences, together; runs without translations are left out.

    References are compared by their letters, and more than half must agree: vocabularies differ
    in what they write as unknown.
    """
    sets: List[List[Run]] = []
    for run in filter(lambda run: run.translations, runs):
        for others in sets:
            if same_sentences(others[0].translations, run.translations):
                others.append(run)
                break
        else:
            sets.append([run])
    return sets


def same_sentences(ours: Dict[int, tuple], theirs: Dict[int, tuple]) -> bool:
    """Whether two dicts of translations are of one test set."""
    common = spread(sorted(ours.keys() & theirs.keys()), 100)
    pairs = ((ours[i], theirs[i]) for i in common)  # of source, reference if there is one, ...
    same = sum(letters(a[1] or a[0]) == letters(b[1] or b[0]) for a, b in pairs)
    return ours.keys() == theirs.keys() and 2 * same > len(common)


def spread(ids: List[int], count: int) -> List[int]:
    """*count* of *ids*, or all if they are fewer, evenly spread."""
    return [ids[i * len(ids) // count] for i in range(count)] if len(ids) > count else list(ids)


def translations(runs: List[Run]) -> List[Dict[str, Any]]:
    """Ten sentences of a test set, each with its source, reference and every run's hypothesis."""
    first = runs[0].translations
    return [
        {
            "id": i,
            "source": first[i][0],
            "reference": first[i][1],
            "hypotheses": [(run.label, run.translations[i][2]) for run in runs],
        }
        for i in spread(sorted(first), TRANSLATIONS)
    ]


def collect(folders: List[str]) -> Dict[str, Any]:
    """All that the page shows, but for its pictures; UserError as `read_runs`."""
    runs = read_runs(folders)
    everywhere, somewhere = differing(runs)
    facts = fact_rows(runs)
    same = [row for row in facts if len(set(row[1])) == 1]
    return {
        "runs": runs,
        "facts": [row for row in facts if row not in same],
        "same_facts": same,
        "known": sum(bool(run.config) for run in runs),
        "differing": everywhere,
        "only_some": somewhere,
        "scores": score_rows(runs),
        "signatures": signatures(runs),
        "curves": [{"label": run.label, **run.curves} for run in runs if run.curves],
        "test_sets": [translations(group) for group in same_sets(runs)],
    }
