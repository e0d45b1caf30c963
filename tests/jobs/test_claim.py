"""A run's folder: who takes it, and what a refused submit or resume leaves in it."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from icm_hpc import scheduler
from icm_hpc.config import loading
from icm_hpc.errors import ClusterError, ConfigError
from icm_hpc.jobs import claim, launch
from icm_hpc.rundir.files import write_atomically
from icm_hpc.rundir.folder import RunDir
from tests.external import submit as command
from tests.fake_slurm import FakeSlurm, made

CHANGES = 10  # of the folder, when a submit replaces the settings and data of one before it
KILLED = 9
SMALL = ("model=stub", "task.limit=12", "search.steps=5")


@pytest.fixture
def slurm_here(tmp_path: Path) -> FakeSlurm:
    """Return an sbatch that queues everything as job 4242, and a queue that has forgotten it."""
    fake = made(tmp_path / "bin")
    fake.sbatch("Submitted batch job 4242")
    for name in ("squeue", "sacct", "scontrol", "srun"):
        fake.command(name, "#!/bin/bash\nexit 0\n")
    return fake


def of_run(folder: Path) -> dict[str, bytes]:
    """Return the config.yaml of each run."""
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/config.yaml"))}


def test_names_made_up_in_one_second_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _form: "20250101-000000")
    name = launch.named(loading.load([*SMALL, f"run.root={tmp_path}"])).run.name
    paths = [claim.unused(RunDir(tmp_path / "runs" / name)).path.name for _ in range(3)]
    assert paths == [name, f"{name}-2", f"{name}-3"]


def test_two_submits_in_one_second_are_two_runs(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "icm_hpc.submit", *SMALL, f"run.root={tmp_path}"]
    both = [subprocess.Popen([*argv, f"search.seed={seed}"], stdout=subprocess.PIPE, text=True) for seed in (1, 2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    seeds = [loading.load_file(path).search.seed for path in tmp_path.glob("*/config.yaml")]
    assert sorted(seeds) == [1, 2]


def test_of_two_submits_of_one_name_one_wins_and_the_other_says_why(tmp_path: Path) -> None:
    slow = (*SMALL, "model.vllm_args.delay-ms=100", f"run.root={tmp_path}", "run=mine")
    argv = [sys.executable, "-m", "icm_hpc.submit", *slow]
    both = [subprocess.Popen([*argv, f"search.seed={seed}"], stderr=subprocess.PIPE, text=True) for seed in (1, 2)]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    winner, loser = sorted((0, 1), key=lambda i: both[i].returncode)
    assert re.search("is being started by another submit|is in use|belongs to a run of another", said[loser])
    assert loading.load_file(tmp_path / "mine" / "config.yaml").search.seed == (1, 2)[winner]


def test_a_second_submit_is_kept_out_while_the_first_is_at_work(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "mine")
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(ConfigError) as error, claim.alone(run_dir):
            pass
        refused.append(str(error.value))

    with claim.alone(run_dir):
        other = threading.Thread(target=second)
        other.start()
        other.join()
    assert "is being started by another submit or resume" in refused[0]
    with claim.alone(run_dir):
        pass


def test_a_submit_that_slurm_refuses_leaves_no_settings_behind(tmp_path: Path, slurm_here: FakeSlurm) -> None:
    words = (*SMALL, "cluster=slurm", f"run.root={tmp_path}/runs", "run=mine")
    slurm_here.command("sbatch", "#!/bin/bash\necho no such partition >&2\nexit 1\n")
    refused = command(*words, **slurm_here.variables)
    assert "this cluster cannot start the job" in refused.stderr
    assert not (tmp_path / "runs").exists()
    only_tests = '#!/bin/bash\nif [ "$1" = --test-only ]; then exit 0; fi\necho over quota >&2\nexit 1\n'
    slurm_here.command("sbatch", only_tests)
    assert "over quota" in command(*words, **slurm_here.variables).stderr
    assert of_run(tmp_path / "runs") == {}
    slurm_here.sbatch("Submitted batch job 4242")
    done = command(*words, "search.alpha=9", **slurm_here.variables)
    assert "job      4242" in done.stdout, done.stderr
    assert list(of_run(tmp_path / "runs")) == ["mine"]


def test_a_resume_that_is_refused_leaves_the_runs_settings_as_they_were(tmp_path: Path, slurm_here: FakeSlurm) -> None:
    root = f"run.root={tmp_path}/runs"
    assert command(*SMALL, root, "run=mine", **slurm_here.variables).returncode == 0
    before = of_run(tmp_path / "runs")
    more = ("run=mine", root, "search.steps=9")
    for sbatch, words in (
        ("exit 1", ("cluster=slurm",)),
        ('[ "$1" = --test-only ] || exit 1', ("cluster=slurm",)),
        ("exit 0", ("search.alpha=9",)),
        ("exit 0", ("model.max_model_len=100",)),
        ("exit 0", ("cluster.time_min=soon",)),
        ("exit 0", ("dry_run=true",)),
    ):
        slurm_here.command("sbatch", f"#!/bin/bash\n{sbatch}\n")
        command(*more, *words, module="resume", **slurm_here.variables)
        assert of_run(tmp_path / "runs") == before, words
    done = command(*more, module="resume", **slurm_here.variables)
    assert done.returncode == 0, done.stderr
    assert of_run(tmp_path / "runs") != before


def test_settings_are_put_back_if_sbatch_refuses_and_kept_if_a_job_may_be_queued(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    run_dir.config.write_bytes(b"old")
    with pytest.raises(ClusterError), claim.written(run_dir, {run_dir.config: b"new"}):
        raise ClusterError("no")
    assert run_dir.config.read_bytes() == b"old"
    with pytest.raises(ClusterError), claim.written(run_dir, {run_dir.config: b"new"}):
        raise scheduler.UnknownJob("perhaps")
    assert run_dir.config.read_bytes() == b"new"


def test_what_cannot_be_written_is_refused_and_what_was_there_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = of_old_settings(tmp_path)
    full = iter([True])

    def on_a_full_disk(path: Path, content: bytes) -> None:
        if path == run_dir.data and next(full, False):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write_atomically(path, content)

    monkeypatch.setattr(claim, "write_atomically", on_a_full_disk)
    with pytest.raises(ConfigError, match=r"cannot be written: .*quota"), claim.written(run_dir, new_files(run_dir)):
        pytest.fail("a job is queued")
    assert files_of(run_dir) == dict.fromkeys(("config.yaml", "gold.json", "data.jsonl.gz"), b"old")


@pytest.mark.parametrize("operation", range(CHANGES + 1))
def test_a_start_that_is_killed_leaves_no_settings_beside_the_data_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    run_dir = of_old_settings(tmp_path)
    numbers = count()

    def killed_at(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*arguments: Any, **more: Any) -> None:
            if next(numbers) == operation:
                os._exit(KILLED)
            change(*arguments, **more)

        return changed

    child = os.fork()
    if not child:
        try:
            for place, name in ((claim, "write_atomically"), (claim, "fsync_folder"), (Path, "unlink")):
                monkeypatch.setattr(place, name, killed_at(getattr(place, name)))
            with claim.written(run_dir, new_files(run_dir)):
                pass
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (KILLED if operation < CHANGES else 0)
    found = files_of(run_dir)
    config = found.pop("config.yaml")
    assert set(found.values()) <= {config}
    assert "data.jsonl.gz" not in found or "gold.json" in found


def of_old_settings(folder: Path) -> RunDir:
    """Return a run that was submitted and never started."""
    run_dir = RunDir(folder / "mine")
    run_dir.create()
    for path in (run_dir.config, run_dir.gold, run_dir.data):
        path.write_bytes(b"old")
    return run_dir


def new_files(run_dir: RunDir) -> dict[Path, bytes]:
    """Return what another submit of its name writes."""
    return dict.fromkeys((run_dir.config, run_dir.gold, run_dir.data), b"new")


def files_of(run_dir: RunDir) -> dict[str, bytes]:
    """Return the files of a run's folder."""
    return {path.name: path.read_bytes() for path in run_dir.path.iterdir() if path.is_file()}


