"""Held-out rows: no search sees them, each condition shows its labels of the pool, and nothing is asked twice."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from icm_hpc import tasks
from icm_hpc.config import loading
from icm_hpc.config.schema import CONDITIONS, Config
from icm_hpc.driver import run
from icm_hpc.driver.counting import Counts
from icm_hpc.engines import stub
from icm_hpc.errors import NoAnswer, TaskError
from icm_hpc.heldout import conditions, label, results, rows
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.progress import Progress
from icm_hpc.scoring import connect
from icm_hpc.scoring.client import Client
from icm_hpc.tasks import gold
from icm_hpc.tasks.rows import GOLD
from tests import offline
from tests.conftest import Served
from tests.offline import OfflineClient

SETTINGS = ("task=claims", "search.restarts=2")
LAST = Progress(1, 1, 2, 2, (1, 1), 0.0, 0, 0, 0.0)


def claims(folder: Path, name: str, numbers: range, **changed: Any) -> Path:
    """Write claims with gold labels, four to a question."""
    path = folder / name
    lines = [
        {"question": f"Q{i // 4}?", "choice": f"It is {i}.", "consistency_id": i // 4, GOLD: i // 2 % 2, **changed}
        for i in numbers
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def prepare(folder: Path, *arguments: str) -> tuple[Config, RunDir, OfflineClient]:
    """Return a run with its copies of its rows, as submit makes it."""
    config, run_dir, client = offline.prepare(folder, *arguments)
    task = tasks.load(config.task, seed=0)
    test = rows.of_run(config, run_dir, task, is_new=True)
    run_dir.data.write_bytes(tasks.packed(task))
    ids = {str(example.id) for example in task.examples}
    run_dir.gold.write_bytes(gold.packed({id_: one for id_, one in gold.load(config.task).items() if id_ in ids}))
    for path, content in rows.files(config, run_dir, test).items():
        path.write_bytes(content)
    return config, run_dir, cast(OfflineClient, client)


def done_of(config: Config, run_dir: RunDir) -> dict[str, conditions.Done]:
    """Return the conditions that are done, of the run's labels as they are."""
    return conditions.done(run_dir, conditions.mark_of(config, *conditions.tasks_of(run_dir, config)))


def labelled(config: Config, run_dir: RunDir, client: OfflineClient) -> list[Any]:
    """Run to the end; return the prompts of the held-out evaluation."""

    async def both() -> list[Any]:
        counts, server = Counts(traffic=client.traffic), cast(Client, client)
        await run.label(config, run_dir, server, lambda _: None, counts)
        searched = len(client.prompts)
        await label.label(config, run_dir, server, counts, watch=lambda _: None, last=LAST)
        return client.prompts[searched:]

    return asyncio.run(both())


def shares(folder: Path, share: float = 0.5, **more: str) -> tuple[str, ...]:
    """Return the settings of a run whose held-out rows are a share of its data."""
    data = claims(folder, "rows.jsonl", range(32))
    return (*SETTINGS, f"task.data={data}", f"task.test_share={share}")


def test_each_condition_labels_every_row_by_the_labels_of_the_pool(tmp_path: Path) -> None:
    config, run_dir, client = prepare(tmp_path, *shares(tmp_path))
    labelled(config, run_dir, client)
    done = done_of(config, run_dir)
    assert tuple(done) == CONDITIONS
    assert {name: len(one.seeds) for name, one in done.items()} == {
        "icm": 2, "gold": 1, "zero_shot": 1, "random": 2, "bootstrap": 2
    }  # fmt: skip
    found = results.of_run(config, run_dir)
    assert found is not None
    assert (found.rows, found.compared, found.missing) == (16, 16, [])
    assert len(found.tests) == 10
    keys = set(json.loads(run_dir.labels.read_text().splitlines()[0]))
    for name, one in done.items():
        for seed in one.seeds:
            lines = conditions.labels_of(run_dir, name, seed).read_text().splitlines()
            assert [set(json.loads(line)) for line in lines] == [keys] * 16, "the columns are those of labels.jsonl"
    assert conditions.is_finished(run_dir, config)


