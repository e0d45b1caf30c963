"""What the rest of the package needs of an engine: values that each engine's module composes of its own functions.

A part that is None is something that the engine cannot do. So a capability and the function that uses it are one thing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .options import Options

if TYPE_CHECKING:
    from ..config.schema import ModelConfig

Fields: TypeAlias = dict[str, Any]  # of the JSON of a request


@dataclass(frozen=True, slots=True)
class Rank:
    """A node's part in an engine that runs on several: which node this is, and where all of them meet."""

    number: int  # 0 is the first node, which listens for requests
    nodes: int
    address: str  # of the first node
    port: int  # of torch.distributed
    rpc_port: int  # of replicas


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a server counted since it started, summed over its replicas."""

    prompt_tokens: int  # of all requests so far
    cached_tokens: int  # of these, found in the prefix cache
    block_size: int | None  # tokens; None if the server does not say
    cache_tokens: int | None  # that the cache holds at most

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that had to be computed."""
        return self.prompt_tokens - self.cached_tokens


class Argv(Protocol):
    """Returns the command that serves `weights`, or, on one of several nodes, that node's `rank`; it holds no secret."""

    def __call__(
        self,
        model: "ModelConfig",
        weights: Path | str,
        *,
        host: str,
        port: int,
        replicas: int = 1,
        rank: Rank | None = None,
    ) -> list[str]: ...


class Environment(Protocol):
    """Returns the variables that the command needs: the key, this node's address if there are several, and how long the parts
    of the engine wait for each other.
    """

    def __call__(
        self, model: "ModelConfig", key: str, *, address: str | None = None, start_timeout_s: float | None = None
    ) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Start:
    """How an engine is started, and what its log says of a start that failed."""

    argv: Argv
    environment: Environment
    remedy: Callable[[int, str], str | None]  # exit code and last lines of the log -> cause and what to do, if known
    root_cause: Callable[[str], str | None]  # log of a start -> the exception that ended it, if there is one
    left_out: Callable[[str], str | None]  # log -> the options that its last start did not send, and why, if any
    health: str = "/health"  # answers 200 once the engine serves


@dataclass(frozen=True, slots=True)
class Completions:
    """How prompts are sent, in requests of up to `max_prompts`, and what every answer holds."""

    base_url: Callable[[str], str]  # a server's address as a user writes it -> what the paths below are appended to
    path: str
    max_prompts: int
    greedy: Fields  # that ask for one token and no log-probability
    with_prompts: Callable[[Mapping[str, Any], Sequence[bytes]], bytes]  # fields and prompts, each JSON -> the body
    choices: Callable[[Any, str, int], Sequence[Any]]  # answer, model, prompts -> one choice for each prompt
    prompt_tokens: Callable[[Any], int]  # answer -> tokens of all its prompts
    is_out_of_quota: Callable[[bytes], bool]  # an answer 429 -> whether the account is used up; else: come back later
    salt_field: str | None = None  # that keeps cached prompts apart; None: prompts cannot be kept apart


@dataclass(frozen=True, slots=True)
class TopTokens:
    """How the top-k first tokens are asked for, by their texts."""

    k: int  # if model.top_logprobs is not set
    ask: Callable[[int], Fields]  # k -> fields
    read: Callable[[Any, str, int], list[dict[str, float]]]  # answer, model, prompts -> text -> log P, nats


@dataclass(frozen=True, slots=True)
class Labels:
    """How exact log-probabilities of tokens are asked for by their ids, and, to compare, the top-k tokens by ids."""

    max_ids: int  # of a request
    ask: Callable[[Sequence[int]], Fields]
    read: Callable[
        [Any, str, int, Sequence[int]], npt.NDArray[np.float64]
    ]  # answer, model, prompts, ids -> f64[prompts, ids]
    ask_top: Callable[[], Fields]
    read_top: Callable[[Any, str], dict[int, float]]  # answer, model -> id -> log P, nats


class AskForTokens(Protocol):
    """Returns the body of a request for the tokens of a text; `special` adds what starts a sequence."""

    def __call__(self, model: str, text: str, *, special: bool) -> Fields: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """How the model's own tokenizer is asked."""

    path: str
    ask: AskForTokens
    read: Callable[[Any], list[int]]


@dataclass(frozen=True, slots=True)
class Models:
    """How the list of served models is asked for, and what is read of it."""

    path: str
    served: Callable[[Any], dict[str, int | None]]  # answer -> context length, in tokens, by model
    root: Callable[[Any, str], str | None]  # answer, model -> the weights that were loaded
    max_model_len: Callable[[Any, str], int]  # answer, model -> context length in tokens


@dataclass(frozen=True, slots=True)
class Version:
    """How the engine's version is asked for, and what follows from it."""

    path: str
    read: Callable[[Any], str]
    is_too_old: Callable[[str], bool]
    standing: Callable[[str], str]  # version -> whether it is tested, and if not, what then shows that it works


@dataclass(frozen=True, slots=True)
class Counters:
    """How the server's own counts of tokens are asked for."""

    path: str
    read: Callable[[Any], Metrics]  # JSON, or bytes of anything else


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a server that cannot do what a run needs."""

    serve: str  # instead of it
    labels: str = ""  # what exact label log-probabilities require
    caching: str = ""  # how prefix caching is switched on
    served_name: str = ""  # the option that names a model
    reproducible: str = ""  # how a server is started whose answers do not depend on the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine: how it is set, started, asked and read."""

    product: str  # its name in messages
    key_variable: str  # of the environment, or of the secrets file
    url_variable: str | None = None  # the same, of the URL of a server that already runs
    default_url: str | None = None  # of that server, if none is set
    needs_key: bool = False
    options: Options  # which of model.vllm_args a run sets itself
    advice: Advice

    start: Start | None = None  # None: others run it, with their own weights and rate limits
    has_weights: bool = True  # False: there is no memory to plan
    allows_any_context: Callable[["ModelConfig"], bool] | None = None  # None: never more than the model's positions
    cpu_cache_gb: Callable[["ModelConfig"], float | None] | None = None  # of a process without GPUs, if it is known
    # (model, GPUs of a node) -> why answers depend on the other prompts of a batch although model.reproducible is set.
    batch_dependence: Callable[["ModelConfig", int], str | None] | None = None  # None: they never do
    is_checked: bool = False  # before its first use in a start of the driver

    completions: Completions
    top: TopTokens
    labels: Labels | None = None  # None: scoring=top20 only
    tokens: Tokens | None = None  # None: lengths are estimated
    models: Models | None = None  # None: the settings name the model and its context
    version: Version | None = None
    counters: Counters | None = None
    to_replica: Callable[[int], dict[str, str]] | None = None  # number -> headers; None: one replica only
