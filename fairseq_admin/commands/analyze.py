"""fairseq-admin analyze: the papers' figures of a model, each as JSON and PNG."""

import argparse
import importlib.util
import json
import os
import warnings
from typing import Any, List

from fairseq_admin.errors import UserError
from fairseq_admin.files import whole_files

HELP = """\
Measure and draw what the papers behind Admin show, for checkpoints of any Transformer of fairseq or
for architectures at initialization. Each analysis writes NAME.json and NAME.png; output-change also
NAME_encoder.png."""
DIGITS = 6  # significant ones of the numbers written
ANALYSES = {  # name: its module in fairseq_admin.analysis, and whether it takes models
    "output-change": ("output_change", True),
    "dependency": ("dependency", True),
    "gradients": ("gradients", True),
    "updates": ("updates", True),
    "norms": ("norms", True),
    "omega": ("omega", True),
    "curves": ("curves", False),
    "errors": ("errors", False),
}
PICTURES = {"output-change": ["", "_encoder"]}  # how names end, of those with several


def draw(result: dict, path: Any, end: str) -> None:
    """A figure of a result to a path or file, by the function that is called as the analysis and
    *end*."""
    from fairseq_admin.analysis import figures, plotting

    name = f"plot_{result['analysis'].replace('-', '_')}{end}"
    (getattr(figures, name, None) or getattr(plotting, name))(result, path)


def rounded(value: Any) -> Any:
    """*value* with DIGITS digits of its floats: more are noise of rounding."""
    if isinstance(value, dict):
        return {name: rounded(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(x) for x in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def run(options: argparse.Namespace, rest: List[str]) -> None:
    """Measure, write the numbers and the pictures."""
    module, takes_models = ANALYSES[options.analysis]
    if rest and not takes_models:
        raise UserError(f"unknown option: {' '.join(rest)}")
    base = options.output or options.analysis
    if not os.path.isdir(os.path.dirname(base) or "."):
        raise UserError(f"no such folder: {os.path.dirname(base)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("figures need matplotlib: pip install 'fairseq_admin[analysis]'")
    analysis = importlib.import_module(f"fairseq_admin.analysis.{module}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hydra and torch about fairseq, nothing a user can mend
        result = analysis.measure(options, rest) if takes_models else analysis.measure(options)
    try:
        text = json.dumps(rounded(result), allow_nan=False)
    except ValueError:
        raise UserError(
            "NaN or infinite numbers came out: the model's activations or gradients overflow; "
            "take an earlier checkpoint or fewer layers"
        ) from None
    ends = PICTURES.get(options.analysis, [""])
    names = [f"{base}.json", *(f"{base}{end}.png" for end in ends)]
    with whole_files(names, "wb") as (data, *pictures):
        data.write(f"{text}\n".encode())
        for end, picture in zip(ends, pictures):
            draw(result, picture, end)
    print(f"wrote {' and '.join(names)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand an analysis."""
    commands = parser.add_subparsers(
        title="analyses", dest="analysis", metavar="ANALYSIS", required=True
    )
    for name, (module, takes_models) in ANALYSES.items():
        analysis = importlib.import_module(f"fairseq_admin.analysis.{module}")
        analysis_parser = commands.add_parser(
            name, help=analysis.SUMMARY, description=analysis.SUMMARY, allow_abbrev=False
        )
        if takes_models:
            from fairseq_admin.analysis import subjects

            subjects.add_arguments(analysis_parser, analysis)
        else:
            analysis.add_arguments(analysis_parser)
        analysis_parser.add_argument(
            "--output", metavar="NAME", help="of the two files, without their endings"
        )