def test_a_row_is_shown_the_pool_of_its_condition_and_no_other_held_out_row(tmp_path: Path) -> None:
    config, run_dir, client = prepare(tmp_path, *shares(tmp_path), "evaluate.conditions=[gold]")
    asked = labelled(config, run_dir, client)
    task = tasks.load(config.task, seed=0, copy=run_dir.data)
    known = gold.unpacked(run_dir.gold)
    test = tasks.load_test(config.task, task, seed=0, copy=run_dir.test_data)
    assert test is not None
    shown = {tuple(stub.tokenize(f"{e.text}{task.label_words[known[str(e.id)]]}")) for e in task.examples}
    for prompt, example in zip(asked[-16:], test.examples, strict=True):
        text = stub.tokenize(example.text)
        assert prompt[-len(text) :] == text
        assert all(holds(prompt, one) for one in shown)
        assert sum(holds(prompt, stub.tokenize(other.text)) for other in test.examples) == 1


def holds(prompt: list[int], part: Any) -> bool:
    """Return whether a prompt has these tokens in a row."""
    return any(tuple(prompt[i : i + len(part)]) == tuple(part) for i in range(len(prompt)))


def test_one_row_can_be_held_out_and_a_file_that_is_not_there_is_named_by_its_setting(tmp_path: Path) -> None:
    one, pool = claims(tmp_path, "one.jsonl", range(100, 101)), claims(tmp_path, "pool.jsonl", range(8))
    words = (*SETTINGS, f"task.data={pool}")
    config, run_dir, client = prepare(tmp_path, *words, f"task.test={one}", "evaluate.conditions=[icm]")
    labelled(config, run_dir, client)
    assert len(conditions.labels_of(run_dir, "icm", 0).read_text().splitlines()) == 1
    with pytest.raises(TaskError, match=r"^task\.test=.*none\.jsonl: there is no such file"):
        prepare(tmp_path / "other", *words, f"task.test={tmp_path}/none.jsonl")


def test_no_search_sees_a_held_out_row(tmp_path: Path) -> None:
    data = claims(tmp_path, "rows.jsonl", range(16))
    settings = (*SETTINGS, f"task.data={data}")
    one = prepare(tmp_path / "alone", *settings)
    test = claims(tmp_path, "test.jsonl", range(40, 60))
    other = prepare(tmp_path / "tested", *settings, f"task.test={test}")
    for made in (one, other):
        if made is one:
            asyncio.run(run.label(made[0], made[1], cast(Client, made[2]), lambda _: None))
        else:
            labelled(*made)
    seen = Counter(map(tuple, other[2].prompts[: len(one[2].prompts)]))
    assert (seen == Counter(map(tuple, one[2].prompts))) is True, "the searches run beside one another: in any order"
    for path in ("labels.jsonl", "shard-000/trace.jsonl", "shard-000-restart-1/trace.jsonl"):
        assert (one[1].path / path).read_bytes() == (other[1].path / path).read_bytes()


def test_gold_labels_reach_the_condition_gold_and_nothing_else(tmp_path: Path) -> None:
    data, test = claims(tmp_path, "rows.jsonl", range(16)), claims(tmp_path, "test.jsonl", range(40, 60))
    found = {}
    for name in ("as they are", "flipped"):
        folder = tmp_path / name
        config, run_dir, client = prepare(folder, *SETTINGS, f"task.data={data}", f"task.test={test}")
        if name == "flipped":
            known = gold.unpacked(run_dir.gold)
            run_dir.gold.write_bytes(gold.packed({id_: 1 - one for id_, one in known.items()}))
        labelled(config, run_dir, client)
        files = [path for path in run_dir.path.rglob("*.jsonl") if path.is_file()]
        found[name] = {str(path.relative_to(run_dir.path)): path.read_bytes() for path in files}
    differing = {path for path in found["flipped"] if found["flipped"][path] != found["as they are"][path]}
    assert differing == {"test/gold-0.jsonl"}


