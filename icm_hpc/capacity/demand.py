"""What a run asks of its server, and what serves it, as the arithmetic of capacity.fit takes them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import tasks
from ..config.schema import Config, ModelConfig
from ..config.searching import is_estimated, require_prior
from ..core.json_values import from_json
from ..driver import pools
from ..engines import ENGINES
from ..scoring import prompts, tokenizer, word_prior
from ..scoring.prompts import TokenPrompts
from ..scoring.tokenizer import LocalTokenizer
from ..serving import weights
from ..tasks import LABEL_PRIOR, WORD_PRIOR, Division, Task
from . import forecast
from .fit import Hardware, Model, Serving
from .forecast import GPUS

VALUE_BYTES = {"float32": 4, "float": 4}  # of other types, and of auto: 2


@dataclass(frozen=True, slots=True)
class Demand:
    """What a task asks of a model."""

    parts: tuple[tuple[Task, TokenPrompts], ...]  # by shard
    counted: bool  # by the model's own tokenizer; else estimated
    beyond: tuple[Task, TokenPrompts] | None = None  # what is labelled given the one shard
    pool_is_given: bool = False  # the shard is the pool of another run, and is not searched
    test: tuple[Task, TokenPrompts] | None = None  # held-out examples, labelled given the first shard

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        (_, pool), given = self.parts[0], [one for one in (self.beyond, self.test) if one]
        behind = [pool.longest_after(max(map(len, tokens.lengths.texts))) for _, tokens in given]
        longest: int = max([*behind, *(() if self.beyond else (tokens.longest for _, tokens in self.parts))])
        return longest

    @property
    def searched(self) -> tuple[tuple[Task, TokenPrompts], ...]:
        """The parts that are searched."""
        return () if self.pool_is_given else self.parts

    @property
    def every(self) -> tuple[tuple[Task, TokenPrompts], ...]:
        """All that is labelled: the parts that are searched, and what is beyond the pool."""
        return (*self.searched, *([self.beyond] if self.beyond else []))

    @property
    def at_least(self) -> int:
        """Tokens that the longest prompt has for certain."""
        return self.longest if self.counted else self._estimated(tokenizer.at_least)

    @property
    def at_most(self) -> int:
        """Tokens that it may have."""
        return self.longest if self.counted else self._estimated(tokenizer.at_most)

    def _estimated(self, tokens: Callable[[str], float]) -> int:
        """Return the length of the longest prompt, and of the token that is generated, by what each text is worth."""
        (pool, _), given = self.parts[0], [task for task, _ in filter(None, (self.beyond, self.test))]
        behind = [_longest(pool, tokens, max(tokens(example.text) for example in task.examples)) for task in given]
        return int(max([*behind, *(() if self.beyond else (_longest(part, tokens) for part, _ in self.parts))]))

    @property
    def context(self) -> int:
        """A max_model_len that holds it: whole kilotokens."""
        return -(-self.at_most // 1024) * 1024


def _longest(task: Task, tokens: Callable[[str], float], after: float | None = None) -> float:
    """Return the tokens of a prompt with all examples, of a text of so many tokens after them, and of the one generated."""
    each = 1 + tokens(task.separator)  # a label word is one token
    ends = (len(task.examples) - 1) * each if after is None else len(task.examples) * each + after
    return sum(tokens(example.text) for example in task.examples) + ends + 1


def demand_of(config: Config, task: Task, folder: Path | None, test: Task | None = None) -> Demand:
    """Return a task's prompts, in the model's tokens or in estimated ones; raises TaskError for unusable label words."""
    prompts.require_readable(task, config.search.scoring)
    require_prior(config.search, task.label_words)
    local = LocalTokenizer(config.model.name, folder)
    required_by = {WORD_PRIOR: config.search.word_prior, LABEL_PRIOR: is_estimated(config.search)}
    if config.search.pool_run:
        division = Division((pools.task_for(config),), task)
    else:
        division = tasks.divided(task, config.search.pool_size, config.search.beyond)
    measured = division.shards[0] if config.search.pool_run else task
    for setting in (name for name, is_set in required_by.items() if is_set and not pools.knows(config, name)):
        asyncio.run(word_prior.prompts_of(local, measured, setting))  # its errors are known before the job is queued
    parts = [*division.shards, *([division.beyond] if division.beyond else [])]
    tokens = [asyncio.run(prompts.of_tokens(local, part)) for part in parts]
    every = tuple(zip(parts, tokens, strict=True))
    shards, beyond = every[: len(division.shards)], every[-1] if division.beyond else None
    held_out = (test, asyncio.run(prompts.of_tokens(local, test))) if test else None
    return Demand(shards, local.exact, beyond, pool_is_given=bool(config.search.pool_run), test=held_out)


def model_of(configured: ModelConfig, folder: Path | None) -> Model | None:
    """Return what is known of a model from its files, else from its preset; None if its shape or its size is not."""
    shape = forecast.shape_of(_told(configured, folder))
    if shape is None:
        return None
    allows_any_context = ENGINES[configured.engine].allows_any_context
    if allows_any_context and allows_any_context(configured):
        shape = replace(shape, max_positions=None)
    value = VALUE_BYTES.get(configured.dtype, 2)
    kv = 1 if (configured.kv_cache_dtype or "").startswith("fp8") else value
    loaded = _loaded_bytes(configured, folder, shape.parameters * value)
    return None if loaded is None else Model(shape, loaded, value, kv)


def _told(configured: ModelConfig, folder: Path | None) -> Mapping[str, Any]:
    """Return the model's config.json, or what the preset says of it."""
    try:
        told = from_json((folder / "config.json").read_bytes()) if folder else configured.shape
    except (OSError, ValueError):
        return configured.shape
    return told if isinstance(told, dict) else {}


def _loaded_bytes(configured: ModelConfig, folder: Path | None, unquantised: float) -> float | None:
    """Return the bytes of the weights once loaded, None if that is not known."""
    files = weights.weights_bytes(folder) if folder else 0
    stated = configured.weights_gb and configured.weights_gb * 1e9
    if configured.quantization == "fp8":  # of weights that are not, at loading
        return min(filter(None, (files, stated, unquantised / 2)))
    if configured.quantization is not None:
        return files or stated
    return min(files, unquantised * 1.1) if files else stated or unquantised  # files may hold a wider type


def serving_of(config: Config) -> Serving:
    """Return how the model is to be served."""
    model = config.model
    return Serving(
        tensor=model.tensor_parallel_size,
        pipeline=model.pipeline_parallel_size,
        replicas=config.server.replicas,
        nodes=config.nodes,
        context=model.max_model_len,
        batch_tokens=model.max_num_batched_tokens,
        sequences=model.max_num_seqs,
        memory_share=model.gpu_memory_utilization,
        asked_per_node=config.server.gpus_per_node or None,
    )


def hardware_of(config: Config) -> Hardware | None:
    """Return what serves, or None if it has no GPUs, or of a kind that is not stated or not known."""
    cluster = config.cluster
    if cluster.gpu not in GPUS or config.gpus_per_node == 0:
        return None
    return Hardware(GPUS[cluster.gpu].memory_gb, cluster.node_gpus, cluster.max_nodes)
