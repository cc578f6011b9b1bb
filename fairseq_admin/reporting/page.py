"""The HTML of a report."""

import base64
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict

import jinja2

from fairseq_admin.analysis.plotting import plot_curves, plot_omegas
from fairseq_admin.reporting.report import as_rows, missing, shown


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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).resolve().parent)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, data_uri=data_uri)
    environment.globals.update(missing=missing, as_rows=as_rows)
    curves = data["curves"]
    drawn = any(run["train"] or run["valid"] for run in curves["runs"])
    return environment.get_template("report.html").render(
        data,
        title=title,
        curves_picture=drawn and picture(lambda path: plot_curves(curves, path)),
        omegas_picture=lambda profile: picture(lambda path: plot_omegas(profile, path)),
    )
