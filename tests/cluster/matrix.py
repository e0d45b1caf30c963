"""The fault matrix: `python -m tests.cluster.matrix [NAME ...]` inflicts faults on runs, on the real daemons.

Each run must end, by itself or after one `resume`, with the labels and decisions of an undisturbed one. Prints a table in
Markdown; with no name all faults are inflicted, one after the other. ICM_FAULTS_MODEL is stub, tiny (real vLLM, the published
search) or tiny-blocks (real vLLM, search.method=blocks; the default).
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from icm_hpc.rundir import checkpoint
from tests.cluster import daemons
from tests.cluster.daemons import Cluster
from tests.cluster.faults import FAULTS, Fault
from tests.cluster.runs import NOISE, STUB, TINY, TINY_BLOCKS, Run, command, components, logs, restarts, submit

AT_STEP = 20
INTERVAL_S = 2.0  # between saves: what a fault may cost
STUB_SLOW = (*STUB, "model.vllm_args.delay-ms=100")
MODELS = {"stub": STUB_SLOW, "tiny": TINY, "tiny-blocks": TINY_BLOCKS}


@dataclass
class Outcome:
    """What became of a run."""

    name: str
    fault: Fault
    step: int
    states: str
    attempts: int
    servers_lost: int
    lost_s: float
    same_labels: bool
    same_trace: bool
    noise: float  # nats
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the run ended as if nothing had happened."""
        return self.same_labels and self.same_trace and self.noise < NOISE

    def row(self) -> str:
        """Return a line of the table."""
        yes = {True: "equal", False: "**differ**"}
        return (
            f"| {self.fault.what} | {self.step} | {self.states} | {self.attempts} | {self.servers_lost} | {self.lost_s:.1f} |"
            f" {yes[self.same_labels]} | {yes[self.same_trace]} | {self.noise:.1e} |"
        )


HEADER = (
    "| what was done | at step | what the jobs did (driver+server) | driver starts | servers lost | work lost, s | labels |"
    " decisions | energies differ by, nats |\n|---|---|---|---|---|---|---|---|---|"
)


def inflicted(name: str, slurm: Cluster, root: Path, undisturbed: Run, model: Sequence[str]) -> Outcome:
    """Inflict a fault on a new run, and see it to its end."""
    fault = FAULTS[name]
    with fault.site(slurm), _disk(fault.on_disk_of_mib, root / name) as folder:
        run = Run(folder, name)
        settings = (*model, f"run.save_interval_s={INTERVAL_S}", *fault.settings)
        done = submit(folder, name, *settings)
        assert done.returncode == 0, done.stdout + done.stderr
        first = run.job
        if not fault.at_start:
            run.await_step(AT_STEP)
            time.sleep(INTERVAL_S / 2)  # in the middle between two saves
        with Saves(run) as saves:
            step, at = run.steps_saved(), time.time()
            fault.inflict(slurm, run)
            states = run.await_end()
            if fault.ends is not None:
                assert states.startswith(fault.ends), f"{name}: {states}\n{logs(run.dir.path)}"
                assert fault.says in run.dir.driver_log.read_text(), logs(run.dir.path)
                fault.before_resume(run)
                run.resume(*fault.resume_with)
                states += ", resumed: " + run.await_end()
            elif run.job != first:
                states = "+".join(row["State"].split()[0] for row in components(first)) + ", then " + states
            elif restarts(first):
                states = f"{_history(first)}, then {states}"
        assert set(states.split()[-1].split("+")) == {"COMPLETED"}, f"{name}: {states}\n{logs(run.dir.path)}"
        lost = run.attempts[-1]["counts"]["servers_lost"]
        same_labels, same_trace = run.words() == undisturbed.words(), run.decisions() == undisturbed.decisions()
        noise = run.noise_against(undisturbed)
        return Outcome(
            name, fault, step, states, len(run.attempts), lost, saves.lost_s(at), same_labels, same_trace, noise
        )


def _history(job: str) -> str:
    """Return how the earlier starts of a job ended."""
    rows = command("sacct", "-D", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={job}")
    first = [row.split("|")[1].split()[0] for row in rows.splitlines() if row.split("|")[1] != "COMPLETED"]
    return "+".join(first[:2])


@contextmanager
def _disk(mib: int | None, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    if mib is None:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Saves:
    """Watches a run's saves, to know afterwards what each start of the driver went on from."""

    def __init__(self, run: Run) -> None:
        self._run, self._stop = run, threading.Event()
        self._last: dict[int, float] = {}  # by how many starts there were, when the newest state was saved
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Saves":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            starts = len(self._run.attempts)
            with contextlib.suppress(OSError):
                saved = max(
                    (path.stat().st_mtime for path in checkpoint.generations(self._run.dir.shard(0))), default=0.0
                )
                self._last[starts] = saved

    def lost_s(self, at: float) -> float:
        """Return for how long before the time `at` nothing was saved that a later start went on from."""
        before = [saved for starts, saved in self._last.items() if starts < max(self._last)]
        return max(0.0, at - before[0]) if before and before[0] else 0.0


def main() -> None:
    """Run the matrix."""
    names = sys.argv[1:] or list(FAULTS)
    slurm = daemons.up()
    os.environ.update(slurm.environment)
    model = MODELS[os.environ.get("ICM_FAULTS_MODEL", "tiny-blocks")]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="icm-faults-") as folder:
        root = Path(folder)
        undisturbed = Run(root, "undisturbed")
        done = submit(root, "undisturbed", *model)
        assert done.returncode == 0, done.stdout + done.stderr
        assert undisturbed.await_end() == "COMPLETED+COMPLETED", logs(undisturbed.dir.path)
        exactness = json.loads(undisturbed.dir.summary.read_text())["exactness"]
        print(f"undisturbed: {exactness}\n\n{HEADER}", flush=True)
        for name in names:
            try:
                outcome = inflicted(name, slurm, root, undisturbed, model)
                failures += not outcome.ok
                print(outcome.row(), flush=True)
            except Exception as error:  # the next fault is another run
                failures += 1
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                subprocess.run(["scancel", "--user=root"], check=False)
    sys.exit(f"{failures} of {len(names)} faults were not survived" if failures else None)


if __name__ == "__main__":
    main()
