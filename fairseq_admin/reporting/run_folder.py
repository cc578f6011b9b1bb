"""What the folder of a training holds, as data: its record, or what its newest checkpoint says."""

import os
from pathlib import Path
from typing import Any, Dict, Tuple

from fairseq_admin.analysis.course import assemble
from fairseq_admin.analysis.logs import read_curves
from fairseq_admin.errors import UserError
from fairseq_admin.omega_file import Profile, is_omega
from fairseq_admin.reporting.run import EVALUATE, Run, checkpoints, command, evaluation, scoring
from fairseq_admin.scoring.outputs import read_lines, split_blocks, undo_pieces
from fairseq_admin.text import number, read_bytes, read_json

PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"  # how such a file begins and ends
FIGURES_IN = (".", "figures", "eval")  # of the run's folder
# what data of another shape raises
BROKEN = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


def read_run(folder: str) -> Run:
    """What is known of the run in *folder*; UserError where there is no such folder, no run in it,
    or one of its files is damaged."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not the folder of a run")
    run = Run(os.path.normpath(folder))
    recorded = read_record(run)
    read_state(run)
    if not recorded:
        read_scores(run)
    read_curve(run)
    if not (run.facts or run.curves):
        raise UserError(f"{folder} holds no run: no checkpoint*.pt, no eval/record.json, no log")
    read_translations(run)
    find_figures(run)
    return run


def has_content(path: Path) -> bool:
    """Whether the file *path* is there and not empty, as while a decoder starts."""
    return os.path.isfile(path) and os.path.getsize(path) > 0


def flat(config: Dict[str, Any]) -> Dict[str, Any]:
    """Value by "section.option"."""
    sections = {name: options for name, options in config.items() if isinstance(options, dict)}
    return {f"{name}.{option}": x for name in sections for option, x in sections[name].items()}


def checked_scores(scores: Dict[str, Any]) -> Dict[str, Tuple[float, str]]:
    """Score and signature by metric, of the scores in a record."""
    return {m: (number(s["score"]), str(s["signature"])) for m, s in scores.items()}


def checked_profile(profile: Dict[str, Any]) -> Profile:
    """The profile in a record or checkpoint."""
    found = Profile.from_dict(profile)
    if not all(map(is_omega, found.omegas)):
        raise ValueError("an omega is none")
    return found


def whole(value: Any) -> int:
    """The whole number that *value* is; no larger than a figure's axis takes."""
    return int(number(value))


def read_record(run: Run) -> bool:
    """Facts, configuration, scores, profile and curves of eval/record.json, if there is one."""
    path = Path(run.folder, "eval", "record.json")
    if not os.path.isfile(path):
        run.missing.append(("hardware, versions and commit", evaluation(run)))
        return False
    run.inputs.append(path)
    try:
        take_record(run, read_json(path))
    except BROKEN as error:
        told = f"{type(error).__name__} {error}"
        raise UserError(f"{path} is no record of {EVALUATE}: {told}") from None
    return True


def read_scores(run: Run) -> None:
    """Scores of eval/score.json, where the evaluation went no further."""
    scores = Path(run.folder, "eval", "score.json")
    if os.path.isfile(scores):
        run.inputs.append(scores)
        try:
            record = read_json(scores)
            run.scores = checked_scores(record["scores"])
            run.facts["sentences"] = record.get("sentences") and whole(record["sentences"])
            run.facts["reference"] = record.get("reference") and str(record["reference"])
        except BROKEN:
            raise UserError(f"{scores} is no record of fairseq-admin score") from None
    elif has_content(scores.with_name("generate.txt")):
        lang = run.config.get("task.target_lang") or "LANG"
        run.missing.append(("scores", scoring(run, str(lang))))
    else:
        run.missing.append(("scores", evaluation(run)))


