"""The engines that can serve a model: pure functions to start one, to ask it, and to read its answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..settings import ModelConfig
from . import stub, vllm
from .rank import Rank

KEY_VARIABLE = vllm.KEY_VARIABLE  # the environment variable through which every engine gets its key


class Engine(Protocol):
    """What an engine's module offers."""

    def argv(
        self,
        model: ModelConfig,
        weights: Path | str,
        *,
        host: str,
        port: int,
        replicas: int = 1,
        rank: Rank | None = None,
    ) -> list[str]:
        """Return the command that serves `weights`, or, on one of several nodes, that node's `rank`; it holds no secret."""

    def environment(
        self, model: ModelConfig, key: str, *, address: str | None = None, start_timeout_s: float | None = None
    ) -> Mapping[str, str]:
        """Return what the command's environment must hold: the key, this node's address if there are several, and how long the
        parts of the engine wait for each other.
        """

    def remedy(self, code: int, last_words: str) -> str | None:
        """Return what the engine died of and what to do, if its exit code and the end of its log tell."""


ENGINES: dict[str, Engine] = {"vllm": vllm, "stub": stub}
