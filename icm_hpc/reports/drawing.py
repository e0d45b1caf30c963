"""How plots are drawn: no colour of their own for text and axes, so that they are readable in light and dark.

matplotlib is imported when a plot is drawn, and not before.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the colour of the page's text
COLOURS = ("#3d85c6", "#c9761a", "#2f9c6a", "#a56cd6", "#d65a5a", "#1f9aa8", "#98861f", "#cc5f9e")
GREY = "#8b9098"
WIDTH = 4.6  # inches: a phone's width at the size of the page's small text
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "path.simplify_threshold": 0.5,
}

Draw = Callable[["Axes"], None]


@contextmanager
def drawn(height: float, draw: Draw, *, salt: str = "") -> Iterator["Figure"]:
    """Yield one plot as a figure of matplotlib; whatever is saved of it is saved in the block."""
    with _quiet():
        from matplotlib import style
        from matplotlib.figure import Figure

        with style.context(["default", {**STYLE, "svg.hashsalt": salt}]):  # not what a matplotlibrc says
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            draw(figure.add_subplot())
            yield figure


def svg(name: str, height: float, draw: Draw) -> str:
    """Return one plot, to stand in a page."""
    buffer = io.StringIO()
    with drawn(height, draw, salt=name) as figure:
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _embedded(buffer.getvalue(), name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep words about signs that a font lacks, or about folders that cannot be written, out of the run's log."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)


def _embedded(svg: str, name: str) -> str:
    """Return the element itself, in the page's colour, with ids that no other plot has."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return (
        element.replace('id="', f'id="{name}-').replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    )


def short(word: str, most: int = 24) -> str:
    """Return a text as it fits beside a plot, without signs that are no text."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in word)
    return shown if len(shown) <= most else f"{shown[: most - 2]}…"