def test_what_is_done_is_not_asked_again(tmp_path: Path) -> None:
    config, run_dir, client = prepare(tmp_path, *shares(tmp_path))
    assert labelled(config, run_dir, client)
    assert labelled(config, run_dir, client) == []


@pytest.mark.parametrize("after", [3, 40, 90, 150])
def test_a_stopped_evaluation_ends_as_one_that_was_never_stopped(tmp_path: Path, after: int) -> None:
    whole = prepare(tmp_path / "whole", *shares(tmp_path))
    labelled(*whole)
    config, run_dir, _ = prepare(tmp_path / "stopped", *shares(tmp_path))
    asyncio.run(run.label(config, run_dir, cast(Client, OfflineClient()), lambda _: None))
    with pytest.raises(NoAnswer):
        labelled(config, run_dir, Failing(after))
    again = OfflineClient()
    labelled(config, run_dir, again)
    for path in sorted(whole[1].test.glob("*.jsonl")):
        assert (run_dir.test / path.name).read_bytes() == path.read_bytes()
    assert len(again.prompts) < len(whole[2].prompts)


def test_the_progress_of_an_evaluation_that_goes_on_is_that_of_all_conditions(tmp_path: Path) -> None:
    words = (*shares(tmp_path), "evaluate.conditions=[zero_shot,icm]")
    config, run_dir, client = prepare(tmp_path, *words)
    asyncio.run(run.label(config, run_dir, cast(Client, client), lambda _: None))
    heard: list[tuple[int, int]] = []

    async def go_on(server: OfflineClient) -> None:
        await label.label(
            config,
            run_dir,
            cast(Client, server),
            Counts(traffic=server.traffic),
            watch=lambda now: heard.append((now.applied, now.to_apply)),
            last=LAST,
        )

    with pytest.raises(NoAnswer):
        asyncio.run(go_on(Failing(20)))
    before = list(heard)
    heard.clear()
    asyncio.run(go_on(OfflineClient()))
    assert {total for _, total in (*before, *heard)} == {32}
    assert before[-1][0] <= heard[0][0], "no row is counted as done that is not, and none is done twice"
    assert heard[-1] == (32, 32)


