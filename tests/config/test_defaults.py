"""Files of defaults: whose they are, what goes over what, and what is refused; and where a run goes."""

import json
import shlex
from pathlib import Path

import pytest

from icm_hpc.capacity import executor
from icm_hpc.config import loading
from icm_hpc.errors import ConfigError
from tests.external import submit
from tests.fake_slurm import FakeSlurm, made

BIG = "model: {engine: stub, path: stub, max_model_len: 1000000, tensor_parallel_size: 8, pipeline_parallel_size: 2}\n"
ON_SLURM = "cluster  slurm: sbatch is on the PATH, and model=405B asks for 16 GPUs on 2 nodes\n"


class Files:
    """The site's and the user's file, and presets, of a test."""

    def __init__(self, folder: Path) -> None:
        self.site, self.user = folder / "site" / "defaults.yaml", folder / "xdg" / "icm_hpc" / "defaults.yaml"
        self.presets = folder / "presets"
        for path in (self.site, self.user, self.presets / "model" / "405B.yaml", self.presets / "cluster" / "big.yaml"):
            path.parent.mkdir(parents=True, exist_ok=True)
        (self.presets / "model" / "405B.yaml").write_text(BIG)
        (self.presets / "cluster" / "big.yaml").write_text("cluster: {account: of-the-preset}\n")
        self.variables = {"XDG_CONFIG_HOME": str(folder / "xdg"), "ICM_CONFIGS": str(self.presets)}

    def write(self, *, site: str | None = None, user: str | None = None) -> None:
        """Write the files that are given."""
        if site is not None:
            self.site.write_text(site)
            self.variables["ICM_DEFAULTS"] = str(self.site)
        if user is not None:
            self.user.write_text(user)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return places for files of defaults, for commands that are given its variables."""
    return Files(tmp_path)


@pytest.fixture
def here(files: Files, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Return the same, also for this process."""
    files.write(site="", user="")
    for name, value in files.variables.items():
        monkeypatch.setenv(name, value)
    return files


def test_the_users_file_goes_over_the_sites_presets_over_both_and_the_command_line_over_all(here: Files) -> None:
    here.write(
        site="cluster: {account: site, qos: site, time_min: 7, reservation: site}\nsearch: {steps: 3}\n",
        user="cluster: {account: user, qos: user}\n",
    )
    plain = loading.load([])
    assert (plain.cluster.account, plain.cluster.qos, plain.cluster.time_min) == ("user", "user", 7)
    assert (plain.cluster.executor, plain.search.steps, plain.model.name) == ("auto", 3, "smol")
    chosen = loading.load(["cluster=big", "cluster.qos=mine"]).cluster
    assert (chosen.account, chosen.qos, chosen.time_min) == ("of-the-preset", "mine", 7)


def test_a_preset_that_nobody_has_named_is_below_the_files(here: Files) -> None:
    here.write(user="server: {mem_gb: 33}\nmodel: {max_num_seqs: 9, env: {NCCL_SOCKET_IFNAME: ib0}}\n")
    config = loading.load([])
    assert (config.server.mem_gb, config.model.max_num_seqs) == (33, 9), "smol has 6 and 64"
    assert config.model.env["NCCL_SOCKET_IFNAME"] == "ib0"
    assert config.model.env["VLLM_CPU_KVCACHE_SPACE"] == "2", "smol's own variables stay"
    assert loading.load(["model=tiny"]).model.env["NCCL_SOCKET_IFNAME"] == "ib0"


def test_a_file_may_name_presets_alone_or_beside_keys(here: Files) -> None:
    here.write(site="model: 405B\ncluster: big\n", user="cluster: {preset: slurm, qos: q}\n")
    config = loading.load([])
    assert (config.model.name, config.model.gpus) == ("405B", 16)
    assert (config.cluster.name, config.cluster.account, config.cluster.qos) == ("slurm", None, "q")
    assert loading.load(["model=tiny", "cluster=big"]).cluster.name == "big"
    assert loading.load(["engine=openai"]).model.name == "openai"


def test_a_preset_named_by_its_path_is_found_from_the_file_that_names_it(here: Files) -> None:
    (here.user.parent / "mine.yaml").write_text("cluster: {account: mine}\n")
    here.write(user="cluster: mine.yaml\n")
    assert loading.load([]).cluster.account == "mine"


