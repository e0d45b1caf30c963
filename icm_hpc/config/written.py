"""Settings as they are written, before their types are known: each value keeps its characters and the place that sets it.

Two notations are read: YAML files, whose scalars are not converted, and values of the command line. There a list is [a,b] and a
map is {a: b}; an item may stand in quotes, and brackets inside an item belong to it: [--exclude=n[01,03]].
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ..errors import ConfigError

NO_MAP = ""  # stands for the section of a file that holds none
SHOWN = 100  # letters of a value in an error
MAX_VALUES = 100_000  # of a file, each as often as an alias repeats it
MAX_DEPTH = 50  # of brackets on the command line
TEXT = "tag:yaml.org,2002:str"

# What YAML 1.2 reads as a number, and PyYAML (YAML 1.1) as text.
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|[-+]?\.inf|\.nan", re.IGNORECASE)
CLOSING = {"[": "]", "{": "}"}
OPENING = {closing: opening for opening, closing in CLOSING.items()}


@dataclass(frozen=True, slots=True)
class Written:
    """One value as it is written."""

    text: str
    where: str = ""  # FILE, line N; empty: the command line
    quoted: bool = False
    tag: str = TEXT  # what YAML takes an unquoted value of a file for
    saved: bool = False  # in a run's config.yaml, which this program writes

    def __bool__(self) -> bool:
        return self.quoted or self.text not in ("", "~", "null", "Null", "NULL")

    @property
    def shown(self) -> str:
        """The value for an error: on one line, and not longer than a line."""
        text = self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]}... ({len(self.text)} letters)"
        return text if text.isprintable() and text == text.strip() else repr(text)


Tree: TypeAlias = Any  # Written, or a list or a dict of trees


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Knows the numbers of YAML 1.2, too."""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes every text that `read_yaml` would not read as a text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return that no value is written as a reference to another."""
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(rf"^({NUMBER.pattern})$", re.IGNORECASE), list("-+.0123456789")
    )


REMEDIES = {  # what PyYAML says -> what to write instead
    "mapping values are not allowed": 'a text with a colon stands in quotes, as "Review: {text}"',
    "'\\t'": "lines are indented by spaces, not tabs",
    "expected <block end>": "is a quote missing here or one line above, or the indent another?",
    "unexpected end of stream": "a quote is not closed",
    "unknown escape character": "in double quotes a backslash is written twice",
}


def to_yaml(values: dict[str, Any]) -> str:
    """Return typed values as YAML."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path, *, saved: bool = False) -> dict[str, Tree]:
    """Return the map that a YAML file holds; raises ConfigError, naming file and line, for what is not YAML."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if node is not None:
            _require_few(node, path)
        tree = {} if node is None else _tree(loader, node, path, saved=saved)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8; convert the file, as by iconv -f latin1 -t utf-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is not YAML of settings: brackets are nested too deeply") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {_problem(error)}") from error
    except (ValueError, OverflowError) as error:  # of an escape or a version that PyYAML does not check
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if isinstance(tree, Written) and not tree:
        return {}
    return tree if isinstance(tree, dict) else {NO_MAP: tree}


def _problem(error: yaml.YAMLError) -> str:
    """Return what is wrong, and in which line, as one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
    line = f"line {mark.line + 1}: " if mark else ""
    said = " ".join(str(said).split())
    return line + said + next((f": {remedy}" for sign, remedy in REMEDIES.items() if sign in said), "")


def _require_few(root: yaml.Node, path: Path) -> None:
    """Raise ConfigError for a file whose aliases repeat themselves until no memory holds it, or refer to what they are in."""
    counts: dict[int, int] = {}

    def count(node: yaml.Node, above: tuple[int, ...]) -> int:
        line = node.start_mark.line + 1
        if id(node) in above:
            raise ConfigError(f"{path}, line {line}: an alias refers to what it is a part of")
        if id(node) not in counts:
            inner = [] if isinstance(node, yaml.ScalarNode) else node.value
            nodes = [one for item in inner for one in (item if isinstance(item, tuple) else (item,))]
            counts[id(node)] = 1 + sum(count(one, (*above, id(node))) for one in nodes)
        if counts[id(node)] > MAX_VALUES:
            raise ConfigError(f"{path}, line {line}: with its aliases it has more than {MAX_VALUES} values")
        return counts[id(node)]

    count(root, ())


def _tree(loader: _Loader, node: yaml.Node, path: Path, *, saved: bool) -> Tree:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        _require_text(node.value, f"{path}, line {line}")
        return Written(node.value, f"{path}, line {line}", node.style is not None, node.tag, saved)
    if isinstance(node, yaml.SequenceNode):
        return [_tree(loader, item, path, saved=saved) for item in node.value]
    own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    seen: set[str] = set()
    for key in own:
        _require_scalar(key, path)
        if key.value in seen:
            raise ConfigError(f"{path}, line {key.start_mark.line + 1}: {key.value} stands twice")
        seen.add(key.value)
    loader.flatten_mapping(node)
    for key, _ in node.value:
        _require_scalar(key, path)
    return {key.value: _tree(loader, value, path, saved=saved) for key, value in node.value}


