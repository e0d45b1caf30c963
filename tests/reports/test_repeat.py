"""The command that repeats a run gives its settings."""

import dataclasses
import shlex

import pytest

from icm_hpc.config import loading
from icm_hpc.config.place import RunConfig
from icm_hpc.reports import repeat


@pytest.mark.parametrize(
    "words",
    [
        ["model=smol"],
        ["model=405B", "cluster=slurm", "cluster.account=it's", "cluster.server_flags=[--nice=100,'--x=a,b']"],
        ["model=stub", "task.name=mine", 'task.prompt="Review: {text}\\nGood?"', "task.labels=[' no',' \"yes\"']"],
        ["model=stub", "task.name=mine", "task.prompt='{a}: {b}'", "task.rule={same_if: a, else: none}"],
        [
            "model=8B",
            "model.vllm_args={async-scheduling: true, seed: 3, x-a: 'true', x-b: {c: [d, 0.5, null]}}",
            "search.label_prior=[0.2,0.8]",
        ],
        [
            "model.path=/models/own",
            "task.label_words=[' a',' null']",
            "search.calibration=0.00001",
            "run.save_interval_s=1",
        ],
    ],
    ids=" ".join,
)
def test_the_command_gives_the_settings_of_the_run(words: list[str]) -> None:
    config = loading.load([*words, "run.name=first", "run.root=/runs"])
    command, note = repeat.command(config)
    assert note == ""
    start, again = shlex.split(command)[:3], loading.load(shlex.split(command)[3:])
    assert start == ["python", "-m", "icm_hpc.submit"]
    expected = RunConfig(save_interval_s=config.run.save_interval_s)
    assert again == dataclasses.replace(config, run=expected)


def test_what_the_command_cannot_set_is_named() -> None:
    config = loading.load(["model=8B"])
    assert config.model.vllm_args, "a map of a preset, which a command adds to"
    without = dataclasses.replace(config, model=dataclasses.replace(config.model, vllm_args={}))
    _, note = repeat.command(without)
    assert note == "It cannot set model.vllm_args: see the settings below."


def test_a_setting_that_is_refused_here_is_named() -> None:
    config = loading.load(["model=stub"])
    refused = dataclasses.replace(config.model, vllm_args={"port": 1})
    command, note = repeat.command(dataclasses.replace(config, model=refused))
    assert "model.vllm_args={" in command
    assert note.startswith("It is not accepted here (model.vllm_args.port")
