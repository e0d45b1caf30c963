"""Units: examples that conflict rules link get their labels together, by the joint labels that break the fewest conflicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .energy import Values
from .types import UNLABELLED, LabelPair, Labels, Problem

Unit: TypeAlias = tuple[int, ...]  # examples, ascending
Links: TypeAlias = Mapping[int, Sequence[tuple[int, frozenset[LabelPair]]]]
"""Of an example: those that conflicts link it to, each with the pairs of labels (its own, the other's) that break the rule."""

# Partial labellings of a unit that are kept, at least: exact for units that have no more, as six examples of two labels.
BEAM = 64


@dataclass(frozen=True, slots=True)
class Joint:
    """Labels of the examples of a unit, in its order."""

    labels: tuple[int, ...]
    broken: int  # conflicts among them, and with labels outside
    value: float  # summed over the unit; nats


def links_of(problem: Problem) -> Links:
    """Return what links each example to others."""
    links: dict[int, list[tuple[int, frozenset[LabelPair]]]] = {}
    for conflict in problem.conflicts:
        pairs = frozenset(conflict.rule.repairs)
        links.setdefault(conflict.first, []).append((conflict.second, pairs))
        links.setdefault(conflict.second, []).append((conflict.first, frozenset((b, a) for a, b in pairs)))
    return links


def units_of(links: Links, members: Iterable[int]) -> list[Unit]:
    """Return the members in units, by their first example: those that conflicts among members connect."""
    left = dict.fromkeys(sorted(members))
    units = []
    while left:
        waiting = [next(iter(left))]
        del left[waiting[0]]
        unit = []
        while waiting:
            unit.append(waiting.pop())
            for other, _ in links.get(unit[-1], ()):
                if other in left:
                    del left[other]
                    waiting.append(other)
        units.append(tuple(sorted(unit)))
    return units


def exchanged(labels: Labels, units: Iterable[Unit], rng: np.random.Generator) -> Labels:
    """Return a copy in which units of equal size have exchanged their labels at random, so that counts and rules stay."""
    sizes: dict[int, list[Unit]] = {}
    for unit in units:
        sizes.setdefault(len(unit), []).append(unit)
    mixed = labels.copy()
    for same in sizes.values():
        places = np.array(same)
        mixed[places] = labels[places[rng.permutation(len(places))]]
    return mixed


def joints(unit: Unit, links: Links, values: Values, labels: Labels) -> list[Joint]:
    """Return the best two ways to label a unit: fewest broken conflicts, then highest value, then lowest labels.

    `values` is f64[N, L]; examples outside the unit keep what `labels` gives them. A beam search: exact for small units.
    """
    width = max(BEAM, len(unit) + 1)  # at most one of them is true: as many ways
    beam = [Joint((), 0, 0.0)]
    places = {index: place for place, index in enumerate(unit)}
    for place, index in enumerate(unit):
        inside = [(places[o], pairs) for o, pairs in links.get(index, ()) if places.get(o, place) < place]
        outside = [
            (int(labels[o]), pairs) for o, pairs in links.get(index, ()) if o not in places and labels[o] != UNLABELLED
        ]
        grown = []
        for label, value in enumerate(values[index].tolist()):
            fixed = sum((label, other) in pairs for other, pairs in outside)
            for one in beam:
                broken = sum((label, one.labels[earlier]) in pairs for earlier, pairs in inside)
                grown.append(Joint((*one.labels, label), one.broken + fixed + broken, one.value + value))
        beam = sorted(grown, key=_rank)[: width if place < len(unit) - 1 else 2]
    return beam


def _rank(joint: Joint) -> tuple[int, float, tuple[int, ...]]:
    return joint.broken, -joint.value, joint.labels


def best_labels(units: Iterable[Unit], links: Links, values: Values, labels: Labels) -> dict[int, int]:
    """Return the best label of each example of these units, chosen jointly in each."""
    best: dict[int, int] = {}
    for unit in units:
        alone = dict(zip(unit, np.argmax(values[list(unit)], axis=1).tolist(), strict=True))
        if any(_breaks(index, label, alone, links, labels) for index, label in alone.items()):
            alone = dict(zip(unit, joints(unit, links, values, labels)[0].labels, strict=True))
        best.update(alone)
    return best


def _breaks(index: int, label: int, unit: Mapping[int, int], links: Links, labels: Labels) -> bool:
    """Return whether an example's label breaks a rule with others of its unit, or with those outside."""
    return any((label, unit.get(other, int(labels[other]))) in pairs for other, pairs in links.get(index, ()))
