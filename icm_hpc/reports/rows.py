"""The rows to look at: those that the model is least certain of, and pairs that break a rule."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.energy import broken
from ..core.types import UNLABELLED, frozen_labels
from ..exports.records import probability
from ..tasks import Task
from .figures import Broken, Excerpt, LabelMargins, Row
from .labelling import Labelled
from .prompts import Prompts

ROWS = 50  # that are listed
PAIRS = 25
TEXT = (1200, 400)  # characters of a text's head and tail, if it is longer than both
PROMPT = (400, 1600)  # likewise; its end has the example
SHORT = 200  # characters of an id or a group


@dataclass(frozen=True, slots=True)
class Lister:
    """Makes rows of places."""

    found: Labelled
    words: Sequence[str]
    prompts: Prompts | None
    gold: Mapping[str, int]  # by id

    def row(self, place: int) -> Row:
        """Return an example, each of its texts with a limit."""
        row = self.found.row(place)
        asked = self.prompts.of(str(row.id)) if self.prompts else None
        gold = self.gold.get(str(row.id))
        return Row(
            id=str(row.id)[:SHORT],
            group=row.group[:SHORT],
            text=excerpt(row.text, TEXT),
            word=row.word,
            margin=row.margin,
            probability=probability(row),
            by=row.by,
            stability=row.stability,
            gold=None if gold is None else self.words[gold],
            prompt=excerpt(asked[0], PROMPT) if asked else None,
            place=asked[1] if asked else 0,
        )


def excerpt(text: str, limits: tuple[int, int]) -> Excerpt:
    """Return a text, without its middle if it is longer than head and tail may be."""
    head, tail = limits
    left_out = len(text) - head - tail
    return Excerpt(text) if left_out <= 0 else Excerpt(text[:head], left_out, text[-tail:])


def least_certain(lister: Lister) -> list[Row]:
    """Return the rows of the smallest margins, the least certain first; one without a margin, as of a NaN, is none."""
    return [lister.row(int(place)) for place in np.argsort(lister.found.margins, kind="stable")[:ROWS]]


def conflicts(lister: Lister, task: Task) -> tuple[list[Broken], int]:
    """Return the first pairs that break a rule, and how many there are."""
    place = {id_: number for number, id_ in enumerate(lister.found.ids)}
    places = [place.get(str(example.id)) for example in task.examples]
    labels = [UNLABELLED if at is None else int(lister.found.labels[at]) for at in places]
    pairs = broken(task.problem(), frozen_labels(labels))
    shown = []
    for pair in pairs[:PAIRS]:
        first, second = places[pair.first], places[pair.second]
        if first is not None and second is not None:
            shown.append(Broken(pair.rule.name, (lister.row(first), lister.row(second))))
    return shown, len(pairs)


def margins_by_label(found: Labelled, words: Sequence[str]) -> list[LabelMargins]:
    """Return the margins of each label, in the order of the labels; NaN for one that no example has."""
    return [_margins(word, found.margins[found.labels == label].tolist()) for label, word in enumerate(words)]


def _margins(word: str, margins: Iterable[float]) -> LabelMargins:
    known = np.array([margin for margin in margins if not math.isnan(margin)])
    low, median, high = np.quantile(known, (0.1, 0.5, 0.9)).tolist() if len(known) else (math.nan,) * 3
    mean = float(known.mean()) if len(known) else math.nan
    return LabelMargins(word, len(known), mean, low, median, high, int((known < 0).sum()))