class Failing(OfflineClient):
    """Is lost after so many prompts."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def say(self, prompt: Any, label_ids: Any) -> list[float]:
        """Answer, as long as it is there."""
        self._left -= 1
        if self._left < 0:
            raise NoAnswer("gone", counter="connection")
        return super().say(prompt, label_ids)


def test_a_search_that_goes_on_is_evaluated_again(tmp_path: Path) -> None:
    config, run_dir, client = prepare(tmp_path, *shares(tmp_path), "evaluate.conditions=[icm,zero_shot]")
    labelled(config, run_dir, client)
    longer, _, _ = offline.prepare(
        tmp_path, *shares(tmp_path), "evaluate.conditions=[icm,zero_shot]", "search.restarts=3"
    )
    assert not conditions.is_finished(run_dir, longer)
    found = results.of_run(longer, run_dir)
    assert found is not None
    assert (dict(found.conditions), found.missing) == ({}, ["icm", "zero_shot"]), (
        "figures of other labels are not shown"
    )
    labelled(longer, run_dir, client)
    assert len(done_of(longer, run_dir)["icm"].seeds) == 3
    assert conditions.is_finished(run_dir, longer)


def test_without_gold_labels_of_the_pool_that_condition_is_left_out_and_says_why(tmp_path: Path) -> None:
    data = claims(tmp_path, "rows.jsonl", range(16), **{GOLD: None})
    test = claims(tmp_path, "test.jsonl", range(40, 60))
    config, run_dir, client = prepare(tmp_path, *SETTINGS, f"task.data={data}", f"task.test={test}")
    labelled(config, run_dir, client)
    done = done_of(config, run_dir)
    assert (done["gold"].seeds, done["gold"].left_out) == ((), conditions.NO_GOLD)
    found = results.of_run(config, run_dir)
    assert found is not None
    assert found.conditions["gold"].figures is None
    assert found.conditions["icm"].figures is not None


def test_rows_whose_gold_labels_were_not_written_any_more_are_written_again(tmp_path: Path) -> None:
    config, run_dir, _ = prepare(tmp_path, *shares(tmp_path))
    run_dir.config.write_text(loading.to_yaml(config))
    task = tasks.load(config.task, seed=0, copy=run_dir.data)
    test = rows.of_run(config, run_dir, task, is_new=False)
    assert rows.files(config, run_dir, test) == {}
    gold_labels = run_dir.test_gold.read_bytes()
    run_dir.test_gold.unlink()  # the machine had died between the two
    again = rows.files(config, run_dir, rows.of_run(config, run_dir, task, is_new=False))
    assert again[run_dir.test_gold] == gold_labels


@pytest.mark.parametrize("name", ["conditions.json", "gold-0.jsonl"])
def test_a_damaged_file_of_a_condition_is_reported_and_written_again_without_a_prompt(
    tmp_path: Path, name: str
) -> None:
    config, run_dir, client = prepare(tmp_path, *shares(tmp_path), "evaluate.conditions=[gold,zero_shot]")
    labelled(config, run_dir, client)
    path = run_dir.test / name
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    if name != "conditions.json":
        with pytest.raises(TaskError, match=r"remove it, and resume the run"):
            results.of_run(config, run_dir)
        path.unlink()
    found = results.of_run(config, run_dir)
    assert found is not None
    assert "gold" in found.missing
    assert labelled(config, run_dir, client) == []
    assert (run_dir.test / "gold-0.jsonl").exists()
    assert conditions.is_finished(run_dir, config)


def test_a_baseline_without_a_pool_is_evaluated_without_one(tmp_path: Path) -> None:
    config, run_dir, client = prepare(tmp_path, *shares(tmp_path), "search.method=zero_shot")
    labelled(config, run_dir, client)
    assert list(done_of(config, run_dir)) == ["zero_shot"]


@pytest.mark.vllm
async def test_on_vllm_a_condition_costs_the_pool_once_and_then_the_rows_own_tokens(
    tiny_server: Served, tmp_path: Path
) -> None:
    arguments = ("model=tiny", "task.limit=16", "task.test_share=0.5", "task.test_limit=40", "search.steps=2")
    config, run_dir, _ = prepare(tmp_path, *arguments, "evaluate.conditions=[icm,zero_shot]")
    async with connect.connected(config, tiny_server.run_dir, tiny_server.attempt) as connected:
        client, counts = connected.salted("held out"), Counts()
        counts.traffic = client.traffic
        await run.label(config, run_dir, client, lambda _: None, counts)
        await label.label(config, run_dir, client, counts, watch=lambda _: None, last=LAST)
    done = done_of(config, run_dir)
    icm = done["icm"]
    assert icm.server_computed_tokens is not None
    assert icm.prompts == 40
    assert icm.server_computed_tokens < 0.3 * icm.prompt_tokens, "the pool is in the cache"
    found = results.of_run(config, run_dir)
    assert found is not None
    assert all(one.figures for one in found.conditions.values())


def test_the_shares_of_labels_that_the_run_has_estimated_hold_for_held_out_rows(tmp_path: Path) -> None:
    words = (*shares(tmp_path), "search.label_prior=estimated", "evaluate.conditions=[icm,bootstrap]")
    config, run_dir, client = prepare(tmp_path, *words)
    asked = labelled(config, run_dir, client)
    premise = json.loads(run_dir.label_prior.read_text())["premise"]
    assert client.prompts.count(stub.tokenize(premise)) == 1
    assert stub.tokenize(premise) not in asked
    assert tuple(done_of(config, run_dir)) == ("icm", "bootstrap")
    assert conditions.is_finished(run_dir, config)
    found = results.of_run(config, run_dir)
    assert found is not None
    assert found.missing == []
    assert labelled(config, run_dir, OfflineClient()) == []
