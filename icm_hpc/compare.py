"""`python -m icm_hpc.compare runs=A,B,C out=figure.html`: runs beside one another.

Accuracy of held-out rows by condition and model, with 95 % intervals; the settings in which the runs differ; and how far their
labels agree. Runs that differ in search.seed alone are one series: its bars are means over seeds. Without out= it is printed.
"""

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.table import Table

from .config import describe, home, loading, runs
from .config.flags import split_flags
from .errors import ConfigError
from .exports.writing import published
from .reports import beside, together
from .reports.beside import Beside
from .rundir.folder import RunDir
from .terminal import console, reporting_errors

ARGUMENTS = {
    "runs=A,B,C": "names of the runs, or patterns such as small-* (required)",
    "out=PATH": "a file to write: .html, .png or .csv; default: tables are printed",
    "overwrite=false": "true: replace the file that is there",
    "run.root=runs": "the folder of all runs",
}
COLUMNS = ("series", "condition", "accuracy", "low", "high", "rows", "runs", "accuracies")


@reporting_errors()
def main() -> None:
    """Compare, and print or write it."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
        return
    words, flags = split_flags(sys.argv[1:], "overwrite")
    own = dict(word.split("=", 1) for word in words if word.startswith(("runs=", "out=")))
    root = loading.load([word for word in words if not word.startswith(("runs=", "out="))], own=ARGUMENTS).run
    out = home.expanded(own["out"], instead="out without ~") if own.get("out") else None
    kind = out.suffix if out else ""
    if kind not in ("", *together.WRITERS, ".csv") or (out and not kind):
        raise ConfigError(f"out={out}: ends in .html, .png or .csv")
    found = beside.beside(named(loading.run_folder(root), own.get("runs", "")))
    if out is None:
        _print(found)
        return
    os.umask(0o077)
    with published(out, overwrite=flags.get("overwrite", False)) as made:
        made.write_bytes(_csv(found) if kind == ".csv" else together.WRITERS[kind](found))
    print(out)


def named(root: Path, names: str) -> list[RunDir]:
    """Return the runs of a folder that names, divided by commas, or patterns name; raises ConfigError for what names none."""
    known = [path.name for path in runs.all_runs(root)]
    found: list[str] = []
    for name in filter(None, names.split(",")):
        matching = [one for one in known if fnmatchcase(one, name)] or [name] * runs.is_run(root / name)
        if not matching:
            raise ConfigError(
                f"runs={name}: there is no such run in {root}: name another folder of runs with run.root=FOLDER"
            )
        found += [one for one in matching if one not in found]
    if not found:
        raise ConfigError("which runs? Write runs=A,B,C")
    return [RunDir(root / name) for name in found]


def _rows(found: Beside) -> Iterator[Sequence[str]]:
    for series in found.series:
        for bar in series.bars:
            one = bar.accuracy
            figures = [f"{value:.4f}" for value in (one.value, one.low, one.high)]
            each = " ".join(f"{value:.4f}" for value in bar.accuracies)
            yield [series.name, bar.condition, *figures, str(bar.rows), " ".join(series.runs), each]


def _csv(found: Beside) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *_rows(found)])
    return text.getvalue().encode()


def _print(found: Beside) -> None:
    table = Table("series", "condition", "accuracy", "rows", "runs", box=None, padding=(0, 2, 0, 0))
    for series in found.series:
        for bar in series.bars:
            one = bar.accuracy
            shown = f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
            table.add_row(series.name, bar.condition, shown, str(bar.rows), str(len(bar.accuracies)))
    console.print(table)
    if found.majority is not None:
        console.print(f"one label for all: {found.majority:.3f}")
    for key, values in found.differing:
        console.print(f"{key}: {', '.join(f'{name} {value}' for name, value in values.items())}")
    for pair in found.agreements:
        share = "no shared rows" if pair.share is None else f"{pair.share:.3f} of {pair.shared} labels agree"
        kappa = "" if pair.kappa is None else f", Cohen's kappa {pair.kappa:.3f}"
        console.print(f"{pair.first} and {pair.second}: {share}{kappa}")


if __name__ == "__main__":
    main()