def test_weights_of_a_file_give_way_to_those_of_a_preset(here: Files) -> None:
    here.write(user="model: {path: /shared/weights, revision: abc}\n")
    assert (loading.load([]).model.path, loading.load([]).model.embedded) == ("/shared/weights", None)
    tiny = loading.load(["model=tiny"]).model
    assert (tiny.path, tiny.embedded, tiny.revision) == ("", "tiny", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cluster: {acount: x}", "cluster.acount: no such key (in {file}); did you mean cluster.account?"),
        ("clustr: {account: x}", "{file}: clustr: no such section; did you mean cluster?"),
        ("cluster: bigg", "{file}: cluster=bigg: no such preset; did you mean big?"),
        ("cluster: 5", "{file}: cluster: 5 is neither the name of a preset nor a section with keys"),
        ("engine: openai", "{file}: engine: no such section; did you mean model.engine?"),
        ("- cluster", "{file}: must hold sections"),
        ("cluster: [", "{file}: is not YAML"),
        ("cluster: slurm\ncluster: {account: x}", "cluster stands twice"),
        ("run: {root: $NOT_SET_ANYWHERE/runs}", "{file}: run.root=$NOT_SET_ANYWHERE/runs: a variable in it is not set"),
        ("search: 5", "{file}: must hold sections"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_name_with_the_nearest_word(
    here: Files, text: str, words: str
) -> None:
    for which in ("site", "user"):
        here.write(**{"site": "", "user": "", which: text})
        with pytest.raises(ConfigError) as refused:
            loading.load([])
        assert words.format(file=getattr(here, which)) in str(refused.value)


def test_a_value_of_a_file_that_cannot_be_is_refused_by_the_files_name(here: Files) -> None:
    here.write(site="cluster: {time_min: soon}\n", user="search: {alpha: -1}\n")
    with pytest.raises(ConfigError, match=f"search.alpha=-1.0: 0 or more .set in {here.user}"):
        loading.load(["cluster.time_min=7"])
    here.write(user="")
    with pytest.raises(ConfigError, match=f"cluster.time_min=soon: expected a time .* .set in {here.site}, line 1"):
        loading.load([])
    with pytest.raises(ConfigError) as refused:
        loading.load(["cluster.time_min=later"])
    assert str(here.site) not in str(refused.value)


def test_a_sites_file_that_is_not_there_is_refused_and_one_of_the_user_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert loading.defaults() == []
    monkeypatch.setenv("ICM_DEFAULTS", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"ICM_DEFAULTS=.*none\.yaml: there is no such file"):
        loading.load([])
    monkeypatch.setenv("ICM_DEFAULTS", "")
    assert loading.defaults() == []


def test_without_a_home_there_are_no_defaults_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    (tmp_path / ".config" / "icm_hpc").mkdir(parents=True)
    (tmp_path / ".config" / "icm_hpc" / "defaults.yaml").write_text("search: {steps: 3}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loading.load([]).search.steps == 3
    monkeypatch.delenv("HOME")
    assert loading.defaults() == []
    monkeypatch.setenv("HOME", "")
    assert loading.load([]).search.steps is None


def test_a_runs_own_settings_do_not_read_defaults(here: Files, tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text(loading.to_yaml(loading.load([])))
    here.write(user="search: {steps: 3}\n", site="cluster: {acount: x}\n")
    assert loading.load_file(saved).search.steps is None


def test_commands_find_runs_in_the_root_of_the_defaults(files: Files, tmp_path: Path) -> None:
    files.write(site="run: {root: $ICM_TEST_ROOT/of $USER}\ntask: {limit: 12}\nsearch: {steps: 5}\nmodel: stub\n")
    variables = {**files.variables, "ICM_TEST_ROOT": str(tmp_path), "USER": "ann"}
    done = submit("run=mine", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == f"defaults {files.site}"
    assert (tmp_path / "of ann" / "mine" / "labels.jsonl").exists()
    assert json.loads(submit("json=true", module="status", **variables).stdout)["run"] == "mine"
    assert json.loads(submit("run=mine", "json=true", module="evaluate", **variables).stdout)["labelled"] == 12
    assert submit("run=mine", "search.steps=9", module="resume", **variables).returncode == 0


def test_plan_says_where_the_run_goes_and_which_files_were_read(files: Files) -> None:
    files.write(site="cluster: {account: a}\n", user="search: {steps: 5}\n")
    done = submit("model=stub", module="plan", **files.variables)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[:2] == ["cluster   local: model=stub asks for no GPU", f"defaults  {files.site}, {files.user}"]


# Where a run goes


@pytest.fixture
def slurm_here(tmp_path: Path) -> FakeSlurm:
    """Return an sbatch that queues everything as job 4242."""
    fake = made(tmp_path / "bin")
    fake.sbatch("Submitted batch job 4242")
    return fake


def test_the_literal_command_goes_to_slurm_and_says_why_first(
    files: Files, slurm_here: FakeSlurm, tmp_path: Path
) -> None:
    files.write(site=f"run: {{root: {tmp_path}/runs}}\ncluster: {{account: mine, server_partition: gpu}}\n")
    done = submit("model=405B", **files.variables, **slurm_here.variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(ON_SLURM)
    script = (slurm_here.folder / "script").read_text()
    assert script.count("#SBATCH --account=mine") == 2
    assert "#SBATCH --gres=gpu:8" in script
    (run,) = (tmp_path / "runs").iterdir()
    assert loading.load_file(run / "config.yaml").cluster.executor == "slurm", "a resumed run goes where it ran"


def test_without_sbatch_the_refusal_ends_in_a_command_that_works(
    files: Files, slurm_here: FakeSlurm, tmp_path: Path
) -> None:
    (slurm_here.folder / "sbatch").unlink()
    (files.presets / "model" / "smol.yaml").write_text(
        "model: {engine: stub, path: stub, max_model_len: 100000}\nserver: {gpus_per_node: 0}\n"
    )
    words = ("model=405B", "task.limit=12", "search.steps=5", f"run.root={tmp_path}/ru ns")
    refused = submit(*words, **files.variables, **slurm_here.alone)
    assert refused.returncode == 1
    assert refused.stdout.startswith(
        "cluster  local: sbatch is not on the PATH (model=405B asks for 16 GPUs on 2 nodes)"
    )
    assert "2 nodes are asked for, and this machine" in refused.stderr
    command = shlex.split(refused.stderr.splitlines()[-1])
    assert command[:3] == ["python", "-m", "icm_hpc.submit"]
    assert "task.limit=12" in command
    done = submit(*command[3:], **files.variables, **slurm_here.alone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cluster  local: model=smol asks for no GPU\n")


@pytest.mark.parametrize("words", [("cluster=local",), ("cluster.executor=local",)])
def test_a_run_that_was_sent_here_and_does_not_fit_is_refused_with_slurm_as_the_remedy(
    files: Files, slurm_here: FakeSlurm, tmp_path: Path, words: tuple[str, ...]
) -> None:
    everything = ("model=405B", *words, f"run.root={tmp_path}/runs", "task.limit=12")
    refused = submit(*everything, **files.variables, **slurm_here.variables)
    assert refused.returncode == 1
    command = shlex.split(refused.stderr.splitlines()[-1])
    assert command[-1] == "cluster=slurm"
    done = submit(*command[3:], **files.variables, **slurm_here.variables)
    assert "job      4242" in done.stdout, done.stderr


def test_slurm_without_sbatch_is_refused_with_a_command_that_works_here(
    files: Files, slurm_here: FakeSlurm, tmp_path: Path
) -> None:
    (slurm_here.folder / "sbatch").unlink()
    words = ("model=stub", "cluster=slurm", "task.limit=12", "search.steps=5", f"run.root={tmp_path}/runs")
    refused = submit(*words, **files.variables, **slurm_here.alone)
    assert "sbatch is not on the PATH, and cluster.executor=slurm needs it" in refused.stderr
    done = submit(*shlex.split(refused.stderr.splitlines()[-1])[3:], **files.variables, **slurm_here.alone)
    assert done.returncode == 0, done.stderr


def test_a_dry_run_prints_the_script_alone_and_the_rest_on_standard_error(files: Files, slurm_here: FakeSlurm) -> None:
    files.write(user="cluster: {account: a}\n")
    printed = submit("model=405B", "dry_run=true", **files.variables, **slurm_here.variables)
    assert printed.stdout.startswith("#!/bin/bash\n")
    assert "cluster  " not in printed.stdout
    assert printed.stderr.splitlines() == [
        f"icm_hpc: {ON_SLURM.replace('  ', ' ').strip()}",
        f"icm_hpc: defaults {files.user}",
    ]


def test_a_model_without_gpus_and_one_that_is_served_already_run_here(
    slurm_here: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", slurm_here.variables["PATH"])
    for words in (["model=smol"], ["model=8B", "server.url=http://host:8000"], ["engine=openai"]):
        settings, why = executor.resolved(loading.load(words))
        assert settings.cluster.executor == "local"
        assert why.startswith("local: ")
    assert executor.resolved(loading.load(["model=8B"]))[0].cluster.executor == "slurm"
    for words in (["model=tiny", "cluster=slurm"], ["model=tiny", "cluster.executor=slurm"]):
        assert executor.resolved(loading.load(words))[0].cluster.executor == "slurm"
    assert executor.resolved(loading.load(["model=8B", "cluster=local"]))[0].cluster.executor == "local"


def test_inside_an_allocation_a_new_job_is_queued_and_the_other_choice_is_named(
    slurm_here: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", slurm_here.variables["PATH"])
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    settings, why = executor.resolved(loading.load(["model=8B"]))
    assert settings.cluster.executor == "slurm"
    assert "this shell is in job 77: cluster=local would use its node" in why


def test_a_site_preset_that_names_no_executor_is_decided_like_the_default(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("cluster: {account: a}\n")
    assert loading.load([f"cluster={tmp_path}/mine.yaml"]).cluster.executor == "auto"
