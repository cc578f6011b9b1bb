"""fairseq-admin analyze: the papers' figures of a model, each as JSON and PNG."""

import argparse
import importlib
import json
import warnings

from fairseq_admin_cli.checks import (
    add_reading_arguments,
    check_installed,
    check_output,
    check_there,
    refuse,
)

HELP = """\
Measure and draw what the papers behind Admin show, for checkpoints of any Transformer of fairseq or
for architectures at initialization. Each analysis writes NAME.json and NAME.png; output-change also
NAME_encoder.png."""
DIGITS = 6  # significant ones of the numbers written
ANALYSES = {  # a module of fairseq_admin.analysis, and what it shows
    "output-change": "output change under a random and a gradient step of the parameters, against "
    "depth",
    "dependency": "residual dependency of each sublayer on each branch (Liu et al.), as heat maps",
    "gradients": "gradient norm per sublayer and kind of parameter, and of the last FFN against "
    "depth",
    "updates": "histograms of relative gradient and update norms between checkpoints (Liu et al.)",
    "norms": "hidden-state norm per layer, against the bounds of Xiong et al.",
    "omega": "omega per sublayer at initialization and along training, mean and spread over "
    "channels",
    "curves": "train and valid perplexity of runs over updates, from their logs",
    "errors": "BLEU by sentence length and accuracy by word frequency, of one or several systems",
}
OF_FILES = ("curves", "errors")  # the others take models
SEEDS = {"output-change": 5}  # of the others 1
DEPTHS = {  # layers of each stack, in what draws over depth
    "output-change": (1, 2, 4, 8, 16, 32, 64, 100),  # 2 to 200 sublayers of an encoder
    "gradients": (),  # the architecture's own
}
PICTURES = {"output-change": ["", "_encoder"]}  # how names end, of those with several


def draw(result: dict, path: object, end: str) -> None:
    """A figure of a result to a path or file, by the function that is called as the analysis and
    *end*."""
    from fairseq_admin.analysis import figures, plotting

    name = f"plot_{result['analysis'].replace('-', '_')}{end}"
    (getattr(figures, name, None) or getattr(plotting, name))(result, path)


def rounded(value: object) -> object:
    """*value* with DIGITS digits of its floats: more are noise of rounding."""
    if isinstance(value, dict):
        return {name: rounded(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(x) for x in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def run(options: argparse.Namespace, rest: list[str]) -> None:
    """Measure, write the numbers and the pictures."""
    takes_models = options.analysis not in OF_FILES
    if takes_models:
        check_there("checkpoint", *(name for name in options.models if name.endswith(".pt")))
    elif rest:
        refuse(f"unknown option: {' '.join(rest)}")
    base = options.output or options.analysis
    if base.endswith("/"):
        refuse(f"{base} is a folder: give the beginning of a name in it")
    check_output(base)
    check_installed("analysis", "matplotlib")
    if options.analysis == "errors":
        check_installed("analysis", "compare_mt", "six")  # the first imports the second

    module = f"fairseq_admin.analysis.{options.analysis.replace('-', '_')}"
    analysis = importlib.import_module(module)
    from fairseq_admin.files import whole_files

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hydra and torch about fairseq, nothing a user can mend
        result = analysis.measure(options, rest) if takes_models else analysis.measure(options)
    try:
        text = json.dumps(rounded(result), allow_nan=False)
    except ValueError:
        refuse(
            "NaN or infinite numbers came out: the model's activations or gradients overflow; "
            "take an earlier checkpoint or fewer layers"
        )
    ends = PICTURES.get(options.analysis, [""])
    names = [f"{base}.json", *(f"{base}{end}.png" for end in ends)]
    with whole_files(names, "wb") as (data, *pictures):
        data.write(f"{text}\n".encode())
        for end, picture in zip(ends, pictures):
            draw(result, picture, end)
    print(f"wrote {' and '.join(names)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand an analysis."""
    analyses = parser.add_subparsers(
        title="analyses", dest="analysis", metavar="ANALYSIS", required=True
    )
    for name, summary in ANALYSES.items():
        analysis = analyses.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == "curves":
            told = "folder of a run, its log, or its --tensorboard-logdir; LABEL=RUN names it"
            analysis.add_argument("runs", nargs="+", metavar="RUN", help=told)
        elif name == "errors":
            add_errors_arguments(analysis)
        else:
            add_model_arguments(analysis, SEEDS.get(name, 1), DEPTHS.get(name))
        analysis.add_argument(
            "--output", metavar="NAME", help="name of the two files, without extension"
        )


def add_errors_arguments(parser: argparse.ArgumentParser) -> None:
    """What errors are of."""
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="SYSTEM",
        help="output of fairseq-generate, or plain text; LABEL=SYSTEM names it",
    )
    add_reading_arguments(parser)
    parser.add_argument(
        "--train-text",
        metavar="FILE",
        help="raw text of the training's target side, to count words in (default: the reference)",
    )


def add_model_arguments(
    parser: argparse.ArgumentParser, seeds: int, depths: tuple[int, ...] | None
) -> None:
    """The options of an analysis that runs models: with so many *seeds* if nothing else is said,
    over these *depths*; None where it does not draw over depth."""
    parser.usage = (
        f"{parser.prog} MODEL [MODEL ...] [options] [options of fairseq-train that size "
        "architectures, for example --encoder-layers 18]"
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a checkpoint; or a model at initialization: a residual method of transformer_admin "
        "(admin, analytic, deepnorm, rezero, keel, post-ln, pre-ln; ENCODER/DECODER), or an "
        "architecture that fairseq-train knows",
    )
    parser.add_argument("--data", metavar="DIR", help="binarized text (default: random tokens)")
    parser.add_argument("--split", help="split of the data (default: valid)")
    parser.add_argument(
        "--tokens", type=int, default=1000, help="maximum tokens per side (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=seeds,
        help="number of seeds: of weights, tokens and perturbations (default: %(default)s)",
    )
    parser.add_argument(
        "--parameter-init",
        choices=("paper", "fairseq"),
        help="FFN weights of every architecture, as --parameter-init of transformer_admin "
        "(default: paper for residual methods, fairseq for its own architectures)",
    )
    parser.add_argument("--user-dir", metavar="DIR", help="folder of your own model")
    parser.set_defaults(depths=None, default_depths=depths)
    if depths is None:
        return
    told = " ".join(map(str, depths)) or "the architecture's own"
    parser.add_argument(
        "--depths",
        type=int,
        nargs="+",
        metavar="LAYERS",
        help=f"layers of each stack, of architectures (default: {told}, or --encoder-layers)",
    )