def test_a_root_that_is_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "purged" / "scratch")
    for words in ((), ("run=mine",)):
        refused = command(*SMALL, f"run.root={tmp_path}/runs", *words)
        assert "is a file, or a link to nothing" in refused.stderr, refused.stderr
        assert refused.stderr.startswith("icm_hpc: run.root: the folder")


def test_words_that_the_terminal_lacks_are_shown_as_their_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"Text {i}."} for i in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    described = {"data": "rows.json", "prompt": "{text}", "labels": ["\u597d", "\u574f"]}
    (tmp_path / "mine.yaml").write_text(json.dumps({"task": described}))
    words = ("model=stub", f"task={tmp_path}/mine.yaml", f"run.root={tmp_path}/runs", "run=mine")
    done = command(*words, PYTHONIOENCODING="latin-1")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "'\\u597d'" in done.stdout


def test_what_an_earlier_start_learnt_of_its_server_goes_with_it_unless_scores_are_saved(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    of_server = (run_dir.served_model, run_dir.measured, run_dir.word_prior, run_dir.label_prior)
    run_dir.labels.write_text("")
    for path in of_server:
        path.write_text("{}")
    with claim.written(run_dir, {}):
        assert all(path.exists() for path in of_server)
    run_dir.labels.unlink()
    with claim.written(run_dir, {}):
        assert not any(path.exists() for path in of_server)


def test_a_run_without_saved_state_may_be_changed_freely(tmp_path: Path) -> None:
    config = loading.load([*SMALL, "model.max_model_len=100", f"run.root={tmp_path}", "run=mine"])
    run_dir = RunDir(tmp_path / "mine")
    run_dir.create()
    run_dir.config.write_text(loading.to_yaml(config))
    refused = command("run=mine", f"run.root={tmp_path}", module="resume")
    remedy = shlex.split(refused.stderr.splitlines()[-1])
    assert any(word.startswith(("search.pool_size=", "model.max_model_len=")) for word in remedy)
    done = command(*remedy[3:], module="resume")
    assert done.returncode == 0, done.stderr
    refused = command("run=mine", f"run.root={tmp_path}", "search.alpha=9", "search.steps=9", module="resume")
    assert "belongs to a run of another configuration" in refused.stderr


def test_a_cluster_preset_that_is_chosen_for_a_resume_replaces_the_whole_section(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    (tmp_path / "old.yaml").write_text(
        "cluster: {executor: slurm, account: a, qos: q, driver_partition: p, gpu: H100}\n"
    )
    (tmp_path / "new.yaml").write_text("cluster: {executor: slurm, account: b}\n")
    old = loading.load(["model=stub", f"cluster={tmp_path}/old.yaml", "cluster.max_nodes=3", "server.cpus=3"])
    saved.write_text(loading.to_yaml(old))
    new = loading.load_file(saved, [f"cluster={tmp_path}/new.yaml", "cluster.time_min=7"])
    assert new.cluster == loading.load([f"cluster={tmp_path}/new.yaml", "cluster.time_min=7"]).cluster
    assert (new.cluster.account, new.cluster.qos, new.cluster.driver_partition, new.server.cpus) == ("b", None, None, 3)
    kept = loading.load_file(saved, ["cluster.driver_partition=other"]).cluster
    assert (kept.account, kept.qos, kept.driver_partition, kept.max_nodes) == ("a", "q", "other", 3)


def test_another_models_preset_that_is_chosen_for_a_resume_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text(loading.to_yaml(loading.load(["model=smol", "model.max_num_seqs=7", "server.url=http://h:1"])))
    new = loading.load_file(saved, ["model=8B"])
    assert new.model == loading.load(["model=8B"]).model
    assert (new.server.cpus, new.server.gpus_per_node, new.server.url) == (8, None, "http://h:1")
    assert loading.load_file(saved, ["model=smol"]).model.max_num_seqs == 64


def test_a_path_replaces_embedded_weights_and_embedded_weights_a_path() -> None:
    alone = loading.load(["model.path=/weights/My-Model/"]).model
    assert (alone.name, alone.path, alone.embedded) == ("My-Model", "/weights/My-Model/", None)
    named = loading.load(["model=smol", "model.path=x/y"]).model
    assert (named.name, named.path, named.embedded) == ("smol", "x/y", None)
    shaped = loading.load(["model=70B", "model.path=/w"]).model
    assert shaped.shape, "a copy of the preset's weights has the shape of these"
    embedded = loading.load(["model=70B", "model.embedded=tiny"]).model
    assert (embedded.path, embedded.embedded, embedded.shape) == ("", "tiny", {})
    with pytest.raises(ConfigError, match=r"model.path=x and model.embedded=tiny both name weights: give one of them"):
        loading.load(["model.path=x", "model.embedded=tiny"])
    with pytest.raises(ConfigError, match=r"model.path: no weights are named"):
        loading.load(["model.embedded=null"])
