"""From what is written to typed values: the declared type of a key decides how it is read, never the value.

| type | command line | YAML file |
|---|---|---|
| text | the characters; in quotes, what stands in them | what YAML takes for a number, a date or a truth value is quoted |
| whole number | decimal digits, with a sign or without | the same |
| number | a decimal or an exponent: 30, 0.5, 1e-5 | the same |
| truth value | true, false | the same |
| optional | `null` or nothing is unset; the text null is '"null"' | null, ~ or nothing is unset; the text is "null" |
| time (cluster.time_min) | as Slurm's --time | the same |
| list, map | [a,b], {a: b} | YAML's |
| list or a word (search.label_prior) | [a,b], or the word | the same |
| free (model.vllm_args, model.shape) | JSON's numbers, true, false, null, lists, maps; else text | the same |
"""

import json
import math
import re
import types
import typing
from typing import Any

from ..errors import ConfigError
from .written import TEXT, Tree, Written

DIGITS = 18  # of a whole number, at most
TIME = "a time as Slurm's --time takes it: 90 (minutes), MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
WHOLE = "a whole number in decimal digits, such as 200"
EXPECTED: dict[Any, str] = {
    int: WHOLE,
    float: "a number, such as 30, 0.5 or 1e-5",
    bool: "true or false",
    str: "a text",
    list: "a list, such as [a,b]",
    dict: "a map, such as {a: b}",
}


def value_of(tree: Tree, hint: Any, key: str, *, is_time: bool = False) -> Any:
    """Return the value of a key whose declared type is `hint`; raises ConfigError, on one line, for what it cannot be."""
    hint, others = parts_of(hint)
    if isinstance(tree, Written) and None in others and _is_unset(tree):
        return None
    if isinstance(tree, Written) and tree.text in others:
        return tree.text
    if hint is Any:
        return _free(tree)
    kind = typing.get_origin(hint) or hint
    expected = ", or ".join([EXPECTED[kind], *filter(None, others)])
    if kind is list and isinstance(tree, list):
        (inner,) = typing.get_args(hint)
        return [value_of(item, inner, f"{key}[{number}]") for number, item in enumerate(tree)]
    if kind is dict and isinstance(tree, dict):
        inner = typing.get_args(hint)[1]
        return {name: value_of(item, inner, f"{key}.{name}") for name, item in tree.items()}
    if not isinstance(tree, Written):
        given = "a list" if isinstance(tree, list) else "a map"
        raise ConfigError(f"{key}: expected {expected}, and {given} is given{place_of(tree)}")
    if is_time:
        return _time(tree, key)
    return {int: _int, float: _float, bool: _bool, str: _str}.get(kind, _refused_scalar(expected))(tree, key)


def parts_of(hint: Any) -> tuple[Any, tuple[str | None, ...]]:
    """Return a type, and what else may stand for a value of it: words, or None where it may be unset."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, ()
    kind, other = typing.get_args(hint)
    return kind, typing.get_args(other) if typing.get_origin(other) is typing.Literal else (None,)


def _is_unset(written: Written) -> bool:
    return not written if written.where else not written.quoted and written.text in ("", "null")


def _refusal(written: Written, key: str, expected: str) -> ConfigError:
    given = f"={written.shown}" if written.text else " is empty"
    return ConfigError(f"{key}{given}: expected {expected}{place_of(written)}")


def place_of(tree: Tree) -> str:
    """Return where a value is set, for the end of an error; nothing if that is the command line."""
    while isinstance(tree, dict | list) and tree:
        tree = tree[0] if isinstance(tree, list) else next(iter(tree.values()))
    return f" (set in {tree.where})" if isinstance(tree, Written) and tree.where else ""


def _refused_scalar(expected: str) -> Any:
    def refuse(written: Written, key: str) -> Any:
        raise _refusal(written, key, expected)

    return refuse


def _str(written: Written, key: str) -> str:
    if written.where and not written.saved and not written.quoted and written.tag != TEXT:
        read_as = "nothing" if not written else f"a {_named(written.tag)}"
        raise _refusal(written, key, f'a text, which YAML takes for {read_as}: quote it, as in "{written.text}"')
    return written.text


def _named(tag: str) -> str:
    """Return what a tag of YAML is called."""
    kinds = {"int": "number", "float": "number", "bool": "truth value", "timestamp": "date", "null": "nothing"}
    name = tag.rsplit(":", 1)[-1]
    return kinds.get(name, f"value with the tag {name}")


def _int(written: Written, key: str) -> int:
    if not re.fullmatch(rf"[-+]?[0-9]{{1,{DIGITS}}}", written.text):
        raise _refusal(written, key, WHOLE)
    return int(written.text)


def _float(written: Written, key: str) -> float:
    plain = re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", written.text)
    value = float(written.text) if plain else math.nan
    if not math.isfinite(value):
        raise _refusal(written, key, EXPECTED[float])
    return value


def _bool(written: Written, key: str) -> bool:
    if written.text not in ("true", "false"):
        raise _refusal(written, key, EXPECTED[bool])
    return written.text == "true"


def _time(written: Written, key: str) -> int:
    """Return whole minutes, rounded up."""
    found = re.fullmatch(r"(?:([0-9]{1,6})-)?([0-9]{1,9}(?::[0-9]{1,9}){0,2})", written.text)
    if found is None:
        raise _refusal(written, key, TIME)
    days, parts = found[1], [int(part) for part in found[2].split(":")]
    units: tuple[int, ...] = (3600, 60, 1) if days is not None or len(parts) == 3 else (60, 1)
    seconds = int(days or 0) * 86400 + sum(n * unit for n, unit in zip(parts, units, strict=False))
    return -(-seconds // 60)


def _free(tree: Tree) -> Any:
    """Return a value of any type: JSON's numbers, true, false and null are what they are, all else is text."""
    if isinstance(tree, dict):
        return {name: _free(item) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_free(item) for item in tree]
    if tree.quoted:
        return tree.text
    if tree.text.lower() in ("true", "false") and tree.text in (
        tree.text.lower(),
        tree.text.title(),
        tree.text.upper(),
    ):
        return tree.text.lower() == "true"
    if tree.text in ("null", "") or (tree.where and not tree):
        return None
    if re.fullmatch(rf"-?(0|[1-9][0-9]{{0,{DIGITS}}})(\.[0-9]+)?([eE][-+]?[0-9]+)?", tree.text):
        value = json.loads(tree.text)
        return value if math.isfinite(value) else tree.text
    return tree.text
