"""What a recorded run of the published code holds: data, random outcomes, the model's answers, conflicts by gold label."""

import gzip
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from icm_hpc.core.types import UNLABELLED, Conflict, Indices, Labels, Problem, Rule
from icm_hpc.tasks.task import AT_MOST_ONE, EXACTLY_ONE, SAME

KINDS = {AT_MOST_ONE.name: "C", EXACTLY_ONE.name: "C", SAME.name: "I"}
MARKERS = ("I think this claim is True\n\n", "I think this claim is False\n\n")
TRUE, FALSE = "True", "False"

Event: TypeAlias = dict[str, Any]


class Different(Exception):  # noqa: N818
    """Our search does not do what was recorded."""


class Recorded:
    """A trace's random outcomes, in the order in which they were drawn: the Draws of all steps."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.weights: npt.NDArray[np.float64] = np.empty(0)  # of the last weighted draw
        self._choices = iter([e["out"] for e in events if e["t"] == "choices"])
        self._uniforms = iter([e.get("u", 0.5) for e in events if e["t"] in ("accept", "crash")])
        seeds = next(e["out"] for e in events if e["t"] == "init_shuffle")
        shuffles = [e["perm"] for e in events if e["t"] == "shuffle" and e["ctx"] == "fix_propose"]
        self._permutations = iter([_places_of(seeds), *shuffles])

    def weighted_index(self, weights: npt.NDArray[np.float64]) -> int:
        """Return the next example drawn."""
        self.weights = weights
        return int(self._next(self._choices, "draw"))

    def permutation(self, n: int) -> Indices:
        """Return the next shuffle."""
        order = self._next(self._permutations, "shuffle")
        if len(order) != n:
            raise Different(f"a shuffle of {n} is asked, one of {len(order)} was recorded")
        return np.array(order, dtype=np.int64)

    def uniform(self) -> float:
        """Return the next acceptance draw."""
        return float(self._next(self._uniforms, "acceptance"))

    def uniforms(self, n: int) -> npt.NDArray[np.float64]:
        """Raise: the published search draws none."""
        raise AssertionError(f"{n} numbers are drawn, which the published search does not do")

    @staticmethod
    def _next(outcomes: Iterator[Any], what: str) -> Any:
        try:
            return next(outcomes)
        except StopIteration:
            raise Different(f"one more {what} is asked than was recorded") from None


class Oracle:
    """The trace's scorer in the place of a server: a pure function of the prompt's text."""

    replicas = 1

    def replica(self, number: int) -> "Oracle":
        """Return the only one."""
        return self

    def __init__(self, header: Event) -> None:
        self._answer: Callable[[str], float] = {"hash": self._hash, "planted": self._planted, "zero": self._zero}[
            header["scorer"]["name"]
        ]
        self._weight = header["scorer"].get("w", 0.0)
        self._truth = {row["prompt"]: row["label"] for row in header["dataset"]}

    async def top_logprobs(self, prompts: Iterable[bytes]) -> list[dict[str, float]]:
        """Answer as a server does."""
        shares = [self._answer(json.loads(prompt)) for prompt in prompts]
        return [{TRUE: math.log(share), FALSE: math.log(1 - share)} for share in shares]

    @staticmethod
    def _uniform(prompt: str) -> float:
        return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64

    def _hash(self, prompt: str) -> float:
        return 0.02 + 0.96 * self._uniform(prompt)

    def _planted(self, prompt: str) -> float:
        agreements = []
        rest = prompt
        while found := [(rest.find(marker), marker) for marker in MARKERS if marker in rest]:
            start, marker = min(found)
            row = rest[:start] + "I think this claim is "
            agreements.append(1 if (TRUE in marker) == bool(self._truth[row]) else -1)
            rest = rest[start + len(marker) :]
        agreement = sum(agreements) / len(agreements) if agreements else 0
        x = self._weight * (2 * self._truth[rest] - 1) * agreement + 0.5 * (2 * self._uniform(prompt) - 1)
        return 1 / (1 + math.exp(-x))

    @staticmethod
    def _zero(_prompt: str) -> float:
        return 0.5


def read(path: Path) -> tuple[Event, list[Event]]:
    """Return a trace's header and its events."""
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    header, *events = [json.loads(line) for line in text.splitlines()]
    return header, events


def problem_of(rows: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the published problem, whose conflicts consistency keys make; for some tasks these are gold labels."""
    known: dict[Any, int] = {}
    groups = [known.setdefault(row["consistency_id"], len(known)) for row in rows]
    pairs = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows)) if groups[i] == groups[j]]
    ruled = [Conflict(i, j, _rule(rows[i]["consistency_key"], rows[j]["consistency_key"])) for i, j in pairs]
    return Problem(np.array(groups, dtype=np.int64), 2, tuple(ruled))


def pairs(conflicts: Sequence[Conflict]) -> list[list[Any]]:
    """Return conflicts as a trace writes them."""
    return [[c.first, c.second, KINDS[c.rule.name]] for c in conflicts]


def listed(labels: Labels) -> list[int | None]:
    """Return labels as a trace writes them."""
    return [none_if_unlabelled(label) for label in labels.tolist()]


def none_if_unlabelled(label: int | None) -> int | None:
    """Return a label as a trace writes it."""
    return None if label == UNLABELLED else label


def _rule(first: Any, second: Any) -> Rule:
    if first == second:
        return SAME
    return EXACTLY_ONE if first in ("A>B", "B>A") else AT_MOST_ONE


def _places_of(seeds: Sequence[int]) -> list[int]:
    """Return the permutation of [1, .., 1, 0, .., 0] that gave `seeds`."""
    ones, zeros = iter(range(sum(seeds))), iter(range(sum(seeds), len(seeds)))
    return [next(ones) if label else next(zeros) for label in seeds]
