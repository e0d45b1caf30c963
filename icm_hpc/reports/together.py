"""Runs beside one another as a page or as a picture."""

import io
from collections.abc import Callable
from importlib.resources import files

from markupsafe import Markup

from . import bars, drawing
from .beside import Beside
from .page import environment

DPI = 200


def page(found: Beside) -> bytes:
    """Return one page of HTML that loads nothing; without matplotlib it has no figure, and says so."""
    try:
        figure, without = _svg(found), ""
    except Exception as error:  # of a library that is not installed, or not as it should be
        figure, without = "", f"matplotlib cannot be used here ({type(error).__name__}). pip install matplotlib"
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("compared.html")
        .render(
            found=found,
            runs=[name for one in found.series for name in one.runs],
            figure=Markup(figure),  # noqa: S704
            without_figure=without,
            style=Markup(style),  # noqa: S704
        )
        .encode()
    )


def picture(found: Beside) -> bytes:
    """Return the figure as PNG."""
    with drawing.drawn(bars.height(found.series), _draw(found)) as figure:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _svg(found: Beside) -> str:
    return drawing.svg("compared", bars.height(found.series), _draw(found))


def _draw(found: Beside) -> drawing.Draw:
    return lambda axes: bars.draw(axes, found.series, found.majority)


WRITERS: dict[str, Callable[[Beside], bytes]] = {".html": page, ".png": picture}
