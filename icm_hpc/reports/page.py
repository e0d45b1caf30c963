"""The page: one file of HTML with its style, its script and its plots in it, which loads nothing.

All values pass through Jinja's autoescape; the style, the script and the plots are the only markup that is put in as it is. The
page's own policy allows no source of anything, and no script but its own.
"""

import base64
import hashlib
import logging
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..rundir.files import write_atomically
from ..rundir.folder import RunDir
from . import plots
from .collect import collect
from .figures import Report
from .verdict import evenness

# Control characters as the pictures that Unicode has of them: HTML allows none of them but white space.
CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
CONTROLS |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "\N{REPLACEMENT CHARACTER}")

log = logging.getLogger(__name__)


def write(run_dir: RunDir) -> None:
    """Write report.html, which only the run's owner can read. Raises ConfigError for a folder that is no run's."""
    write_atomically(run_dir.report, render(collect(run_dir)).encode())


def render(report: Report) -> str:
    """Return the page; without matplotlib it has no plots, and says so."""
    try:
        drawn, without_plots = plots.plots(report), ""
    except Exception as error:  # of a library that is not installed, or not as it should be
        log.warning("the page has no plots: %s", type(error).__name__)
        drawn, without_plots = {}, f"matplotlib cannot be used here ({type(error).__name__}). pip install matplotlib"
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            plots={name: Markup(svg) for name, svg in drawn.items()},  # noqa: S704
            without_plots=without_plots,
            evenness=evenness(report.verdict.balance),
            style=Markup(style),  # noqa: S704
            script=Markup(script),  # noqa: S704
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def environment() -> Environment:
    """Return what fills in a template of this folder: every value is escaped."""
    made = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["plain"] = plain
    return made


def plain(text: str) -> str:
    """Return a text without signs that HTML does not allow."""
    return text.translate(CONTROLS)
