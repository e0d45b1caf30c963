"""`python -m icm_hpc.export run=NAME to=FORMAT out=PATH`: write a run's labels as other programs read them.

Prints one JSON object: records written, and how many rows (or pairs) each filter has left out.
"""

import json
import os
import sys
import typing
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from . import tasks
from .config import describe, home
from .config.loading import existing_run, load, load_file
from .config.ranges import require, require_at_least, require_one_of
from .config.schema import Config
from .config.typed import value_of
from .config.written import read_value
from .driver.summary import Summary, from_json, warnings
from .errors import ConfigError
from .exports import FORMATS, IN_FOLDERS, PAIRED, TAKES
from .exports.lines import Filter, lines_of
from .exports.pairs import pairs_of
from .exports.selection import ORDERS, Selection
from .exports.writing import published
from .rundir.files import read_json
from .rundir.folder import RunDir
from .tasks import gold
from .terminal import reporting_errors

ARGUMENTS = {
    "run=NAME": "the run: the name of its folder (required)",
    "to=FORMAT": f"one of {', '.join(FORMATS)} (required)",
    "out=PATH": "the file to write, with to=hf the folder (required)",
    "min_margin=null": "only rows with this margin or more, in nats",
    "stable=null": "only rows whose label at least this share of the other restarts gave, 0 to 1",
    "order=data": "order of the rows; margin: the least certain first",
    "gold=false": f"true: a column of gold labels ({', '.join(TAKES['gold'])})",
    "chat=false": f"true: messages instead of plain text ({', '.join(TAKES['chat'])})",
    "spreadsheet=false": "true: nothing in the CSV file is a formula to a spreadsheet",
    "overwrite=false": "true: replace what an earlier export wrote to out",
    "run.root=runs": "the folder of all runs",
}


@dataclass(frozen=True, slots=True)
class Options:
    """The words of the command that are no settings."""

    to: str = ""
    out: str = ""
    min_margin: float | None = None
    stable: float | None = None
    order: str = "data"
    gold: bool = False
    chat: bool = False
    spreadsheet: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_one_of(self, to=tuple(FORMATS), order=ORDERS)
        require(bool(self.out), "out is missing: the path to write to, as out=labels.csv")
        require_at_least(self, 0, "stable")
        require(self.stable is None or self.stable <= 1, f"stable={self.stable}: a share, 1 or less")
        for option, formats in TAKES.items():
            taken = self.to in formats or not getattr(self, option)
            require(taken, f"{option}=true: only with to={', '.join(formats)}, and this is to={self.to}")


@reporting_errors()
def main() -> None:
    """Write the export, and print what it holds as JSON."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
        return
    options, words = parsed(sys.argv[1:])
    os.umask(0o077)  # texts may be private
    found = export(RunDir(existing_run(load(words, own=ARGUMENTS).run)), options)
    print(json.dumps(found))


def parsed(words: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the command's own options, and all other words; raises ConfigError for a value that an option cannot have."""
    hints = typing.get_type_hints(Options)
    own = {key: text for key, equals, text in (word.partition("=") for word in words) if equals and key in hints}
    values = {key: value_of(read_value(key, text, splits=False), hints[key], key) for key, text in own.items()}
    try:
        return Options(**values), [word for word in words if word.partition("=")[0] not in hints]
    except ValueError as error:
        raise ConfigError(str(error)) from error


def export(run_dir: RunDir, options: Options) -> dict[str, Any]:
    """Write the labels of a run; return how many records there are, and how many were left out by which filter.

    Raises ConfigError for a run without labels, a task that does not fit the format, and filters that nothing passes.
    """
    out = home.expanded(options.out, instead="out without ~").absolute()
    if out.resolve().is_relative_to(run_dir.path.resolve()):
        raise ConfigError(f"out={options.out}: is in the run's own folder: name a path outside it")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(run_dir.labels.open("rb"))
        except FileNotFoundError as error:
            raise ConfigError(run_dir.no_labels) from error
        selection = _selection(run_dir, options, file)
        _require_some(selection)
        is_folder = options.to in IN_FOLDERS
        made = stack.enter_context(published(out, overwrite=options.overwrite, is_folder=is_folder))
        records = FORMATS[options.to](made, selection)
    told = warnings(selection.summary) if selection.summary else [f"{run_dir.summary} cannot be read"]
    return {
        "to": options.to,
        "out": str(out),
        "records": records,
        "left_out": dict(selection.left_out()),
        "warnings": list(told),
    }


def _selection(run_dir: RunDir, options: Options, file: BinaryIO) -> Selection:
    config = load_file(run_dir.config)
    family, lines = tasks.family_of(config.task), lines_of(file)
    chosen = Filter(options.min_margin, options.stable)
    needs_pairs = options.to in PAIRED or (options.to == "kto" and family.compared is not None)
    task = tasks.load(config.task, seed=config.search.seed, copy=run_dir.data) if needs_pairs else None
    return Selection(
        config=config,
        family=family,
        words=tasks.label_words(family, config.task),
        summary=_summary(run_dir),
        file=file,
        lines=lines,
        filter=chosen,
        order=options.order,
        pairs=pairs_of(family, task, lines, chosen) if task else None,
        chat=options.chat,
        spreadsheet=options.spreadsheet,
        gold=_gold(run_dir, config) if options.gold else None,
    )


def _summary(run_dir: RunDir) -> Summary | None:
    """Return a run's figures, None if they are not there or of another version."""
    try:
        return from_json(read_json(run_dir.summary))
    except (TypeError, LookupError, ValueError):
        return None


def _gold(run_dir: RunDir, config: Config) -> dict[str, int]:
    """Return the gold labels of a run, by id; raises ConfigError if it has none."""
    labels = gold.unpacked(run_dir.gold) if run_dir.gold.exists() else gold.load(config.task)
    if not labels:
        raise ConfigError("gold=true: the run's data have no gold labels")
    return labels


def _require_some(selection: Selection) -> None:
    """Raise ConfigError for filters that nothing passes."""
    if selection.pairs.kept if selection.pairs else selection.kept():
        return
    if selection.filter.stable is not None and all(line.stability is None for line in selection.lines):
        raise ConfigError(
            "stable: the run had one search; label with search.restarts=4 to know which labels are stable"
        )
    left_out = ", ".join(f"{count} by {reason}" for reason, count in selection.left_out().items())
    kind = "pair" if selection.pairs else "row"
    most = max((line.margin for line in selection.lines), default=0.0)
    raise ConfigError(f"no {kind} is left to export ({left_out}); the largest margin of a row is {most:.3f} nats")


if __name__ == "__main__":
    main()
