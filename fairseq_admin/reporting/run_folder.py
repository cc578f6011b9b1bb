"""What the folder of a training holds, as data: its record, or what its newest checkpoint says."""

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fairseq_admin.analysis.logs import assemble, read_curves
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import Profile
from fairseq_admin.scoring.outputs import read_lines, split_blocks, undo_pieces

PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"  # how such a file begins and ends
FIGURES_IN = (".", "figures", "eval")  # of the run's folder
BROKEN = (KeyError, TypeError, ValueError, AttributeError)  # what data of another shape raises


@dataclass
class Run:
    """One training and its evaluation; what is not known is None or empty.

    ``config`` is flat, "section.option" to value; ``curves`` as `analysis.curves` gives them;
    ``scores`` score and signature by metric; ``translations`` source, reference and hypothesis by
    sentence; ``missing`` what is not there and the command that makes it; ``inputs`` files read.
    """

    folder: str
    label: str = ""
    facts: Dict[str, Any] = field(default_factory=dict)
    config: Dict[str, Any] = field(default_factory=dict)
    scores: Dict[str, Tuple[float, str]] = field(default_factory=dict)
    profile: Optional[Profile] = None
    curves: Dict[str, Any] = field(default_factory=dict)
    translations: Dict[int, Tuple[str, str, str]] = field(default_factory=dict)
    figures: List[Path] = field(default_factory=list)
    missing: List[Tuple[str, str]] = field(default_factory=list)
    inputs: List[Path] = field(default_factory=list)


def read_run(folder: str) -> Run:
    """What is known of the run in *folder*.

    Raises:
        UserError: where there is no such folder, no run in it, or one of its files is damaged.
    """
    if not os.path.isdir(folder):
        is_file = os.path.isfile(folder)
        raise UserError(
            f"{folder} is a file: give its folder" if is_file else f"no such folder: {folder}"
        )
    run = Run(os.path.normpath(folder))
    read_record(run)
    read_state(run)
    read_curve(run)
    if not (run.facts or known(run.curves)):
        raise UserError(f"{folder} holds no run: no checkpoint*.pt, no eval/record.json, no log")
    read_translations(run)
    find_figures(run)
    return run


def read_json(path: Path) -> Any:
    """What the JSON file *path* holds; UserError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def flat(config: Dict[str, Any]) -> Dict[str, Any]:
    """Value by "section.option"."""
    sections = {name: options for name, options in config.items() if isinstance(options, dict)}
    return {f"{name}.{option}": x for name in sections for option, x in sections[name].items()}


def checked_scores(scores: Dict[str, Any]) -> Dict[str, Tuple[float, str]]:
    """Score and signature by metric, of the scores in a record."""
    return {m: (float(s["score"]), str(s["signature"])) for m, s in scores.items()}


def command(*words: object) -> str:
    """The command of *words* as a shell takes it."""
    return " ".join(shlex.quote(str(word)) for word in words)


def checkpoints(run: Run) -> List[Path]:
    """The run's checkpoints, the newest last."""
    paths = sorted(Path(run.folder).glob("checkpoint*.pt"), key=os.path.getmtime)
    return sorted(paths, key=lambda path: path.name == "checkpoint_last.pt")


def evaluation(run: Run) -> str:
    """The command that evaluates *run*, nothing where no checkpoint is left to evaluate."""
    return command("bash", "scripts/evaluate.sh", run.folder) if checkpoints(run) else ""


def read_record(run: Run) -> None:
    """Facts, configuration, scores, profile and curves of eval/record.json, if there is one; of
    scores alone where the evaluation went no further."""
    path = Path(run.folder, "eval", "record.json")
    scores = path.with_name("score.json")
    if path.is_file():
        run.inputs.append(path)
        try:
            take_record(run, read_json(path))
        except BROKEN as error:
            told = f"{type(error).__name__} {error}"
            raise UserError(f"{path} is no record of scripts/evaluate.sh: {told}") from None
        return
    run.missing.append(("hardware, versions and commit", evaluation(run)))
    if scores.is_file():
        run.inputs.append(scores)
        try:
            run.scores = checked_scores(read_json(scores)["scores"])
        except BROKEN:
            raise UserError(f"{scores} is no record of fairseq-admin score") from None
    elif path.with_name("generate.txt").is_file():
        generated = path.with_name("generate.txt")
        score = command("fairseq-admin", "score", generated, "--output", scores)
        run.missing.append(("scores", score))
    else:
        run.missing.append(("scores", evaluation(run)))


