"""The engines that can serve a model: pure functions to start one, to ask it, and to read its answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..config.schema import ModelConfig
from . import stub, vllm
from .engine import Rank

LAST_LINES = 200  # of a log in which signs of a known trouble are looked for
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

    def root_cause(self, log: str) -> str | None:
        """Return the exception of which the engine died, by the log of its start, or None if there is none."""


def exit_of(engine: Engine, code: int, log: str) -> str:
    """Return how an engine ended by itself, by the log of its start: its code, the cause, and what helps."""
    cause = engine.root_cause(log)
    remedy = engine.remedy(code, "\n".join([cause or "", *log.splitlines()[-LAST_LINES:]]))
    return f"exited with code {code}" + (f": {cause}" if cause else "") + (f" ({remedy})" if remedy else "")


ENGINES: dict[str, Engine] = {"vllm": vllm, "stub": stub}
