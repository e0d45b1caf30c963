"""What all fuzzing shares: how valid samples are spoilt, what is required of whoever reads them, and how often it is tried.

Each test tries about as many examples as CI has time for, the same ones each time. ICM_FUZZ_EXAMPLES=100000 tries so many of
each, and other ones each time.
"""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st

from icm_hpc.errors import IcmError

R = TypeVar("R")
EXAMPLES = "ICM_FUZZ_EXAMPLES"
CPU_S = 5.0  # that one example may take: processor time, so that a busy machine fails no test
MEMORY_BYTES = 2**30  # that it may take beside what the process has


def fuzzed(examples: int) -> hypothesis.settings:
    """Return the settings of a test that tries so many examples in CI."""
    by_hand = os.environ.get(EXAMPLES)
    return hypothesis.settings(
        max_examples=int(by_hand) if by_hand else examples,
        derandomize=not by_hand,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.shrink],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


class TooLong(Exception):  # noqa: N818
    """An example that took CPU_S of processor time."""


@contextmanager
def bounded(memory_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Raise TooLong, or MemoryError, for what takes more time or memory than an example may."""

    def stop(*_: object) -> None:
        raise TooLong(f"{CPU_S:g} s of processor time")

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_bytes, hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def accepted(read: Callable[[], R], *, on_one_line: bool = True) -> R | None:
    """Return what `read` returns, within bounds; None where it raises one of our errors, on one line. Raises any other."""
    try:
        with bounded():
            return read()
    except IcmError as error:
        if on_one_line:
            require_one_line(str(error))
        return None


def require_one_line(message: str) -> None:
    """Fail for an error that a command could not print as one line."""
    assert message.strip()
    assert len(message.splitlines()) == 1, message


class Raw(str):
    """A piece of JSON as it stands in the text, such as 1e400."""

    __slots__ = ()


class Twice(dict[str, Any]):
    """An object whose keys are all written twice."""


def to_json(value: Any) -> str:
    """Return JSON of a value that may hold Raw and Twice."""
    if isinstance(value, Raw):
        return str.__str__(value)
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(key))}: {to_json(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs * (2 if isinstance(value, Twice) else 1)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_json, value)) + "]"
    return json.dumps(value)


def deep(depth: int) -> Raw:
    """Return so many lists inside each other."""
    return Raw("[" * depth + "]" * depth)


NUMBERS = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1e-400",
        "1e9999999",
        "1e-99999999999999999999",
        "-0",
        "-0.0",
    ),
    *("0.1000000000000000000000000000001", "9007199254740993", "1.0", "1e3", "18446744073709551616", "2147483648"),
    *("1" + "0" * 400, "-1" + "0" * 400, "1" * 5000, "0." + "3" * 5000, "1e-5000", "-1", "0", "1", "2"),
)
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "\ud83d",
        "\udc00x",
        "\ufeff",
        "\u2028",
        "\x85",
        "\u202e",
        "é",
        "👩🏽‍🔬",
        "a" * 3000,
        "!" * 20_000,
    ),
    *(
        " " * 20_000,
        "*" * 20_000,
        "1,11" + ",11" * 5000,
        "answer: " + "! " * 50,
        "nan",
        "None",
        "null",
        "true",
        "1",
        "1.0",
        "-1",
    ),
    *(
        "0",
        "{x}",
        "{",
        "}}",
        "[1]",
        '["a"], 1',
        "['a'] + ['b']",
        '[{"role": "user"}]',
        "[" * 300,
        "['" + "[" * 300,
        "#### 5",
    ),
    *(
        "\\boxed{",
        "\\frac{1}{0}",
        "1/0",
        "1e999999",
        "$5$",
        "½",
        "٣",
        "\n\nHuman: a\n\nAssistant: b",
        "<|endoftext|>",
        "a\r\nb",
    ),
    *("token_id:5", "token_id:", "token_id:-1", "token_id:" + "9" * 5000),
)


def scalars() -> st.SearchStrategy[Any]:
    """Return values that readers stumble over."""
    return st.one_of(
        st.sampled_from([Raw(number) for number in NUMBERS]),
        st.sampled_from(TEXTS),
        st.sampled_from([None, True, False]),
        st.text(max_size=8),
        st.integers(),
        st.floats(),
    )


def values() -> st.SearchStrategy[Any]:
    """Return any JSON."""
    inner = st.recursive(
        scalars(),
        lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3),
        max_leaves=5,
    )
    nested = st.sampled_from(
        [deep(90), deep(500), deep(980), deep(3000), deep(100_000), Raw("[" * 3000), Raw('{"a":' * 3000)]
    )
    return inner | nested


@st.composite
def mutated(draw: st.DrawFn, sample: Any, most: int = 3) -> Any:
    """Return a sample of JSON with up to `most` changes somewhere in it."""
    for _ in range(draw(st.integers(0, most))):
        sample = _changed(draw, sample)
    return sample


def _changed(draw: st.DrawFn, value: Any) -> Any:
    """Change a value, or something in it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)) != 0:
        return _changed_object(draw, value)
    if isinstance(value, list) and value and draw(st.integers(0, 4)) != 0:
        return _changed_list(draw, value)
    if isinstance(value, str) and not isinstance(value, Raw) and draw(st.booleans()):
        place = draw(st.integers(0, len(value)))
        return (
            value[:place]
            + draw(st.sampled_from(TEXTS) | st.text(max_size=3))
            + value[place + draw(st.integers(0, 3)) :]
        )
    how = draw(st.integers(0, 5))
    if how == 0:
        return [value]
    if how == 1:
        return {"a": value}
    if how == 2 and not isinstance(value, dict | list | Raw):
        return str(value)
    return draw(values())


