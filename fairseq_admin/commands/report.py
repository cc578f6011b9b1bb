"""fairseq-admin report: one page of what runs are, how they trained and what they translate."""

import argparse
import base64
import importlib.util
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict

from fairseq_admin.errors import UserError
from fairseq_admin.files import check_no_input, whole_file

SUMMARY = "write one HTML page of one or several runs"
HELP = """\
Write one HTML page of one or several runs, side by side: what was run and where the runs differ,
scores with their signatures, curves, omegas, ten translations, and the figures in their folders.
It holds all it needs, so that it can be mailed or put on a server. RUN_DIR is where `fairseq-train`
wrote its checkpoints; what scripts/evaluate.sh left in RUN_DIR/eval is shown too, and what is not
there is said, with the command that makes it."""
PACKAGES = ("jinja2", "matplotlib")
TEMPLATE = "report.html"  # in the package's folder


def picture(draw: Callable[[str], None]) -> str:
    """What *draw* writes to the path it is given, as a data: URI."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        draw(str(path))
        return data_uri(path)


def data_uri(path: Path) -> str:
    """The PNG file *path* as an address that holds the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def page(data: Dict[str, Any], title: str) -> str:
    """The HTML of what `report.collect` gave; all its text is escaped."""
    import jinja2

    from fairseq_admin.analysis.plotting import plot_curves, plot_omegas
    from fairseq_admin.report import missing, option_rows, profile_rows, shown

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).resolve().parents[1])),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, data_uri=data_uri)
    environment.globals.update(missing=missing, option_rows=option_rows, profile_rows=profile_rows)
    curves = data["curves"]
    drawn = any(run["train"] or run["valid"] for run in curves["runs"])
    return environment.get_template(TEMPLATE).render(
        data,
        title=title,
        curves_picture=drawn and picture(lambda path: plot_curves(curves, path)),
        omegas_picture=lambda profile: picture(lambda path: plot_omegas(profile, path)),
    )


def run(options: argparse.Namespace) -> None:
    """Collect, draw, write."""
    if not os.path.isdir(os.path.dirname(options.output) or "."):
        raise UserError(f"no such folder: {os.path.dirname(options.output)}")
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"report needs {package}: pip install 'fairseq_admin[analysis]'")
    from fairseq_admin.report import collect, inputs

    data = collect(options.runs)
    check_no_input(options.output, inputs(data["runs"]))
    names = [run.label for run in data["runs"]]
    text = page(data, options.title or f"Report of {', '.join(names)}")
    with whole_file(options.output) as f:
        f.write(text)
    print(f"wrote {options.output}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a training")
    parser.add_argument(
        "--output", metavar="HTML", default="report.html", help="to write (default: %(default)s)"
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page (default: the runs' names)")