def take_record(run: Run, record: Dict[str, Any]) -> None:
    """Fill *run* from *record*; one of BROKEN where that is none."""
    seconds = record["wall_seconds"]
    run.facts = {
        "method": str(record["method"]),
        "layers": str(record["layers"]),
        "width": int(record["width"]),
        "seed": int(record["seed"]),
        "updates": int(record["updates"]),
        "wall_seconds": None if seconds is None else float(seconds),
        "hardware": str(record["hardware"]),
        "versions": ", ".join(f"{name} {text}" for name, text in record["versions"].items()),
        "commit": f"{record['commit']}{' with changes' if record['dirty'] else ''}",
        "checkpoint": str(record["checkpoint"]),
        "averaging": record["averaging"] and str(record["averaging"]),
        "decoding": str(record["decoding"]),
        "sentences": int(record["sentences"]),
        "fold": record["fold"] and str(record["fold"]["difference"]),
        "same_translations": record["fold"] and int(record["fold"]["same_translations"]),
    }
    run.config = flat(record["config"])
    run.scores = checked_scores(record["scores"])
    run.profile = record["profile"] and Profile.from_dict(record["profile"])
    run.curves = {
        name: [(int(update), float(ppl)) for update, ppl in record[f"{name}_ppl"]]
        for name in ("train", "valid")
        if record[f"{name}_ppl"]
    }


def read_state(run: Run) -> None:
    """Facts, configuration and profile of the newest checkpoint; after a record only whether the
    training went on."""
    paths = checkpoints(run)
    if not paths:
        if not run.facts:
            run.missing.append(("configuration and updates: there is no checkpoint", ""))
        return
    path = paths[-1]
    try:
        from fairseq_admin.checkpoints.checkpoint import is_admin, read_checkpoint
        from fairseq_admin.checkpoints.facts import training_facts
    except ModuleNotFoundError as error:  # a server may have neither torch nor fairseq
        run.missing.append((f"what {path.name} holds: {error.name} is not installed", ""))
        return
    state = read_checkpoint(str(path))
    run.inputs.append(path)
    facts, config = training_facts(state)
    if run.facts:
        if facts["updates"] is not None and facts["updates"] > run.facts["updates"]:
            told = f"an evaluation after update {facts['updates']}, which is the last"
            run.missing.append((told, evaluation(run)))
        return
    run.facts, run.config = {**facts, "checkpoint": path.name}, flat(config)
    profile = (state.get("task_state") or {}).get("profile")
    try:
        run.profile = profile and Profile.from_dict(profile)
    except BROKEN:
        raise UserError(f"{path} holds a profile that is none of ours") from None
    if is_admin(state) and not profile:
        run.missing.append(("the profile: its checkpoint was handed weights alone", ""))


def read_curve(run: Run) -> None:
    """Perplexities of the run's log; without one those of its record."""
    run.inputs += sorted(Path(run.folder).glob("*.log"))
    try:
        curves = read_curves(run.folder)
    except UserError:
        curves = assemble(run.curves)
        if not curves:
            log = command("fairseq-train", "--log-file", Path(run.folder, "train.log"))
            run.missing.append(("curves: no log in its folder tells perplexities", f"{log} ..."))
    run.curves = {"method": run.facts.get("method") or run.folder, **vars(curves)}


def known(curves: Dict[str, Any]) -> bool:
    """Whether *curves* tell anything of a training."""
    return bool(curves["train"] or curves["valid"] or curves["reason"])


def read_translations(run: Run) -> None:
    """Sources, references and hypotheses of eval/generate.txt, by sentence."""
    path = Path(run.folder, "eval", "generate.txt")
    if path.is_file():
        run.inputs.append(path)
        texts = split_blocks(read_lines(str(path)), str(path))
        kinds = (texts["S"], texts["T"], texts["D"] or texts["H"])
        plain = [dict(zip(kind, undo_pieces(list(kind.values())))) for kind in kinds]
        run.translations = {
            i: (plain[0][i], plain[1].get(i, ""), plain[2][i])
            for i in sorted(plain[0].keys() & plain[2].keys())
        }
    if not run.translations:
        run.missing.append(("translations", evaluation(run)))


def find_figures(run: Run) -> None:
    """The PNG files of the run; of one that is damaged, a word."""
    for folder in FIGURES_IN:
        paths = sorted(Path(run.folder, folder).glob("*.[pP][nN][gG]"))
        for path in filter(Path.is_file, paths):
            run.inputs.append(path)
            content = path.read_bytes()
            if content.startswith(PNG) and content.endswith(PNG_END):
                run.figures.append(path)
            else:
                run.missing.append((f"the figure {path.name}: it is no whole PNG file", ""))
