"""Whether prompts fit a model's context, and what would fit: fewer examples together, or a longer context."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.schema import Config
from ..scoring import tokenizer
from ..tasks import Task
from .demand import Demand, demand_of

POOL_SHARE = 0.95  # of the examples that would fit if all were as long: some are longer
TRIES = 8  # of pool sizes, each smaller, before none is proposed
NAMED = 3  # of the examples that fit no prompt, at most


@dataclass(frozen=True, slots=True)
class TooLong:
    """An example that no prompt can hold."""

    id: str
    tokens: int  # of it alone, with the token that is generated


def too_long(demand: Demand, context: int) -> list[TooLong]:
    """Return the examples that exceed the context even as the only one of a prompt, for certain; the longest first."""
    found = (one for one in _alone(demand) if one.tokens > context)
    return sorted(found, key=lambda one: -one.tokens)


def longest(demand: Demand) -> TooLong:
    """Return the longest example."""
    return max(_alone(demand), key=lambda one: one.tokens)


def _alone(demand: Demand) -> Iterator[TooLong]:
    for part, tokens in demand.every:
        if demand.counted:
            ends = tokens.lengths.start - tokens.lengths.suffix + 1
            lengths = [int(length) + ends for length in tokens.demonstration_tokens]
        else:
            lengths = [int(tokenizer.at_least(example.text)) + 1 for example in part.examples]
        yield from (TooLong(str(example.id), n) for example, n in zip(part.examples, lengths, strict=True))


def misfit(demand: Demand, config: Config) -> str:
    """Return why the longest prompt does not fit, naming the examples that no prompt can hold."""
    context, most = config.model.max_model_len, max(len(part.examples) for part, _ in demand.parts)
    estimated = "" if demand.counted else " (estimated)"
    alone = too_long(demand, context)
    if not alone:
        return (
            f"a prompt with all {most} examples is {demand.longest:,} tokens{estimated}, and"
            f" model.max_model_len={context:,}"
        )
    named = ", ".join(f"{one.id!r} is {one.tokens:,} tokens{estimated}" for one in alone[:NAMED])
    more = f", and {len(alone) - NAMED} more are too long" if len(alone) > NAMED else ""
    return f"the example {named} by itself{more}, and model.max_model_len={context:,}: shorten or remove it"


def pool_size(demand: Demand, config: Config, task: Task, folder: Path | None) -> int | None:
    """Return a search.pool_size whose prompts fit for certain, or None if none is found."""
    context, most = config.model.max_model_len, max(len(part.examples) for part, _ in demand.parts)
    if too_long(demand, context):
        return None
    size = int(POOL_SHARE * most * context / demand.at_most)
    for _ in range(TRIES):
        if size < 2:
            return None
        smaller = replace(config, search=replace(config.search, pool_size=size))
        at_most = demand_of(smaller, task, folder).at_most
        if at_most <= context:
            return size
        size = min(size - 1, int(POOL_SHARE * size * context / at_most))
    return None
