"""fairseq-admin report: one page of what runs are, how they trained and what they translate."""

import argparse

from fairseq_admin_cli.checks import check_installed, check_output, check_there, refuse

HELP = """\
Write one HTML page of one or several runs, side by side: what was run and where the runs differ,
scores with their signatures, curves, omegas, ten translations, and the figures in their folders.
It holds all it needs, so that it can be mailed or put on a server. RUN_DIR is where `fairseq-train`
wrote its checkpoints; what scripts/evaluate.sh of the repository left in RUN_DIR/eval is shown too,
or there generate.txt of fairseq-generate and score.json of fairseq-admin score. What is not there
is said, with the command that makes it."""


def run(options: argparse.Namespace) -> None:
    """Collect, draw, write."""
    check_there("folder", *options.runs)
    check_output(options.output)
    check_installed("analysis", "jinja2", "matplotlib")

    from fairseq_admin.files import whole_file
    from fairseq_admin.reporting.page import page
    from fairseq_admin.reporting.report import collect

    try:
        data = collect(options.runs)
        check_output(options.output, *(path for run in data["runs"] for path in run.inputs))
        names = [run.label for run in data["runs"]]
        text = page(data, options.title or f"Report of {', '.join(names)}")
    except RecursionError:
        refuse("a record's configuration is nested too deep to be shown")
    with whole_file(options.output) as f:
        f.write(text)
    print(f"wrote {options.output}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a training")
    parser.add_argument(
        "--output",
        metavar="HTML",
        default="report.html",
        help="file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--title", metavar="TEXT", help="title of the page (default: the runs' names)"
    )
