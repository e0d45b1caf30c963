"""What only the reference protocol needs: the published code's reading of an answer and its choice of examples.

Both as described by observation of Jiaxin-Wen/Unsupervised-Elicitation, commit d6260a9.
"""

import math
from collections.abc import Hashable, Mapping, Sequence

FLOOR = 1e-5  # probability that each label starts with


def label_scores(top_logprobs: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Return log(FLOOR + probability) of each label, from the top-k first tokens (text -> log-probability, nats).

    A token counts for the one label whose name (lower case) its lower-cased text contains; for none if it contains two.
    So a difference of two scores is at most 11.52, and 0 if no token names a label.
    """
    sums = [FLOOR] * len(names)
    for token, logprob in top_logprobs.items():
        named = [label for label, name in enumerate(names) if name in token.lower()]
        if len(named) == 1:
            sums[named[0]] += math.exp(logprob)
    return [math.log(total) for total in sums]


def blocks(groups: Sequence[Hashable], size: int) -> list[list[int]]:
    """Return blocks of exactly `size` rows: the rows regrouped, groups by first appearance, then cut by position.

    A shorter tail is left out, and with groups that are not of that size a block can straddle groups.
    """
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    regrouped = [row for rows in members.values() for row in rows]
    return [regrouped[start : start + size] for start in range(0, len(regrouped) - size + 1, size)]
