"""The stub's answers without a server: what the driver asks of a client, in the same process, and noted."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from icm_hpc.config.loading import load
from icm_hpc.config.schema import Config
from icm_hpc.driver import run
from icm_hpc.engines import ENGINES, stub
from icm_hpc.engines.engine import Metrics
from icm_hpc.rundir.folder import RunDir
from icm_hpc.scoring.client import Client, Traffic


class OfflineClient:
    """Answers as the stub server does; keeps every prompt."""

    model = "stub"
    engine = ENGINES["stub"]
    exact = True
    replicas = 1
    max_ids = 128

    def replica(self, number: int) -> "OfflineClient":
        """Return the only one."""
        return self

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.prompts: list[Any] = []  # token ids, or texts

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the stub's tokens."""
        return [stub.tokenize(text) for text in texts]

    async def label_logprobs(self, prompts: Iterable[bytes], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return log P(label | prompt)."""
        asked = self._noted(prompts)
        return np.array([self.say(prompt, label_ids) for prompt in asked]).reshape(len(asked), len(label_ids))

    async def top_logprobs(self, prompts: Iterable[bytes]) -> list[dict[str, float]]:
        """Return the top-k tokens."""
        ids = [stub.tokenize(word)[0] for word in stub.WORDS]
        answers = [self.say(prompt, ids) for prompt in self._noted(prompts)]
        return [dict(zip(stub.WORDS, answer, strict=True)) for answer in answers]

    def say(self, prompt: Any, label_ids: Sequence[int]) -> list[float]:
        """Return log P(label | prompt) of one prompt."""
        return stub.label_logprobs(stub.as_tokens(prompt), label_ids)

    def _noted(self, prompts: Iterable[bytes]) -> list[Any]:
        asked = [json.loads(prompt) for prompt in prompts]
        self.prompts += asked
        self.traffic.prompts += len(asked)
        return asked

    async def max_model_len(self) -> int:
        """Return a context that everything fits."""
        return 10**9

    async def metrics(self) -> Metrics:
        """Return that nothing was counted."""
        return Metrics(0, 0, None, None)


def prepare(folder: Path, *arguments: str) -> tuple[Config, RunDir, Client]:
    """Return the settings of a run, its folder, and a client of no server."""
    settings: Config = load(["model=stub", f"run.root={folder}", "run=test", *arguments])
    run_dir = RunDir(folder / "test")
    run_dir.create()
    return settings, run_dir, cast(Client, OfflineClient())


async def label(folder: Path, *arguments: str) -> tuple[dict[str, Any], RunDir, OfflineClient]:
    """Run a whole labelling; return its summary, its folder, and the client with all that was asked."""
    settings, run_dir, client = prepare(folder, *arguments)
    summary = await run.label(settings, run_dir, client, lambda _: None)
    return summary, run_dir, cast(OfflineClient, client)
