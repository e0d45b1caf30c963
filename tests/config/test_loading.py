"""Annealing: what is read is what was meant."""

from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.config.fingerprint import differences, result_settings
from icm_hpc.config.schema import PROTOCOLS
from icm_hpc.errors import ConfigError


def test_settings_survive_their_file(tmp_path: Path) -> None:
    given = loading.load(
        ["model=smol", "search.final_temperature=1e-5", "task.label_words=[' no',' yes']", "cluster.time_min=7"]
    )
    (tmp_path / "config.yaml").write_text(loading.to_yaml(given))
    assert loading.load_file(tmp_path / "config.yaml") == given


def test_a_shells_variables_are_the_shells(tmp_path: Path) -> None:
    lines = ["export PATH=${HOME}/bin:$PATH", "echo ${#array[@]} ${x:-y}"]
    preset = tmp_path / "site.yaml"
    preset.write_text("cluster:\n  executor: slurm\n  setup:\n" + "".join(f"  - '{line}'\n" for line in lines))
    given = loading.load(["model=stub", f"cluster={preset}", "run.root=/data/${USER}"])
    assert given.cluster.setup == lines
    assert given.run.root == "/data/${USER}"
    (tmp_path / "config.yaml").write_text(loading.to_yaml(given))
    assert loading.load_file(tmp_path / "config.yaml") == given


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_decides_what_is_left_empty_and_a_switch_stands_alone(protocol: str) -> None:
    search = loading.load([f"search.protocol={protocol}"]).search
    assert search.layout == PROTOCOLS[protocol]["search.layout"]
    assert search.result == PROTOCOLS[protocol]["search.result"]
    alone = loading.load([f"search.protocol={protocol}", "search.layout=grouped"]).search
    assert (alone.layout, alone.scoring) == ("grouped", PROTOCOLS[protocol]["search.scoring"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("search.alpha=2", "search.alpha: 30.0 there, 2.0 here"),
        ("model.vllm_args.load-format=dummy", "model.vllm_args: {} there, {'load-format': 'dummy'} here"),
        ("model.vllm_args.num-gpu-blocks-override=16", ""),
        ("search.steps=9", ""),
        ("server.cpus=4", ""),
    ],
)
def test_what_decides_labels_may_not_differ_between_starts(change: str, told: str) -> None:
    ours, theirs = (result_settings(loading.load(["model=smol", *arguments])) for arguments in ([change], []))
    assert differences(ours, theirs) == told


def test_a_preset_that_is_not_yaml_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: is not YAML"):
        loading.load([f"model={tmp_path / 'bad.yaml'}"])


def test_all_of_the_memory_in_an_older_runs_settings_stays_all_of_it(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text("model: {path: x}\nserver: {mem_gb: null}\ncluster: {executor: slurm}\n")
    assert loading.load_file(saved).server.mem_gb == 0
    given = loading.load(["model=stub", "server.mem_gb=null"])
    saved.write_text(loading.to_yaml(given))
    assert loading.load_file(saved).server.mem_gb is None
    saved.write_text("format: 9\n")
    with pytest.raises(ConfigError, match="is of format 9, which a newer icm_hpc has written"):
        loading.load_file(saved)


def test_the_preset_of_an_experiment_sets_several_sections_and_the_command_line_goes_over_it() -> None:
    config = loading.load(["model=stub", "preset=small", "search.restarts=2"])
    assert (config.task.limit, config.task.test_limit, config.search.steps, config.search.restarts) == (32, 100, 50, 2)
    assert (config.task.name, config.search.method) == ("reviews", "blocks")
    assert loading.load(["preset=full"]).task.limit == 256
    with pytest.raises(ConfigError, match="preset=tiny: no such preset; there are full, small"):
        loading.load(["preset=tiny"])


def test_the_preset_of_an_experiment_is_for_a_new_run(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text(loading.to_yaml(loading.load(["model=stub"])))
    with pytest.raises(ConfigError, match="preset=small: is for a new run"):
        loading.load_file(saved, ["preset=small"])
