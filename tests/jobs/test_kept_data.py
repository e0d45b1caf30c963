"""A run keeps the data as it read them: what happens to their file afterwards changes nothing, and is said."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import tasks
from icm_hpc.capacity import disks, plan
from icm_hpc.config import loading as configs
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.jobs import launch as submission
from icm_hpc.rundir.folder import RunDir
from icm_hpc.tasks import gold
from tests.test_submit import submit

ROWS: list[dict[str, Any]] = [
    {"id": i, "question": f"Q{i // 2}?", "choice": f"c{i}", "exclusion_group": i // 2, "label": i % 2} for i in range(8)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of claims."""
    path = tmp_path / "claims.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def run(folder: Path, data: Path, *arguments: str) -> Any:
    """Label the claims in a run named mine."""
    return submit("model=stub", "task=claims", f"task.data={data}", f"run.root={folder}", "run=mine", *arguments)


def test_a_run_keeps_examples_without_gold_and_gold_apart_for_its_owner_only(tmp_path: Path, data: Path) -> None:
    assert run(tmp_path, data, "search.steps=5").returncode == 0
    kept, labels = tmp_path / "mine" / "data.jsonl.gz", tmp_path / "mine" / "gold.json"
    assert {path.stat().st_mode & 0o777 for path in (kept, labels)} == {0o600}
    config = TaskConfig(name="claims", data=str(data))
    assert tasks.load(config, seed=5, copy=kept).examples == tasks.load(config, seed=0).examples
    assert gold.unpacked(labels) == gold.load(config)
    assert "label" not in gzip.decompress(kept.read_bytes()).decode()


