"""JSON that another program, another version or a damaged disk wrote: of the types that are expected, or a ValueError."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 100  # characters of a value, in messages


def from_json(content: bytes | str) -> Any:
    """Return what JSON says; raises ValueError for anything else."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply") from error


def shown(value: Any) -> str:
    """Return a value for a message: on one line, and not long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: of a number of too many digits
        return "a value that cannot be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def typed(kind: Any, value: Any, name: str = "") -> Any:
    """Return a value as the type that is declared of it; raises ValueError, naming the place, for one that is no such value.

    Dataclasses are objects, in which a field with a default may be absent; tuples are lists. A text is no number, and a truth
    value or a fraction is no whole number.
    """
    hint = typing.get_origin(kind) or kind
    arms = typing.get_args(kind)
    if kind is Any or (kind is None and value is None):
        return value
    if hint in (types.UnionType, typing.Union):
        return _one_of(arms, value, name)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, name)
    if hint in (dict, Mapping) and isinstance(value, dict):
        return {key: typed(arms[1] if arms else Any, item, f"{name}.{key}") for key, item in value.items()}
    if hint in (list, tuple, Sequence) and isinstance(value, list | tuple):
        return _listed(hint, arms, value, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _number(value, name)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{name.lstrip('.') or 'it'} is {shown(value)}, and no {getattr(hint, '__name__', hint)}")


def _one_of(arms: Sequence[Any], value: Any, name: str) -> Any:
    """Return a value as the first type that it is."""
    for arm in arms:
        is_whole = isinstance(value, int) and not isinstance(value, bool) and int in arms
        if (arm is type(None) and value is None) or (arm is float and is_whole):
            if value is None:
                return None
            continue
        try:
            return typed(arm, value, name)
        except ValueError:
            continue
    raise ValueError(f"{name.lstrip('.') or 'it'} is {shown(value)}")


def _number(value: int, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name.lstrip('.') or 'it'} is too large a number") from error


def _listed(hint: Any, arms: Sequence[Any], value: Sequence[Any], name: str) -> Any:
    """Return a list, or a tuple of one type or of one a place."""
    if hint is tuple and Ellipsis not in arms:
        if len(arms) != len(value):
            raise ValueError(f"{name.lstrip('.') or 'it'} has {len(value)} items, and not {len(arms)}")
        kinds: Sequence[Any] = arms
    else:
        kinds = [arms[0] if arms else Any] * len(value)
    items = [typed(kind, item, f"{name}[{place}]") for place, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    return tuple(items) if hint is tuple else items


@functools.cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields by their names."""
    return typing.get_type_hints(kind)


def _dataclass(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name.lstrip('.') or 'it'} is {shown(value)}, and no object")
    hints = hints_of(kind)
    unknown = value.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{name.lstrip('.') or 'it'} has a field {shown(min(unknown))}, which is not known")
    required = (dataclasses.MISSING, dataclasses.MISSING)
    for field in dataclasses.fields(kind):
        if field.name not in value and (field.default, field.default_factory) == required:
            raise ValueError(f"{name.lstrip('.') or 'it'} has no {field.name}")
    return kind(**{key: typed(hints[key], item, f"{name}.{key}") for key, item in value.items()})
