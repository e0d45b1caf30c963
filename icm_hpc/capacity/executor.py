"""Where a run goes: to Slurm, or to this machine; and what a run that cannot go there could be instead."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from .. import scheduler
from ..config.schema import Config

# What drivers of GPUs leave in /dev: NVIDIA's, AMD's, Intel's and other accelerators', and Windows' for its Linux.
GPU_DEVICES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "kfd", "dri/renderD*", "accel*", "davinci*", "dxg")

EXAMPLE_URL = "http://HOST:8000"  # stands for a server of the user's


def resolved(config: Config) -> tuple[Config, str]:
    """Return `config` with cluster.executor=auto replaced by slurm or local, and one line that says which and why.

    auto is slurm where sbatch is on the PATH and the run needs GPUs of its own. Inside an allocation it is the same: a new
    job is queued, for what the allocation has is not known to be what the model needs.
    """
    cluster = config.cluster
    if cluster.executor != "auto":
        source = f"cluster={cluster.name}" if cluster.name != "auto" else f"cluster.executor={cluster.executor}"
        return config, f"{cluster.executor}: {source} says so"
    executor, why = _automatic(config)
    changed = dataclasses.replace(config, cluster=dataclasses.replace(cluster, executor=executor))
    return changed, f"{executor}: {why}"


def has_slurm() -> bool:
    """Return whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None


def missing(config: Config) -> tuple[list[str], list[str]]:
    """Return why a run cannot be submitted from here, and remedies as `remedies` does; nothing if it can."""
    if config.cluster.executor != "slurm" or has_slurm():
        return [], []
    why = "sbatch is not on the PATH, and cluster.executor=slurm needs it: submit from a login node"
    return [why], ["cluster=local", "cluster=local model=smol"]


def misfits(config: Config) -> list[str]:
    """Return why this machine cannot serve a run that is to run on it."""
    if config.cluster.executor == "slurm" or config.external_url is not None:
        return []
    if config.nodes > 1:
        return [f"{config.nodes} nodes are asked for, and this machine (cluster.executor=local) is one"]
    if config.gpus_per_node and not any(next(Path("/dev").glob(name), None) for name in GPU_DEVICES):
        return [f"{_gpus(config)}, and this machine (cluster.executor=local) has none"]
    return []


def remedies(config: Config) -> list[str]:
    """Return settings under which a run that this machine cannot serve would work from here, the nearest first."""
    found = ["cluster=slurm"] if has_slurm() else []
    if not found:
        found.append("model=smol")
    if config.nodes == 1:
        found.append("server.gpus_per_node=0")
    return [*found, f"server.url={EXAMPLE_URL}"]


def changed(words: Sequence[str], remedy: str) -> list[str]:
    """Return the words of a command without those that the settings of `remedy` replace, and with these."""
    added = remedy.split()
    replaced = {word.partition("=")[0] for word in added}

    def stays(word: str) -> bool:
        key = word.partition("=")[0]
        if "model" in replaced and key.startswith(("model.", "server.", "engine", "replicas")):
            return False
        return key not in replaced and not ("cluster" in replaced and key == "cluster.executor")

    return [*filter(stays, words), *added]


def _automatic(config: Config) -> tuple[str, str]:
    if config.external_url is not None:
        return "local", f"the server runs already ({config.external_url}), and the search needs no GPU"
    if not config.gpus_per_node:
        return "local", f"model={config.model.name} asks for no GPU"
    if not has_slurm():
        return "local", f"sbatch is not on the PATH ({_gpus(config)})"
    job = scheduler.job_id()
    inside = f"; this shell is in job {job}: cluster=local would use its node" if job else ""
    return "slurm", f"sbatch is on the PATH, and {_gpus(config)}{inside}"


def _gpus(config: Config) -> str:
    gpus, nodes = config.nodes * config.gpus_per_node, config.nodes
    over = f" on {nodes} nodes" if nodes > 1 else ""
    return f"model={config.model.name} asks for {gpus} GPU{'s' if gpus > 1 else ''}{over}"
