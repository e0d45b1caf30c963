"""What the tests of both priors share: topics, their premise, and servers that fail or answer otherwise."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from icm_hpc import tasks
from icm_hpc.capacity import plan
from icm_hpc.driver import run
from icm_hpc.engines import stub
from icm_hpc.errors import BadAnswer, NoAnswer, TaskError
from tests import offline
from tests.offline import OfflineClient

TOPICS = ("task=topics", "task.limit=24")
PREMISE = stub.tokenize("\nTopic:")


class Lost(OfflineClient):
    """Is gone after so many prompts; answers otherwise to the premise, as another GPU might."""

    def __init__(self, prompts: float, moved: float = 0.0) -> None:
        super().__init__()
        self.left, self.moved = prompts, moved

    def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
        """Answer, or not."""
        self.left -= 1
        if self.left < 0:
            raise NoAnswer("played", counter="connection")
        moved = self.moved if prompt == PREMISE else 0.0
        return [value - place * moved for place, value in enumerate(super().say(prompt, label_ids))]


def silent(unreadable: list[int]) -> Callable[[], OfflineClient]:
    """Return clients that get no score of one prompt."""

    class Silent(OfflineClient):
        def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
            if prompt == unreadable:
                raise BadAnswer("played", counter="logprobs")
            return super().say(prompt, label_ids)

    return Silent


def require_refused_before_it_is_queued(folder: Path, setting: str, refused: str) -> None:
    """Check that a plan and a run of texts without a common end say so, and ask nothing."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": f"It is {word}."}) + "\n" for word in ("good", "bad", "dull", "new")))
    own = (f"task.data={data}", 'task.prompt="{text}"', 'task.labels=[" low"," high"]', setting)
    settings, run_dir, client = offline.prepare(folder, *own)
    with pytest.raises(TaskError, match=refused):
        plan.plan(settings, tasks.load(settings.task, seed=0))
    with pytest.raises(TaskError, match=refused):
        asyncio.run(run.label(settings, run_dir, client, lambda _: None))
    assert cast(OfflineClient, client).prompts == []
