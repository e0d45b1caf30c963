"""The starts of a run, as provenance.json records them: when, where, with which versions, how each ended and what it did."""

import contextlib
import json
import platform
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from .. import scheduler
from ..core.json_values import typed
from ..errors import DamagedFile
from .files import read_json, write_atomically
from .folder import RunDir, ServedModel

FORGOTTEN_S = 3600.0
# What is recorded of a start, and what of that is counted; a start that goes on, or of an earlier version, has less.
FIELDS: dict[str, Any] = {
    "attempt": str,
    "job": str | None,
    **dict.fromkeys(("driver_host", "started", "python", "ended", "end"), str),
    "versions": dict[str, str],
    "served_model": dict[str, str | None],
    "counts": dict[str, Any],
}
COUNTED: dict[str, Any] = {"traffic": dict[str, Any], "work": dict[str, Any], "servers_lost": int}
TRAFFIC: dict[str, Any] = {"requests": int, "failures": dict[str, int]}


def new_attempt() -> str:
    """Return a name for a start on this machine; its server is given it as $ICM_ATTEMPT."""
    return f"local-{time.time_ns()}-{secrets.token_hex(4)}"


def record_attempt(run_dir: RunDir, attempt: str) -> int:
    """Add this start to provenance.json; return its place there."""
    known = {"attempts": attempts(run_dir)}
    versions = {name: metadata.version(name) for name in ("icm-hpc", "numpy", "h5py", "aiohttp", "submitit")}
    start: dict[str, Any] = {
        "attempt": attempt,
        "job": scheduler.job_id(),
        "driver_host": socket.gethostname(),
    }
    start |= {"started": _now(), "python": platform.python_version(), "versions": versions}
    known["attempts"].append(start)
    write_atomically(run_dir.provenance, json.dumps(known, indent=2).encode())
    return len(known["attempts"]) - 1


def attempts(run_dir: RunDir) -> list[dict[str, Any]]:
    """Return every start of the driver, the first one first, as provenance.json has them."""
    found: dict[str, Any] = read_json(run_dir.provenance, dict[str, list[dict[str, Any]]]) or {"attempts": []}
    try:
        for start in found.get("attempts", ()):
            counts = start.get("counts", {})
            for kinds, values in ((FIELDS, start), (COUNTED, counts), (TRAFFIC, counts.get("traffic", {}))):
                for name in kinds.keys() & typed(dict[str, Any], values).keys():
                    typed(kinds[name], values[name], name)
            typed(str, start.get("attempt"), "attempt")
        return list(found["attempts"])
    except (ValueError, LookupError, AttributeError) as error:
        raise DamagedFile(f"{run_dir.provenance} is damaged: {error}") from error


def remove_ended(run_dir: RunDir, own: str) -> None:
    """Remove the folders of earlier starts, by whoever holds the run's lock: their files served the two components only.

    provenance.json keeps the record of each. Those of a start that is not in it, as of a driver that was refused, go
    FORGOTTEN_S after its server's end; times are compared as the file system has them. What cannot be removed stays.
    """
    over = {one["attempt"] for one in attempts(run_dir)} - {own}
    for folder in [path for path in run_dir.attempt(own).parent.glob("*") if path.name != own]:
        with contextlib.suppress(OSError):
            if folder.name in over or _ended_long_ago(run_dir, folder.name):
                shutil.rmtree(folder)


def _ended_long_ago(run_dir: RunDir, attempt: str) -> bool:
    """Return whether a server ended FORGOTTEN_S before provenance.json was last written."""
    ended = run_dir.server_exit(attempt)
    return ended.exists() and run_dir.provenance.stat().st_mtime - ended.stat().st_mtime > FORGOTTEN_S


def scored_anything(attempt: dict[str, Any]) -> bool:
    """Return whether a start got an answer that is a score; of one that was killed outright that is not known: yes."""
    return "counts" not in attempt or attempt["counts"]["traffic"]["requests"] > 0


def record_served(run_dir: RunDir, start: int, served: ServedModel) -> None:
    """Add to an attempt in provenance.json which model it scores with."""
    known = read_json(run_dir.provenance)
    known["attempts"][start]["served_model"] = {"name": served.name, "root": served.root}
    write_atomically(run_dir.provenance, json.dumps(known, indent=2).encode())


def record_end(run_dir: RunDir, start: int, end: str, counts: Mapping[str, Any]) -> None:
    """Add to an attempt in provenance.json how it ended and what it did; one without was killed outright."""
    known = read_json(run_dir.provenance)
    known["attempts"][start] |= {"ended": _now(), "end": end, "counts": counts}
    write_atomically(run_dir.provenance, json.dumps(known, indent=2).encode())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
