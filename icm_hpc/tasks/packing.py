"""Whole groups into few shards of nearly equal size. Everything here is of sizes only, and deterministic."""

import heapq
from collections.abc import Iterable, Sequence

Parts = list[list[int]]  # by part, the numbers of its groups, ascending


def pack(sizes: Sequence[int], room: int) -> Parts:
    """Put groups of these sizes, none larger than `room`, into few parts of at most `room`, as equal as they get.

    Parts of neighbouring groups are taken where they are as few and as equal. Parts are ordered by their first group.
    """
    filled = _filled(sizes, room)
    fewest = -(-sum(sizes) // room)
    shared = (_shared(sizes, room, count) for count in sorted({fewest, min(fewest + 1, len(filled)), len(filled)}))
    packed = next((parts for parts in shared if parts is not None), None) or filled
    balanced = _balanced(packed, sizes, room)
    neighbours = _in_order(sizes, room, len(balanced))
    return neighbours if neighbours and _spread(neighbours, sizes) <= _spread(balanced, sizes) else balanced


def _filled(sizes: Sequence[int], room: int) -> Parts:
    """Fill parts: the largest group first, each into the first part that holds it (first-fit decreasing)."""
    parts: Parts = []
    left: list[int] = []
    place, size = 0, room
    for group in _largest_first(sizes):
        if sizes[group] < size:
            place, size = 0, sizes[group]  # for groups of one size the first part that holds one only moves on
        while place < len(parts) and left[place] < size:
            place += 1
        if place == len(parts):
            parts.append([])
            left.append(room)
        parts[place].append(group)
        left[place] -= size
    return _sorted(parts)


def _shared(sizes: Sequence[int], room: int, count: int) -> Parts | None:
    """Share groups out among `count` parts, the largest first to the emptiest part; None if they do not fit so."""
    parts: Parts = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for group in _largest_first(sizes):
        load, number = loads[0]
        if load + sizes[group] > room:
            return None
        parts[number].append(group)
        heapq.heapreplace(loads, (load + sizes[group], number))
    return _sorted(part for part in parts if part)


def _balanced(parts: Parts, sizes: Sequence[int], room: int) -> Parts:
    """Move groups from the largest part to the smallest, or exchange two of them, as long as that makes them more equal."""
    loads = _loads(parts, sizes)
    while True:
        high, low = loads.index(max(loads)), loads.index(min(loads))
        gap = loads[high] - loads[low]
        # Giving one group for another, or for none, moves the difference of their sizes; half of the gap is best.
        gains = [
            (abs(gap - 2 * moved), given, taken)
            for given in parts[high]
            for taken in (None, *parts[low])
            if 0 < (moved := sizes[given] - (0 if taken is None else sizes[taken])) < gap and loads[low] + moved <= room
        ]
        if not gains:
            return _sorted(parts)
        _, given, taken = min(gains, key=lambda gain: gain[0])
        for part, gone, come in ((high, given, taken), (low, taken, given)):
            parts[part] = [group for group in parts[part] if group != gone] + ([] if come is None else [come])
        loads = _loads(parts, sizes)


def _in_order(sizes: Sequence[int], room: int, count: int) -> Parts | None:
    """Cut the row of groups where it has passed a whole number of shares; None if a part is then too large."""
    total = sum(sizes)
    parts: Parts = []
    done = 0
    for group, size in enumerate(sizes):
        if done + size / 2 >= len(parts) * total / count:
            parts.append([])
        parts[-1].append(group)
        done += size
    return parts if max(_loads(parts, sizes)) <= room else None


def _spread(parts: Parts, sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return what is to be small: the number of parts, the largest, and what the smallest lacks."""
    loads = _loads(parts, sizes)
    return len(parts), max(loads), -min(loads)


def _loads(parts: Parts, sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[group] for group in part) for part in parts]


def _largest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda group: -sizes[group])


def _sorted(parts: Iterable[list[int]]) -> Parts:
    return sorted(sorted(part) for part in parts)