def _require_scalar(key: yaml.Node, path: Path) -> None:
    where = f"{path}, line {key.start_mark.line + 1}"
    if not isinstance(key, yaml.ScalarNode):
        raise ConfigError(f"{where}: a list or a map cannot be a key")
    _require_text(key.value, where)


def _require_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: {Written(text).shown} is no text that UTF-8 can hold") from error


def read_value(key: str, text: str, *, splits: bool) -> Tree:
    """Return a value of the command line; `splits` says whether brackets and braces make lists and maps of it.

    Raises ConfigError for brackets or quotes that are not closed.
    """
    _require_text(f"{key}={text}", "the command line")
    return _value(text, lambda problem: ConfigError(f"{key}={Written(text).shown}: {problem}"), splits=splits)


Refusal: TypeAlias = Callable[[str], ConfigError]


def _value(text: str, refusal: Refusal, *, splits: bool = True, depth: int = 0) -> Tree:
    bare = text.strip()
    if depth > MAX_DEPTH:
        raise refusal("brackets are nested too deeply")
    unquoted = _unquoted(bare)
    if unquoted is not None:
        _require_text(unquoted, "in quotes")
        return Written(unquoted, quoted=True)
    if not splits or bare[:1] not in CLOSING or not bare:
        return Written(text)
    if bare[-1] != CLOSING[bare[0]]:
        raise refusal(f"{bare[0]} is not closed by {CLOSING[bare[0]]} at the end; put an item with brackets in quotes")
    items = _items(bare[1:-1], bare[0], refusal)
    if bare[0] == "[":
        return [_value(item.strip(), refusal, depth=depth + 1) for item in items]
    pairs: dict[str, Tree] = {}
    for item in items:
        name, value = _pair(item.strip(), refusal)
        if name in pairs:
            raise refusal(f"{name} stands twice")
        pairs[name] = _value(value.strip(), refusal, depth=depth + 1)
    return pairs


def _items(inner: str, bracket: str, refusal: Refusal) -> list[str]:
    """Return the items between two brackets; commas inside quotes and inner brackets separate none."""
    items, begin, at, stack, fresh = [], 0, 0, [bracket], True
    while at < len(inner):
        sign = inner[at]
        if fresh and sign in "\"'":
            at = _end_of_quotes(inner, at, refusal)
            fresh = False
            continue
        if sign in CLOSING:
            stack.append(sign)
        elif sign in OPENING:
            if len(stack) == 1 or stack.pop() != OPENING[sign]:
                raise refusal(f"{sign} closes nothing; put an item with brackets in quotes")
        elif sign == "," and len(stack) == 1:
            items.append(inner[begin:at])
            begin = at + 1
        fresh = sign in ",[{" or (sign == ":" and stack[-1] == "{") or (fresh and sign.isspace())
        at += 1
    if len(stack) > 1:
        raise refusal(f"{stack[-1]} is not closed; put an item with brackets in quotes")
    items += [inner[begin:]] if inner[begin:].strip() else []
    if any(not item.strip() for item in items):
        raise refusal("an item is empty: write '' for an empty text")
    return items


def _end_of_quotes(text: str, begin: int, refusal: Refusal) -> int:
    """Return the place after the quotes that begin here."""
    pattern = r'"(?:[^"\\]|\\.)*"' if text[begin] == '"' else r"'(?:[^']|'')*'"
    found = re.compile(pattern, re.DOTALL).match(text, begin)
    if found is None:
        raise refusal(f"{text[begin]} is not closed")
    return found.end()


def _pair(item: str, refusal: Refusal) -> tuple[str, str]:
    end = _end_of_quotes(item, 0, refusal) if item[:1] in ("'", '"') else item.find(":")
    name = _unquoted(item[:end]) if item[:1] in ("'", '"') else item[: max(end, 0)].strip()
    rest = item[end:].lstrip()
    if end < 0 or not rest.startswith(":") or not name:
        raise refusal(f"{item!r} is not NAME: VALUE")
    _require_text(name, "in quotes")
    return name, rest[1:]


def _unquoted(text: str) -> str | None:
    """Return what stands in the quotes of a text that is quoted as a whole, as YAML reads them; None if it is not."""
    if not re.fullmatch(r'"(?:[^"\\]|\\.)*"|' r"'(?:[^']|'')*'", text, re.DOTALL):
        return None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError):  # the last two: of an escape that is no character
        return None
    return str(node.value)
