"""A run of many shards whose starts are short: each makes progress, and no work is done twice that could be saved."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from aiohttp.test_utils import TestServer

from icm_hpc.config.schema import Config
from icm_hpc.core.memo import KNOWN
from icm_hpc.core.types import State
from icm_hpc.driver import run
from icm_hpc.engines import stub
from icm_hpc.errors import CheckpointError
from icm_hpc.monitoring import finished
from icm_hpc.rundir import checkpoint, outcome, sealed
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring import checks
from icm_hpc.scoring.client import Client
from icm_hpc.tasks import packing
from tests import offline
from tests.conftest import prepare_run
from tests.external import KEY
from tests.offline import OfflineClient

SHARDS = ("task.limit=96", "search.pool_size=4", "search.steps=12", "search.num_seeds=4", "search.schedule=constant")
SINGLE = (*SHARDS, "search.method=single", "search.initial_temperature=10")
LOST = 4 * 4  # prompts of a start, at most: four requests are in flight at its end, each of the four examples of a pool
REQUESTS = (1, 3, 7, 15, 60)  # of a start


class Impatient(OfflineClient):
    """Hangs after so many requests, as a server does whose job is preempted."""

    def __init__(self, requests: int) -> None:
        super().__init__()
        self.left, self.preempted = requests, asyncio.Event()

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Answer, or never; other searches go on meanwhile."""
        asked = list(prompts)
        await asyncio.sleep(0)
        self.left -= 1
        if self.left < 0:
            self._noted(asked)
            for _ in range(50):  # turns of the loop, in which what it has answered is taken in
                await asyncio.sleep(0)
            self.preempted.set()
            await asyncio.Event().wait()
        return await super().label_logprobs(asked, label_ids)


async def start(
    config: Config, run_dir: RunDir, requests: int, at_the_end: Callable[[], object] = lambda: None
) -> tuple[bool, OfflineClient]:
    """Start the run, and stop it after so many requests; return whether it came to its end."""
    client = Impatient(requests)
    work = asyncio.ensure_future(run.label(config, run_dir, cast(Client, client), lambda _: None))
    stopped = asyncio.ensure_future(client.preempted.wait())
    await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    at_the_end()
    for pending in (work, stopped):
        pending.cancel()
    ends = await asyncio.gather(work, stopped, return_exceptions=True)
    if isinstance(ends[0], Exception):
        raise ends[0]
    return isinstance(ends[0], dict), client


def saved(run_dir: RunDir) -> tuple[int, int, int]:
    """Return the finished shards, and the steps and answers that are saved."""
    finished = len(list(run_dir.path.glob(f"shard-*/{outcome.NAME}")))
    steps = answers = 0
    for folder in run_dir.path.glob("shard-*"):
        newest = checkpoint._newest(folder, State)[0]
        found = newest and checkpoint.load(folder, newest.fingerprint)
        if found:
            steps += found.reached.step + 1 if found.reached else 0
            answers += sum(int((one.lengths != KNOWN).sum()) for one in found.memo)
    return finished, steps, answers


@pytest.mark.parametrize("shards", [SINGLE, SHARDS], ids=["single", "blocks"])
@pytest.mark.parametrize("requests", REQUESTS)
async def test_a_run_of_many_shards_makes_progress_in_every_start_however_short(
    tmp_path: Path, requests: int, shards: tuple[str, ...]
) -> None:
    _, plain, undisturbed = await offline.label(tmp_path / "plain", *shards)
    settings, run_dir, _ = offline.prepare(tmp_path / "short", *shards)
    starts, prompts, ended, before = 0, 0, False, (0, 0, 0)
    while not ended:
        ended, client = await start(settings, run_dir, requests)
        starts, prompts = starts + 1, prompts + len(client.prompts)
        now = saved(run_dir)
        assert now != before
        assert all(new >= old for new, old in zip(now, before, strict=True)), "nothing saved is lost"
        before = now
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()
    for number in range(24):
        traces = [(one.shard(number) / "trace.jsonl").read_bytes() for one in (plain, run_dir)]
        assert traces[0] == traces[1]
    figures = [json.loads(one.summary.read_text())["shards"] for one in (plain, run_dir)]
    assert figures[0] == figures[1]
    assert prompts <= len(undisturbed.prompts) + LOST * starts
    assert finished.is_finished(run_dir, settings)


