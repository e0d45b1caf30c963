"""How long a search takes: a forecast, of the scorings that its method is expected to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import tasks
from ..config.schema import Config
from ..config.searching import annealing_of, budget_of, is_estimated, method_of, with_shares
from ..core.cost import Cost, repeated
from ..core.cost import applied_cost as applied_cost_of
from ..core.methods.method import forecast_of
from ..driver import pools
from ..rundir.measured import Measured
from ..scoring import label_prior
from ..scoring.prompts import TokenPrompts
from ..tasks import Task
from . import forecast
from .demand import Demand, hardware_of, serving_of
from .fit import Model
from .forecast import GPUS

BLOCK_SIZE = 16  # vLLM's own on GPUs
POOLS = 6  # sizes of the pool at which a scoring's cost is worked out


@dataclass(frozen=True, slots=True)
class Clock:
    """How long work takes."""

    seconds_of: Callable[[Cost], float]  # of one scoring, or of what is asked beyond the pool, from an empty cache
    source: str  # of the forecast


def cost(config: Config, part: Task, tokens: TokenPrompts, pool: int | None = None) -> Cost:
    """Return what one scoring costs, of all examples or of the first `pool`."""
    groups, size = part.problem().groups, config.model.block_size or BLOCK_SIZE
    return tokens.cost(config.search.layout, groups, size, replicas=config.server.replicas, pool=pool)


def applied_cost(config: Config, demand: Demand) -> Cost | None:
    """Return what it costs to label the examples beyond the pool; None without any."""
    if demand.beyond is None:
        return None
    (_, pool), (_, tokens) = demand.parts[0], demand.beyond
    return _given_cost(config, pool, tokens)


def test_cost(config: Config, demand: Demand) -> Cost | None:
    """Return what it costs to label the held-out examples once, given the pool; None without any."""
    if demand.test is None:
        return None
    (_, pool), (_, tokens) = demand.parts[0], demand.test
    return _given_cost(config, pool, tokens)


def prior_cost(config: Config, demand: Demand) -> Cost | None:
    """Return what it costs to estimate the shares of labels; None where they are given, or were estimated by another run."""
    if not is_estimated(config.search) or pools.knows(config, tasks.LABEL_PRIOR):
        return None
    asked = demand.parts if demand.pool_is_given else demand.every
    (_, first), size = asked[0], config.model.block_size or BLOCK_SIZE
    alone = [text for _, tokens in asked for text in tokens.lengths.firsts][: label_prior.SAMPLE]
    lengths = replace(first.lengths, texts=alone)
    once = applied_cost_of(first.lengths.start, lengths, size, replicas=config.server.replicas)
    return repeated(once, len(first.answers.nodes), size)


def _given_cost(config: Config, pool: TokenPrompts, tokens: TokenPrompts) -> Cost:
    size = config.model.block_size or BLOCK_SIZE
    once = applied_cost_of(pool.longest_after(0), tokens.lengths, size, replicas=config.server.replicas)
    return repeated(once, len(tokens.answers.nodes), size)


def scorings(config: Config, part: Task) -> Sequence[int]:
    """Return the examples in each scoring that one search of a part is expected to do."""
    problem = part.problem()
    # No forecast depends on shares of labels, and they may not be known yet.
    annealing = annealing_of(with_shares(config, []).search)
    return forecast_of(method_of(config.search), problem, annealing, budget_of(config.search, problem.n))


def clock_of(config: Config, model: Model | None, measured: Measured | None) -> Clock | None:
    """Return how long scorings take: as measured, else by a roofline of known GPUs; None if neither is available."""
    shape, replicas = model.shape if model else None, config.server.replicas
    speed = forecast.measured_operations_per_s(shape, measured) if measured else None
    if speed:

        def at_speed(one: Cost) -> float:
            return forecast.operations(shape, one.computed_tokens, one.context_tokens) / speed / replicas

        return Clock(at_speed, "at the speed that was measured")
    if model is None or hardware_of(config) is None:
        return None
    return Clock(lambda one: _by_roofline(config, model, one), "by a roofline")


def seconds(config: Config, clock: Clock, part: Task, tokens: TokenPrompts) -> float:
    """Return the seconds of the scorings of one search, each from an empty cache."""
    pools = scorings(config, part)
    if not pools:
        return 0.0
    sizes = np.unique(np.geomspace(min(pools), max(pools), POOLS).astype(int))
    each = [clock.seconds_of(cost(config, part, tokens, int(size))) for size in sizes]
    return float(np.interp(pools, sizes, each).sum())


def _by_roofline(config: Config, model: Model, one: Cost) -> float:
    gpu = GPUS[config.cluster.gpu or ""]
    serving = serving_of(config)
    dtype = "fp8" if model.weights_bytes < 1.5 * model.shape.parameters else "bf16"
    replicas = serving.replicas
    return forecast.seconds(
        one, model.shape, gpu, serving.gpus, dtype, batch_tokens=serving.batch_tokens, replicas=replicas
    )
