"""The HTML of a report."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any, Callable, Dict

import jinja2

from fairseq_admin.analysis.plotting import plot_curves, plot_omegas
from fairseq_admin.reporting.report import as_rows, missing, shown
from fairseq_admin.reporting.run import by_hand
from fairseq_admin.text import printable, read_bytes


def picture(draw: Callable[[Any], None]) -> str:
    """What *draw* writes to the file it is given, as a data: URI."""
    file = BytesIO()
    draw(file)
    return data_uri(file.getvalue())


def data_uri(content: bytes) -> str:
    """The *content* of a PNG file as an address that holds the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def page(data: Dict[str, Any], title: str) -> str:
    """The HTML of what `report.collect` gave; all its text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).resolve().parent)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, data_uri=lambda path: data_uri(read_bytes(path)))
    environment.globals.update(missing=missing, as_rows=as_rows, by_hand=by_hand)
    curves = data["curves"]
    drawn = any(run["train"] or run["valid"] for run in curves)
    text = environment.get_template("report.html").render(
        data,
        title=title,
        curves_picture=drawn and picture(lambda file: plot_curves({"runs": curves}, file)),
        omegas_picture=lambda profile: picture(lambda file: plot_omegas(profile, file)),
    )
    return printable(text)