def copy_as_killed(folder: Path, other: Path) -> None:
    """Copy a run's folder while threads save in it; a save is seen whole or not at all, since its generation is listed last."""

    def copy(source: str, target: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # of a generation that has become old
            shutil.copy2(source, target)

    shutil.copytree(folder, other, ignore=shutil.ignore_patterns(".*"), copy_function=copy)


def kill_once_saved(run_dir: RunDir, killed: RunDir, before: tuple[int, int, int]) -> None:
    """Copy a run's folder as a kill leaves it, once a save that its threads do has ended, within a minute."""
    until = time.monotonic() + 60
    copy_as_killed(run_dir.path, killed.path)
    while saved(killed) <= before and time.monotonic() < until:
        time.sleep(0.01)
        shutil.rmtree(killed.path)
        copy_as_killed(run_dir.path, killed.path)


async def test_starts_that_are_killed_outright_make_progress_by_what_they_save_on_a_timer(tmp_path: Path) -> None:
    _, plain, undisturbed = await offline.label(tmp_path / "plain", *SHARDS)
    settings, run_dir, _ = offline.prepare(tmp_path / "0", *SHARDS, "run.save_interval_s=0")
    prompts, ended, number, before = 0, False, 0, (0, 0, 0)
    while not ended:
        number += 1
        killed = RunDir(tmp_path / str(number))
        ended, client = await start(settings, run_dir, 12, lambda: kill_once_saved(run_dir, killed, before))  # noqa: B023
        prompts += len(client.prompts)
        if not ended:
            assert saved(killed) > before
            run_dir, before = killed, saved(killed)
    assert number > 5
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()
    assert prompts <= 1.8 * len(undisturbed.prompts), (number, prompts, len(undisturbed.prompts))


@pytest.mark.parametrize("scorings", [2, 4, 9])
async def test_starts_that_are_stopped_under_a_limit_end_as_one_that_never_was(tmp_path: Path, scorings: int) -> None:
    limited = ("task=topics", "task.limit=64", f"search.scorings={scorings}")
    _, plain, _ = await offline.label(tmp_path / "plain", *limited)
    settings, run_dir, _ = offline.prepare(tmp_path / "short", *limited)
    starts, ended = 0, False
    while not ended:
        ended, _ = await start(settings, run_dir, 2)
        starts += 1
    assert starts > 2
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()
    traces = [(one.shard(0) / "trace.jsonl").read_bytes() for one in (plain, run_dir)]
    assert traces[0] == traces[1]


async def test_without_a_memo_short_starts_end_with_the_same_labels(tmp_path: Path) -> None:
    _, plain, _ = await offline.label(tmp_path / "plain", *SHARDS)
    settings, run_dir, _ = offline.prepare(tmp_path / "short", *SHARDS, "search.memo_mb=0")
    ended = False
    while not ended:
        ended, _ = await start(settings, run_dir, 40)
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()


async def test_for_a_finished_shard_no_prompt_is_sent_and_no_text_tokenized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, run_dir, _ = await offline.label(tmp_path, *SHARDS)
    labels = run_dir.labels.read_bytes()
    run_dir.labels.unlink()

    async def tokenize(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(OfflineClient, "tokenize", tokenize)
    again, _, client = await offline.label(tmp_path, *SHARDS)
    assert client.prompts == []
    assert run_dir.labels.read_bytes() == labels
    assert again["shards"] == summary["shards"]


@pytest.mark.parametrize("more", ["search.steps=20", "search.restarts=2"])
async def test_more_steps_or_restarts_are_done_though_the_shards_were_finished(tmp_path: Path, more: str) -> None:
    await offline.label(tmp_path / "short", *SHARDS)
    found, run_dir, client = await offline.label(tmp_path / "short", *SHARDS, more)
    whole, plain, _ = await offline.label(tmp_path / "whole", *SHARDS, more)
    assert client.prompts
    assert run_dir.labels.read_bytes() == plain.labels.read_bytes()
    assert found["shards"] == whole["shards"]


@pytest.mark.parametrize("cut", [True, False])
async def test_a_damaged_outcome_is_set_aside_and_its_last_pass_done_again(tmp_path: Path, *, cut: bool) -> None:
    _, run_dir, _ = await offline.label(tmp_path, *SHARDS)
    labels, path = run_dir.labels.read_bytes(), run_dir.shard(3) / outcome.NAME
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content[:700] if cut else content)
    _, _, client = await offline.label(tmp_path, *SHARDS)
    assert path.with_suffix(sealed.DAMAGED).exists()
    assert run_dir.labels.read_bytes() == labels
    assert client.prompts == [], "the last pass is remembered"


async def test_finished_shards_of_another_configuration_are_refused(tmp_path: Path) -> None:
    await offline.label(tmp_path, *SHARDS)
    with pytest.raises(CheckpointError, match=r"search\.alpha: 30\.0 there, 7\.0 here"):
        await offline.label(tmp_path, *SHARDS, "search.alpha=7")


async def test_shards_of_an_older_packing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(packing, "pack", lambda sizes, _: [[n, n + 1] for n in range(0, len(sizes), 2)][::-1])
        await offline.label(tmp_path, *SHARDS)
    with pytest.raises(CheckpointError, match=r"data_sha256: .* there, .* here"):
        await offline.label(tmp_path, *SHARDS)


async def test_shards_that_were_begun_end_before_others_begin(tmp_path: Path) -> None:
    settings, run_dir, _ = offline.prepare(tmp_path, *SHARDS)
    await start(settings, run_dir, 60)
    begun = {folder.name for folder in run_dir.path.glob("shard-*")}
    assert 4 < len(begun) < 24
    finished = {path.parent.name for path in run_dir.path.glob(f"shard-*/{outcome.NAME}")}
    assert len(begun - finished) <= 4, "as many as run at one time"


async def test_a_prompt_of_full_length_is_timed_in_the_first_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    caplog.set_level("INFO")
    async with TestServer(stub.application(model="theirs", max_model_len=10**6, key=KEY)) as server:
        for steps in (2, 4):
            url = f"server.url={server.make_url('')}"
            settings, run_dir = prepare_run(tmp_path, "model=tiny", "task.limit=8", url, f"search.steps={steps}")
            await run.run(settings, run_dir, attempt=f"a{steps}", stop=asyncio.Event(), watch=lambda _: None)
    assert caplog.text.count(checks.LABELS) == 2, "what can change is checked in each"
    assert caplog.text.count(checks.CLOCK) == 1
