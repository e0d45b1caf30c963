"""What a server was measured to do, once in a run or by `verify`: measured.json, and the lines of `verify json=true`."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..core.json_values import from_json, typed
from ..errors import ConfigError, DamagedFile
from .files import read_json, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Noise:
    """By how much a label's log-probability after one prompt differs between two requests, at most; nats."""

    repeated: float  # the same request again
    cached: float  # most of the prompt from the prefix cache, or all of it computed
    batched: float  # with other prompts in the same request, or alone

    @property
    def largest(self) -> float:
        """The largest of them."""
        return max(self.repeated, self.cached, self.batched)


@dataclass(frozen=True, slots=True)
class Speed:
    """How long prompts took of which nothing was in the cache, sent together to one replica."""

    prompts: int
    tokens: int  # of all prompts
    context_tokens: int  # sum over their tokens of the tokens before each
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens computed in a second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a small scoring took in which prompts share their demonstrations as those of a search do; on one replica."""

    prompts: int
    prompt_tokens: int
    computed_tokens: int  # by the server's own counters
    least_tokens: int  # that a cache which holds all of it leaves to compute; a forecast
    context_tokens: int  # sum over those tokens of the tokens before each; a forecast, too
    seconds: float

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that came from the prefix cache."""
        return 1 - self.computed_tokens / self.prompt_tokens

    @property
    def best_hit_rate(self) -> float:
        """The same where the cache holds all of it."""
        return 1 - self.least_tokens / self.prompt_tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured of a server; None where it could not be."""

    noise: Noise | None = None
    speed: Speed | None = None
    sharing: Sharing | None = None
    of: dict[str, str | int | None] = field(default_factory=dict)  # which server (`served_by`); empty: not known


PARTS = ("noise", "speed", "sharing")


@dataclass(frozen=True, slots=True)
class Line:
    """What `verify json=true` prints of a check."""

    name: str
    passed: bool | None
    found: str
    remedy: str
    figures: dict[str, Any]


def write(path: Path, measured: Measured) -> None:
    """Write it; raises OSError."""
    write_json(path, asdict(measured))


def read(path: Path) -> Measured | None:
    """Return what was written, or None if nothing was."""
    found: Measured | None = read_json(path, Measured)
    return found


def of_run(path: Path, config: Config) -> Measured | None:
    """Return what was written for the server that these settings stand for; None if that is another, or cannot be read."""
    try:
        found = read(path)
    except DamagedFile as error:  # it decides no label
        log.warning("%s; the server is measured again", error)
        return None
    return found if found and found.of == served_by(config) else None


def served_by(config: Config) -> dict[str, str | int | None]:
    """Return what the speed and the noise of a server depend on, as far as settings say it."""
    model, server = config.model, config.server
    return {
        "model": model.path or model.embedded or model.name,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "tensor_parallel_size": model.tensor_parallel_size,
        "pipeline_parallel_size": model.pipeline_parallel_size,
        "replicas": server.replicas,
        "gpu": config.cluster.gpu if config.gpus_per_node else None,
        "url": config.external_url,
    }


def of_figures(figures: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Return it of each part's figures, by its name; parts without any are None. Raises ValueError for other figures."""
    found: Measured = typed(Measured, {name: figures.get(name) or None for name in PARTS})
    return found


def of_lines(path: Path) -> Measured:
    """Return what the lines say that `verify json=true` has printed into a file; raises ConfigError for another file."""
    try:
        lines = [typed(Line, from_json(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        return of_figures({line.name: line.figures for line in lines})
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is neither a run nor what `verify json=true` has printed: {error}") from error