def _changed_object(draw: st.DrawFn, value: dict[str, Any]) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(value)))
    how = draw(st.sampled_from(["inside", "inside", "inside", "drop", "rename", "add", "twice", "turn"]))
    if how == "drop":
        return {name: item for name, item in value.items() if name != key}
    if how == "rename":
        other = draw(st.sampled_from([key.upper(), f" {key}", ""]) | st.text(max_size=5))
        return {other if name == key else name: item for name, item in value.items()}
    if how == "add":
        return {**value, draw(st.text(max_size=4)): draw(values())}
    if how == "twice":
        return Twice(value)
    if how == "turn":
        return dict(reversed(value.items()))
    return {**value, key: _changed(draw, value[key])}


def _changed_list(draw: st.DrawFn, value: list[Any]) -> list[Any]:
    place = draw(st.integers(0, len(value) - 1))
    how = draw(st.sampled_from(["inside", "inside", "inside", "drop", "again", "add", "empty", "turn"]))
    if how == "drop":
        return value[:place] + value[place + 1 :]
    if how == "again":
        return value[: place + 1] + value[place:]
    if how == "add":
        return [*value[:place], draw(values()), *value[place:]]
    if how == "empty":
        return []
    if how == "turn":
        return value[::-1]
    return [*value[:place], _changed(draw, value[place]), *value[place + 1 :]]


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "latin-1")
PIECES = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\xbd",
        b"\r",
        b"\n",
        b"\r\n",
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
    ),
    *(
        b"\\",
        b"\\u",
        b"#",
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!",
        b"- ",
        b"? ",
        b"|",
        b">",
        b"%YAML 1.1\n",
        b"---\n",
        b"\t",
        b"  ",
    ),
    *(b'"\\UFFFFFFFF"', b'"\\ud83d"', b"~", b"1e400", b"[" * 2000, b"{" * 2000, b"9" * 5000, b"a: " * 100),
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 3) -> bytes:
    """Return content with up to `most` changes: cut short, a byte flipped, a piece put in, taken out or repeated."""
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, len(content)))
        end = min(len(content), place + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["flip", "flip", "cut", "put", "put", "take", "again", "line"]))
        if how == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
        elif how == "cut":
            content = content[:place]
        elif how == "put":
            content = content[:place] + draw(st.sampled_from(PIECES)) + content[place:]
        elif how == "take":
            content = content[:place] + content[end:]
        elif how == "again":
            content = content[:end] + content[place:]
        elif how == "line":
            lines = content.split(b"\n")
            chosen = draw(st.integers(0, len(lines) - 1))
            content = b"\n".join([*lines[:chosen], *lines[chosen + 1 :], lines[chosen]])
    return content


@st.composite
def encoded(draw: st.DrawFn, text: str) -> bytes:
    """Return a text in an encoding, mostly UTF-8."""
    encoding = draw(st.sampled_from(["utf-8"] * 6 + list(ENCODINGS)))
    return text.encode(encoding, errors="surrogatepass" if "latin" not in encoding else "replace")
