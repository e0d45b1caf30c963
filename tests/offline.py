"""The stub's answers without a server: what the driver asks of a client, in the same process, and noted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from icm_hpc import driver
from icm_hpc.client import Client, Prompt, Traffic
from icm_hpc.config import Config, load
from icm_hpc.engines import stub
from icm_hpc.rundir import RunDir


class OfflineClient:
    """Answers as the stub server does; keeps every prompt."""

    model = "stub"

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.prompts: list[Prompt] = []

    async def tokenize(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the stub's tokens."""
        return [stub.tokenize(text) for text in texts]

    async def label_logprobs(self, prompts: Sequence[Prompt], label_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return log P(label | prompt)."""
        self.prompts += prompts
        return np.array([stub.label_logprobs(cast(list[int], prompt), label_ids) for prompt in prompts])

    async def top_logprobs(self, prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        """Return the likeliest tokens."""
        self.prompts += prompts
        ids = [stub.tokenize(word)[0] for word in stub.WORDS]
        answers = [stub.label_logprobs(stub.tokenize(cast(str, prompt)), ids) for prompt in prompts]
        return [dict(zip(stub.WORDS, answer, strict=True)) for answer in answers]

    async def max_model_len(self) -> int:
        """Return a context that everything fits."""
        return 10**9

    async def counters(self) -> dict[str, float]:
        """Return that nothing was counted."""
        return {}


async def label(folder: Path, *arguments: str) -> tuple[dict[str, Any], RunDir, OfflineClient]:
    """Run a whole labelling; return its summary, its folder, and the client with all that was asked."""
    settings: Config = load(["model=stub", f"run.root={folder}", "run=test", *arguments])
    run_dir, client = RunDir(folder / "test"), OfflineClient()
    run_dir.create()
    summary = await driver.label(settings, run_dir, cast(Client, client), lambda _: None)
    return summary, run_dir, client
