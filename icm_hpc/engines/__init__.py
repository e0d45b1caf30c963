"""The engines that can serve a model: each is a value of functions to start it, to ask it, and to read its answers."""

from ..errors import ConfigError
from . import openai, stub, vllm
from .engine import Engine, Start

LAST_LINES = 200  # of a log in which signs of a known trouble are looked for

ENGINES: dict[str, Engine] = {"vllm": vllm.ENGINE, "openai": openai.ENGINE, "stub": stub.ENGINE}
DEFAULT = "vllm"  # of a model that names none


def start_of(name: str) -> Start:
    """Return how an engine is started; raises ConfigError for one that only others run."""
    start = ENGINES[name].start
    if start is None:
        raise ConfigError(f"engine={name} cannot be started here: set server.url to a server that already runs")
    return start


def exit_of(start: Start, code: int, log: str) -> str:
    """Return how an engine ended by itself, by the log of its start: its code, the cause, and what helps."""
    cause = start.root_cause(log)
    remedy = start.remedy(code, "\n".join([cause or "", *log.splitlines()[-LAST_LINES:]]))
    return f"exited with code {code}" + (f": {cause}" if cause else "") + (f" ({remedy})" if remedy else "")