def take_record(run: Run, record: Dict[str, Any]) -> None:
    """Fill *run* from *record*; one of BROKEN where that is none."""
    seconds, ended = record["wall_seconds"], record.get("outcome")
    run.facts = {
        "method": str(record["method"]),
        "layers": str(record["layers"]),
        "width": whole(record["width"]),
        "seed": whole(record["seed"]),
        "updates": whole(record["updates"]),
        "outcome": ended and f"{ended}, known at update {whole(record['known']):,}",
        "wall_seconds": None if seconds is None else number(seconds),
        "hardware": str(record["hardware"]),
        "versions": ", ".join(f"{name} {text}" for name, text in record["versions"].items()),
        "commit": f"{record['commit']}{' with changes' if record['dirty'] else ''}",
        "checkpoint": str(record["checkpoint"]),
        "averaging": record["averaging"] and str(record["averaging"]),
        "decoding": record["decoding"] and str(record["decoding"]),
        "sentences": record["sentences"] and whole(record["sentences"]),
        "fold": record["fold"] and str(record["fold"]["difference"]),
        "same_translations": record["fold"] and whole(record["fold"]["same_translations"]),
    }
    run.config = flat(record["config"])
    run.scores = checked_scores(record["scores"] or {})  # none of a run that crashed
    run.profile = record["profile"] and checked_profile(record["profile"])
    run.curves = {
        name: [(whole(update), number(ppl)) for update, ppl in record[f"{name}_ppl"]]
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
        from fairseq_admin.checkpoints.checkpoint import read_checkpoint, residual_of
    except ModuleNotFoundError as error:  # a server may have neither torch nor fairseq
        run.missing.append((f"what {path.name} holds: {error.name} is not installed", ""))
        return
    state = read_checkpoint(str(path))
    run.inputs.append(path)
    try:
        take_state(run, state, path.name)
    except BROKEN as error:
        told = f"{type(error).__name__} {error}"
        raise UserError(f"{path} does not tell of a training as fairseq's do: {told}") from None
    if "admin" in (residual_of(state) or "").split("/") and not run.profile:
        run.missing.append(("the profile: its checkpoint was handed weights alone", ""))


def take_state(run: Run, state: Dict[str, Any], name: str) -> None:
    """Fill *run* from the checkpoint *state* of the file *name*, or tell that a recorded one went
    on; one of BROKEN where it does not tell of a training."""
    from fairseq_admin.checkpoints.facts import portable, training_facts

    facts, config = training_facts(state)
    if run.facts:
        if facts["updates"] is not None and facts["updates"] > run.facts["updates"]:
            told = f"an evaluation after update {facts['updates']}, which is the last"
            run.missing.append((told, evaluation(run)))
        return
    run.facts, run.config = {**facts, "checkpoint": name}, flat(portable(config))
    given = {option: x for option, x in flat(config).items() if isinstance(x, str)}
    run.paths = {option: x for option, x in given.items() if x != run.config[option]}
    profile = (state.get("task_state") or {}).get("profile")
    run.profile = profile and checked_profile(profile)


def read_curve(run: Run) -> None:
    """Perplexities of the run's log; without one those of its record."""
    run.inputs += sorted(Path(run.folder).glob("*.log"))
    try:
        curves = read_curves(run.folder)
    except UserError as error:
        curves, why = assemble(run.curves), error.message
    run.curves = {}
    if curves:
        run.curves = {"method": run.facts.get("method") or run.folder, **vars(curves)}
    else:
        log = command("fairseq-train", "--log-file", Path(run.folder, "train.log"))
        run.missing.append((f"curves: {why}", f"{log} ..."))


def read_translations(run: Run) -> None:
    """Sources, references and hypotheses of eval/generate.txt, by sentence."""
    path = Path(run.folder, "eval", "generate.txt")
    if has_content(path):
        run.inputs.append(path)
        texts = split_blocks(read_lines(str(path)), str(path))
        kinds = (texts["S"], texts["T"], texts["D"] or texts["H"])
        sources, references, hypotheses = (
            dict(zip(kind, undo_pieces(list(kind.values())))) for kind in kinds
        )
        run.translations = {
            i: (sources[i], references.get(i, ""), hypotheses[i])
            for i in sorted(sources.keys() & hypotheses.keys())
        }
    if not run.translations:
        run.missing.append(("translations", evaluation(run)))


def find_figures(run: Run) -> None:
    """The PNG files of the run; of one that is damaged, a word."""
    for folder in FIGURES_IN:
        paths = sorted(Path(run.folder, folder).glob("*.[pP][nN][gG]"))
        for path in filter(os.path.isfile, paths):
            run.inputs.append(path)
            content = read_bytes(path)
            if content.startswith(PNG) and content.endswith(PNG_END):
                run.figures.append(path)
            else:
                run.missing.append((f"the figure {path.name}: it is no whole PNG file", ""))
