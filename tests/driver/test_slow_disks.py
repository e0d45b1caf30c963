"""A disk that takes its time does not stop the search: saves are written beside it, one at a time."""

import asyncio
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from icm_hpc.driver import run
from icm_hpc.scoring.client import Client
from tests import offline
from tests.offline import OfflineClient

ARGUMENTS = ("task.limit=12", "search.method=single", "search.steps=200", "search.memo_mb=0", "run.save_interval_s=0")
ASKED = 3  # requests that must come while a sync lasts


class Counted(OfflineClient):
    """Tells a disk how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        await asyncio.sleep(0.001)
        self.asked.release()
        return await super().label_logprobs(prompts, label_ids)


async def test_a_sync_lasts_until_more_was_asked_and_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain, _ = await offline.label(tmp_path / "plain", *ARGUMENTS)
    settings, run_dir, _ = offline.prepare(tmp_path / "slow", *ARGUMENTS)
    client, sync, lasted, writing = Counted(), os.fsync, 0, threading.Lock()

    def slow(handle: int) -> None:
        nonlocal lasted
        assert threading.current_thread() is not threading.main_thread(), "the search waits for the disk"
        place = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
        if "state-" in place and lasted < 3:
            assert writing.acquire(blocking=False), "two saves at a time"
            assert all(client.asked.acquire(timeout=30) for _ in range(ASKED)), "the search stands still"
            lasted += 1
            writing.release()
        sync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    await run.label(settings, run_dir, cast(Client, client), lambda _: None)
    assert lasted == 3
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()
    traces = [(one.shard(0) / "trace.jsonl").read_bytes() for one in (plain, run_dir)]
    assert traces[0] == traces[1]
