"""The batch scripts without Slurm: every step states what it would otherwise inherit, and no wait is without a limit."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from icm_hpc.config.loading import package_folder

FOLDER = package_folder("slurm")
STATED = ("--nodes=", "--ntasks=", "--ntasks-per-node=1", "--export=ALL", "--immediate=")
# srun and the others of the test: a process that takes no hint, and commands that note how they were called.
STUBBORN = "#!/bin/bash\ntrap '' INT TERM USR2\nwhile :; do sleep 0.1; done\n"
SQUEUE = "#!/bin/bash\necho 7.batch batch\necho 7.0 server\necho 7.1 driver\n"


def _commands(text: str) -> list[str]:
    """Return the srun commands of a script, each with its continued lines."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"^[^#\n]*\bsrun (--.*)$", joined, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["het", "single", "driver", "selftest"])
def test_every_step_states_its_nodes_its_tasks_and_its_environment(name: str) -> None:
    commands = _commands((FOLDER / f"{name}.sbatch").read_text())
    assert len(commands) >= {"driver": 1}.get(name, 2)
    for command in commands:
        assert [option for option in STATED if option not in command] == [], command


@pytest.mark.parametrize("name", ["het.sbatch", "single.sbatch", "driver.sbatch", "selftest.sbatch", "steps.sh"])
def test_bash_can_read_every_template(name: str) -> None:
    text = (FOLDER / name).read_text().replace("@{", "${")
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def _code(name: str) -> list[str]:
    """Return the lines of a template that the shell runs; its directives come before them."""
    lines = (FOLDER / f"{name}.sbatch").read_text().splitlines()
    return [line for line in lines[lines.index("umask 077") :] if line and not line.startswith("#")]


def test_het_and_single_differ_only_in_how_their_steps_get_the_job() -> None:
    one_component = [
        re.sub(r"--het-group=[01]", "--overlap", line).replace("_HET_GROUP_1", "")
        for line in _code("het")
        if not line.startswith("unset SLURM_MEM_")
    ]
    begin = next(i for i, line in enumerate(one_component) if "SLURM_RESTART_COUNT" in line)
    assert one_component[begin + 2] == "fi"
    del one_component[begin : begin + 3]  # the steps that the death of component 0's node leaves in component 1
    signal_ignored = """sh -c 'trap "" USR2; exec "$@"' server """
    assert [line.replace(signal_ignored, "") for line in _code("single")] == one_component


def test_a_driver_alone_begins_as_one_beside_a_server_does() -> None:
    begin = _code("single")[: _code("single").index("trap : TERM USR2") + 1]
    assert _code("driver")[: len(begin)] == begin


def _scripted(folder: Path, script: str, **commands: str) -> tuple[int, list[str]]:
    """Run a script after steps.sh, with stand-ins for Slurm's commands; return its exit code and how scancel was called."""
    for name, text in {"squeue": SQUEUE, **commands}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "CALLS": str(calls)}
    # The limits of the script are for clusters: here a second stands for 20.
    limits = re.compile(r"(ended_within|await_driver) (\d+) ")
    text = limits.sub(lambda found: f"{found[1]} {-(-int(found[2]) // 20)} ", (FOLDER / "steps.sh").read_text())
    whole = f"logs={folder}/7\n{text}\n{script}"
    done = subprocess.run(["bash", "-c", whole], env={**os.environ, **variables}, timeout=60, check=False)
    return done.returncode, calls.read_text().splitlines()


NOTED = '#!/bin/bash\necho "$@" >> "$CALLS"\n'


def test_no_token_that_expires_goes_into_the_steps_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "expires")
    seen = f'#!/bin/bash\necho "token ${{SLURM_JWT:-none}}" >> {tmp_path}/calls\n{SQUEUE}'
    code, calls = _scripted(tmp_path, "steps_of 7 server; env | grep SLURM_JWT; exit $?", squeue=seen)
    assert (code, calls) == (1, ["token none"])


def test_a_step_that_ignores_sigterm_is_killed_by_its_id(tmp_path: Path) -> None:
    kills = f"{NOTED}[ $1 = --signal=KILL ] && kill -KILL $(cat {tmp_path}/pid)\nexit 0\n"
    script = f"srun & echo $! > {tmp_path}/pid; end_step server 7 $!; wait $!; exit 5"
    code, calls = _scripted(tmp_path, script, srun=STUBBORN, scancel=kills)
    assert code == 5
    assert calls == ["--signal=TERM 7.0", "--signal=KILL 7.0"]


def test_a_step_that_cannot_be_ended_costs_the_job_and_the_script_exits_all_the_same(tmp_path: Path) -> None:
    # This shell function stands for a process that even SIGKILL does not end.
    script = "alive() { true; }; srun & end_step server 7 $!; command kill -KILL $!; exit 5"
    code, calls = _scripted(tmp_path, script, srun=STUBBORN, scancel=NOTED)
    assert code == 5
    assert calls == ["--signal=TERM 7.0", "--signal=KILL 7.0", "7"]


def test_a_driver_that_has_left_its_labels_and_does_not_end_is_ended_and_its_server_with_it(tmp_path: Path) -> None:
    (tmp_path / "7_0_result.pkl").write_bytes(b"\x80\x04success")
    ends = f"{NOTED}case $2 in *.0) kill -KILL $(cat {tmp_path}/server) ;; *) kill -KILL $(cat {tmp_path}/driver) ;; esac\n"
    script = (
        f"srun & echo $! > {tmp_path}/server; server=$!; srun & echo $! > {tmp_path}/driver; driver=$!;"
        " await_both 7 $server $driver; exit $?"
    )
    code, calls = _scripted(tmp_path, script, srun=STUBBORN, scancel=ends)
    assert code == 0, "the labels are there"
    assert calls == ["--signal=TERM 7.1", "--signal=TERM 7.0"]


def test_the_exit_code_of_the_driver_is_that_of_the_job_and_its_server_is_ended(tmp_path: Path) -> None:
    script = (
        f"srun & server=$!; echo $server > {tmp_path}/server; (sleep 0.1; exit 3) & driver=$!;"
        " await_both 7 $server $driver; exit $?"
    )
    ends = f"{NOTED}kill -KILL $(cat {tmp_path}/server)\n"
    code, calls = _scripted(tmp_path, script, srun=STUBBORN, scancel=ends)
    assert code == 3
    assert calls == ["--signal=TERM 7.0"]


def test_a_server_that_was_killed_gets_a_record_by_which_the_driver_ends(tmp_path: Path) -> None:
    script = (
        f"(exit 1) & server=$!; record_server_end=(touch {tmp_path}/record);"
        f" (while [ ! -e {tmp_path}/record ]; do sleep 0.1; done; exit 1) & driver=$!;"
        " await_both 7 $server $driver; exit $?"
    )
    code, calls = _scripted(tmp_path, script, srun=STUBBORN, scancel=NOTED)
    assert (code, calls) == (1, [])
