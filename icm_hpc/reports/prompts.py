"""The prompt in which an example's final scores were asked, as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from .. import tasks
from ..config.schema import SearchConfig
from ..core.layout import LAYOUTS, Query
from ..core.scorings import SCORINGS
from ..core.types import Indices, LabelNumber, Labels, pool_of
from ..rundir.files import read_json
from ..rundir.folder import RunDir
from ..scoring.prompts import of_text
from ..scoring.scorer import whole_pool
from ..tasks import Example, Task


@dataclass(frozen=True)
class Part:
    """The examples that are searched together, in their labelling."""

    task: Task
    labels: Labels
    lengths: Indices  # tokens of each example as a demonstration, which the layout goes by

    @cached_property
    def groups(self) -> Indices:
        """The group of each example."""
        return self.task.problem().groups


@dataclass(frozen=True)
class Prompts:
    """The prompts of a run."""

    search: SearchConfig
    parts: Sequence[Part | None]  # None: the lengths of its examples are not recorded
    beyond: Mapping[str, Example]  # by id, examples that are shown behind the whole pool
    place: Mapping[str, tuple[int, int]] = field(repr=False)  # by id, the number of its part and its place there

    def of(self, id_: str) -> tuple[str, int] | None:
        """Return the prompt of an example, and how many demonstrations it has; None if that is not known."""
        number, index = self.place.get(id_, (0, -1))
        part = self.parts[number]
        if part is None or (index < 0 and id_ not in self.beyond):
            return None
        if index < 0:
            arranged = self._arranged(part, pool_of(part.labels))
            shown = replace(part.task, examples=(*part.task.examples, self.beyond[id_]))
            query = Query(len(part.labels), whole_pool(arranged))
        else:
            shown, (query,) = part.task, self._arranged(part, np.array([index]))
        return self._text(shown, query, part.labels), len(query.demonstrations)

    def _arranged(self, part: Part, queries: Indices) -> list[Query]:
        members = np.union1d(pool_of(part.labels), queries)
        return LAYOUTS[self.search.layout].arrange(members, queries, part.groups, part.lengths, "eval")

    def _text(self, task: Task, query: Query, labels: Labels) -> str:
        if SCORINGS[self.search.scoring].sends_text:
            return of_text(task, np.array([])).text(query, labels)
        shown = [task.examples[i].text + task.label_words[labels[i]] for i in query.demonstrations]
        return task.preamble + task.separator.join([*shown, task.examples[query.index].text])


def prompts_of(search: SearchConfig, run_dir: RunDir, task: Task, labels: Mapping[str, int]) -> Prompts:
    """Return the prompts in which labels, by id, were scored together."""
    division = tasks.divided(task, search.pool_size, search.beyond)
    place = {
        str(example.id): (number, index)
        for number, part in enumerate(division.shards)
        for index, example in enumerate(part.examples)
    }
    beyond = {str(example.id): example for example in division.beyond.examples} if division.beyond else {}
    return Prompts(
        search, [_part(run_dir, number, part, labels) for number, part in enumerate(division.shards)], beyond, place
    )


def _part(run_dir: RunDir, number: int, task: Task, labels: Mapping[str, int]) -> Part | None:
    recorded = read_json(run_dir.lengths(number), dict[str, list[int]])
    if recorded is None or len(recorded.get("demonstrations", ())) != len(task.examples):
        return None
    own = np.array([labels.get(str(example.id), -1) for example in task.examples], dtype=LabelNumber)
    return Part(task, own, np.array(recorded["demonstrations"], dtype=np.int64))
