"""The command that repeats a run gives its settings."""

import dataclasses
import shlex

import pytest

from icm_hpc.config import loading
from icm_hpc.config.schema import RunConfig
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
            "model.vllm_args={a: 1, b: true, c: 'true', d: null, e: [x, 0.5]}",
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
    config = loading.load(["model=smol"])
    without = dataclasses.replace(config, model=dataclasses.replace(config.model, env={}))
    with_more = dataclasses.replace(config, model=dataclasses.replace(config.model, env={"A": "1"}))
    for one in (without, with_more):
        again = loading.load(shlex.split(repeat.command(one)[0])[3:])
        assert again.model == one.model or "It cannot set model.env" in repeat.command(one)[1]
