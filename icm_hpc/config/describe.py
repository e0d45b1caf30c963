"""What each setting is, for docs/settings.md and for `--help`: read from the source of schema.py and place.py.

`python -m icm_hpc.config.describe > docs/settings.md` (`make docs`) writes the page. A field's meaning is its comments; its
choices and lower limit are those that `__post_init__` checks.
"""

import ast
import dataclasses
import inspect
import io
import os
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from . import keys, loading

# Of the short --help.
COMMON = (
    "model.path", "model.max_model_len", "server.url", "server.replicas", "task.data", "task.limit", "search.steps",
    "search.seed", "search.restarts", "search.pool_size", "cluster.account", "cluster.server_partition", "cluster.time_min",
    "run.name", "run.root",
)  # fmt: skip

HEADER = """# Settings

Generated from `icm_hpc/config/schema.py` and `place.py` by `make docs`; do not edit. Files, precedence and how values are
written: [configuration.md](configuration.md). `python -m icm_hpc.submit --help=SECTION` prints the same.
"""

COLUMNS = "| key | type | default | choices or limit | meaning |\n|---|---|---|---|---|"

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section."""

    section: str
    name: str
    type: str
    default: str  # as it is written on a command line
    allowed: str  # the choices, or the lower limit; empty if neither is checked
    meaning: str


def settings() -> list[Setting]:
    """Return every setting, in the order of the schema."""
    found = []
    for section, kind in keys.SECTIONS.items():
        source = textwrap.dedent(inspect.getsource(kind))
        comments = _comments(source)
        (node,) = (one for one in ast.parse(source).body if isinstance(one, ast.ClassDef))
        allowed = {**dict(_lower_limits(node)), **dict(_choices(node, vars(sys.modules[kind.__module__])))}
        lines = {n.target.id: n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
        for field in dataclasses.fields(kind):
            at = lines[field.name]
            end, _ = comments.get(at.end_lineno or at.lineno, ("", True))
            meaning = " ".join([*_above(comments, at.lineno), end]).strip().removesuffix(".")
            found.append(
                Setting(
                    section,
                    field.name,
                    _type_name(ast.unparse(at.annotation)),
                    _default(field),
                    allowed.get(field.name, ""),
                    meaning,
                )
            )
    return found


def markdown() -> str:
    """Return docs/settings.md."""
    parts = [HEADER]
    for section, kind in keys.SECTIONS.items():
        parts += [f"## {section}\n", f"{inspect.getdoc(kind)}\n", COLUMNS]
        for one in settings():
            if one.section == section:
                cells = (
                    f"`{section}.{one.name}`",
                    one.type,
                    f"`{one.default}`" if one.default else "",
                    one.allowed,
                    one.meaning,
                )
                parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def text(topic: str = "") -> str:
    """Return settings for a terminal: the common ones, those of one section, or `all`; raises ConfigError for another topic."""
    if topic not in ("", "all", *keys.SECTIONS):
        raise ConfigError(f"--help={topic}: one of all, {', '.join(keys.SECTIONS)}")
    lines = []
    for section, kind in keys.SECTIONS.items():
        if topic in ("all", section):
            lines += ["", f"{section}: {(inspect.getdoc(kind) or '').splitlines()[0]}"]
        for one in settings():
            shown = f"{section}.{one.name}" in COMMON if not topic else topic in ("all", section)
            if one.section == section and shown:
                lines += entry(f"{section}.{one.name}={one.default}", _with_allowed(one))
    return "\n".join(lines).strip("\n")


def entry(name: str, meaning: str) -> list[str]:
    """Return one argument and its meaning as lines for a terminal."""
    head = f"  {name:<30} "
    return textwrap.wrap(meaning, WIDTH, initial_indent=head, subsequent_indent=" " * 33) or [head.rstrip()]


def asked_for_help(words: Sequence[str]) -> str | None:
    """Return the topic of `--help`, `--help=TOPIC` or `help=TOPIC`, empty for the short help; None if no help is asked for."""
    for word in words:
        name, _, topic = word.partition("=")
        if name in ("-h", "--help", "help"):
            return topic
    return None


def print_help(about: str, flags: Mapping[str, str], topic: str = "", *, takes_settings: bool = True) -> None:
    """Print a command's help: `about` and its flags (`name=default` and their meaning), then settings if it takes any.

    Raises ConfigError for an unknown topic. A reader who closes the pipe early, such as `head`, is no error.
    """
    lines = []
    if not topic:
        lines = [about.strip(), "", "arguments:", *(line for pair in flags.items() for line in entry(*pair))]
    if takes_settings or topic:
        if not topic:
            lines += ["", "presets:"]
            for section in loading.PRESET_SECTIONS:
                default = keys.SECTIONS[section].__dataclass_fields__["name"].default  # type: ignore[attr-defined]
                lines += entry(
                    f"{section}={default}", f"{', '.join(sorted(loading.presets(section)))}; or a path: mine.yaml"
                )
            lines += ["", "common settings:"]
        lines += text(topic).splitlines()
        if not topic:
            lines += ["", f"all settings: --help=all; of a section: --help=NAME with {', '.join(keys.SECTIONS)}"]
    show("\n".join(lines))


def show(words: str) -> None:
    """Print to stdout; a reader who has closed the pipe is no error."""
    try:
        print(words, flush=True)
    except BrokenPipeError:  # what is left in the buffer must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """Return comments by line, and whether there is code on that line."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            words = re.sub(r"^#\s?", "", token.string)
            found[token.start[0]] = (words, not token.line.lstrip().startswith("#"))
    return found


def _above(comments: Mapping[int, tuple[str, bool]], line: int) -> list[str]:
    """Return the whole-line comments that end right above a line."""
    first = line
    while first - 1 in comments and not comments[first - 1][1]:
        first -= 1
    return [comments[number][0] for number in range(first, line)]


def _calls(node: ast.ClassDef, name: str) -> Iterator[ast.Call]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name:
            yield call


def _choices(node: ast.ClassDef, names: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for call in _calls(node, "require_one_of"):
        for keyword in call.keywords:
            values = eval(ast.unparse(keyword.value), dict(names))  # noqa: S307 - our own source
            yield str(keyword.arg), ", ".join(value for value in values if value)


def _lower_limits(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for call in _calls(node, "require_at_least"):
        least, *keys = (ast.literal_eval(argument) for argument in call.args[1:])
        for key in keys:
            yield key, f"{least} or more"


def _type_name(annotation: str) -> str:
    kind, _, other = annotation.partition(" | ")
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
    named = names.get(kind, "list" if kind.startswith("list") else "map")
    word = other.replace("None", "null").removeprefix("Literal['").removesuffix("']")
    return f"{named}, or {word}" if word else named


def _default(field: "dataclasses.Field[object]") -> str:
    value = field.default_factory() if callable(field.default_factory) else field.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return "[]" if isinstance(value, list) else "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_allowed(one: Setting) -> str:
    return f"{one.meaning} ({one.allowed})" if one.allowed else one.meaning


if __name__ == "__main__":
    show(markdown().rstrip("\n"))