def test_an_id_that_is_a_number_is_one_in_the_labels(tmp_path: Path, data: Path) -> None:
    assert run(tmp_path, data, "search.steps=5").returncode == 0
    lines = (tmp_path / "mine" / "labels.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == list(range(8))


@pytest.mark.parametrize("fate", ["gone", "changed", "moved"])
def test_a_run_goes_on_and_is_evaluated_whatever_happens_to_its_file(tmp_path: Path, data: Path, fate: str) -> None:
    assert run(tmp_path, data, "search.steps=5").returncode == 0
    before = submit("run=mine", f"run.root={tmp_path}", "json=true", command="evaluate").stdout
    if fate == "moved":
        data.rename(tmp_path / "elsewhere.jsonl")
    elif fate == "gone":
        data.unlink()
    else:
        data.write_text("\n".join(json.dumps({**row, "choice": "other", "label": 1 - row["label"]}) for row in ROWS))
    evaluated = submit("run=mine", f"run.root={tmp_path}", "json=true", command="evaluate")
    assert evaluated.stdout == before
    assert json.loads(before)["labelled"] == 8
    resumed = submit("run=mine", f"run.root={tmp_path}", "search.steps=9", command="resume")
    assert resumed.returncode == 0, resumed.stderr
    how = "has changed since this run was submitted" if fate == "changed" else "cannot be read any more"
    assert f"{data} {how}: the run goes on with its own copy" in resumed.stdout
    assert "agreement with gold" in resumed.stdout


def test_a_run_of_ones_own_task_goes_on_without_the_files_that_describe_it(tmp_path: Path) -> None:
    data, task = tmp_path / "shop.csv", tmp_path / "shop.yaml"
    data.write_text("text,stars\n" + "".join(f"Review {i}.,{i % 2}\n" for i in range(8)))
    task.write_text(
        'task: {data: shop.csv, columns: {label: stars}, prompt: "{text}\\nGood:", labels: [" no", " yes"]}'
    )
    arguments = ("model=stub", f"task={task}", f"run.root={tmp_path}", "run=mine", "search.steps=5")
    assert submit(*arguments, "search.method=single").returncode == 0
    task.unlink()
    data.unlink()
    resumed = submit("run=mine", f"run.root={tmp_path}", "search.steps=9", command="resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{data} cannot be read any more: the run goes on with its own copy" in resumed.stdout
    assert "of 8 (one label for all" in resumed.stdout
    assert json.loads((tmp_path / "mine" / "summary.json").read_text())["steps"] == 9


def test_a_resumed_run_whose_file_is_as_it_was_says_nothing_of_it(tmp_path: Path, data: Path) -> None:
    assert run(tmp_path, data, "search.steps=5").returncode == 0
    resumed = submit("run=mine", f"run.root={tmp_path}", "search.steps=9", command="resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "copy" not in resumed.stdout


def test_a_run_may_go_on_with_the_file_under_another_name_but_not_with_another(tmp_path: Path, data: Path) -> None:
    assert run(tmp_path, data, "search.method=single", "search.steps=5").returncode == 0
    moved, other = data.rename(tmp_path / "moved.jsonl"), tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({**row, "choice": "other"}) for row in ROWS))
    assert run(tmp_path, moved, "search.method=single", "search.steps=9").returncode == 0
    for refused in (
        run(tmp_path, other, "search.method=single", "search.steps=12"),
        submit("run=mine", f"run.root={tmp_path}", f"task.data={other}", "search.steps=12", command="resume"),
    ):
        assert refused.returncode == 1
        assert f"belongs to a run of other data than {other} holds now: choose another run.name" in refused.stderr


def test_a_malformed_gold_label_is_a_note_and_the_run_goes_on(tmp_path: Path, data: Path) -> None:
    data.write_text(
        "\n".join(json.dumps({**row, "label": "maybe" if row["id"] == 3 else row["label"]}) for row in ROWS)
    )
    done = run(tmp_path, data, "search.steps=5")
    assert done.returncode == 0, done.stderr
    assert "note     1 gold label cannot be used" in done.stdout
    assert "of 7 (one label for all" in done.stdout
    tried = run(tmp_path, data, "dry_run=true")
    assert tried.stdout.startswith("#!")
    planned = submit("model=stub", "task=claims", f"task.data={data}", "task.draw=blocks", command="plan")
    assert planned.returncode == 0


def test_rows_that_are_dropped_and_rules_that_find_no_pair_are_said_by_plan_and_submit(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    pairs = [("It is.", "Not."), ("Same.", "Same."), ("So.", "No.")]
    rows = [{"prompt": f"Q{i}?", "chosen": one, "rejected": other} for i, (one, other) in enumerate(pairs)]
    data.write_text("\n".join(map(json.dumps, rows)))
    arguments = ("model=stub", "task=comparison", f"task.data={data}", f"run.root={tmp_path}", "search.steps=5")
    dropped = f"1 row dropped: both answers are the same, first is {data}, line 2"
    assert dropped in submit(*arguments).stdout
    assert dropped in submit(*arguments, command="plan").stdout
    assert dropped in submit(*arguments, "dry_run=true").stderr
    data.write_text("\n".join(json.dumps({"question": f"Q{i}", "choice": "c"}) for i in range(4)))
    arguments = ("model=stub", "task=claims", f"task.data={data}", f"run.root={tmp_path}", "search.steps=5")
    words = "no two rows share an exclusion_group, as task=claims expects: the search may collapse to one label"
    assert words in submit(*arguments).stdout
    assert words in submit(*arguments, command="plan").stdout


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bno", gzip.compress(b"[1]"), gzip.compress(b"{")])
def test_a_damaged_copy_is_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.jsonl.gz").write_bytes(content)
    with pytest.raises(TaskError, match=r"data\.jsonl\.gz: the run's copy of its data cannot be read: .+"):
        tasks.load(TaskConfig(name="claims"), seed=0, copy=tmp_path / "data.jsonl.gz")


def test_folders_that_each_machine_has_for_itself_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disks.of_this_machine_only(Path("/tmp/me/runs")) == "/tmp"
    assert disks.of_this_machine_only(Path("/dev/shm/runs")) == "/dev/shm"
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\nnfs:/home /home nfs4 rw 0 0\ntmpfs /home/fast\\040disk tmpfs rw 0 0\n")
    monkeypatch.setattr(disks, "MOUNTS", mounts)
    assert disks.of_this_machine_only(Path("/home/me/runs")) is None
    assert disks.of_this_machine_only(Path("/home/fast disk/runs")) == "/home/fast disk (tmpfs)"


def test_a_slurm_run_in_a_folder_of_this_machine_is_noticed_before_it_is_queued() -> None:
    root = "run.root=/tmp/icm-runs-of-nobody"
    planned = submit("model=stub", "cluster=slurm", "task.limit=12", root, command="plan")
    assert "run.root=/tmp/icm-runs-of-nobody is on /tmp, which each machine has for itself" in planned.stdout
    assert "for itself" not in submit("model=stub", "task.limit=12", root, command="plan").stdout


def test_a_run_without_saved_state_that_is_resumed_with_another_seed_draws_other_examples(tmp_path: Path) -> None:
    words = ("model=stub", "task=reviews", "task.limit=12", f"run.root={tmp_path}", "run=mine")
    before, now = (submission.named(configs.load([*words, f"search.seed={seed}"])) for seed in (0, 1))
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    run_dir.config.write_text(configs.to_yaml(before))
    run_dir.data.write_bytes(tasks.packed(tasks.load(before.task, seed=0)))
    kept, gold_labels = submission._data(before, run_dir, resumed=True)
    assert (kept.sha256(), gold_labels) == (tasks.load(before.task, seed=0).sha256(), None)
    drawn, gold_labels = submission._data(now, run_dir, resumed=True)
    assert drawn.sha256() == tasks.load(now.task, seed=1).sha256() != kept.sha256()
    assert gold_labels is not None


def test_a_name_that_was_made_up_has_nothing_of_the_run_that_it_collides_with(tmp_path: Path) -> None:
    config = submission.named(configs.load(["model=stub", "task.limit=12", f"run.root={tmp_path}", "run=mine"]))
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    run_dir.config.write_text(configs.to_yaml(config))
    run_dir.data.write_bytes(tasks.packed(tasks.load(config.task, seed=0)))
    run_dir.labels.write_text("")
    assert submission._data(config, run_dir, resumed=False)[1] is None, "the run has its copy"
    assert submission._data(config, run_dir, resumed=False, is_new=True)[1], "the new one gets its own"


def test_other_label_words_do_not_need_the_file_that_a_run_was_made_of(tmp_path: Path, data: Path) -> None:
    words = ("model=stub", "task=claims", f"task.data={data}", f"run.root={tmp_path}", "run=mine")
    before, now = (
        submission.named(configs.load([*words, *more])) for more in ((), ("task.label_words=[' no',' yes']",))
    )
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    run_dir.config.write_text(configs.to_yaml(before))
    run_dir.data.write_bytes(tasks.packed(tasks.load(before.task, seed=0)))
    data.unlink()
    task, _ = submission._data(now, run_dir, resumed=True)
    assert task.label_words == (" no", " yes")


def test_what_would_fit_a_resumed_run_is_planned_with_its_copy_of_the_data(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", "http://gpu7:8000")  # which a resume does not look at
    config = submission.named(
        configs.load(["model=stub", "task=claims", f"task.data={data}", f"run.root={tmp_path}", "run=mine"])
    )
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    run_dir.config.write_text(configs.to_yaml(config))
    run_dir.data.write_bytes(tasks.packed(tasks.load(config.task, seed=0)))
    data.unlink()
    command = plan.Command("resume", ("run=mine", f"run.root={tmp_path}"), run_dir.config)
    assert command.settings().external_url is None
    planned = plan._planned(command)
    assert planned is not None
    assert planned.fits, planned.misfits
