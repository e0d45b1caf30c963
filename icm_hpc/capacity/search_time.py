"""How long a search takes on GPUs: a forecast by a roofline, of the scorings that its method is expected to do."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config.schema import Config
from ..config.searching import annealing_of, budget_of, is_estimated, method_of, with_shares
from ..core.cost import Cost, repeated
from ..core.cost import applied_cost as applied_cost_of
from ..core.methods.method import forecast_of
from ..scoring import label_prior
from ..scoring.prompts import TokenPrompts
from ..tasks import Task
from . import forecast
from .demand import Demand, serving_of
from .fit import Model
from .forecast import GPUS

BLOCK_SIZE = 16  # vLLM's own on GPUs
POOLS = 6  # sizes of the pool at which a scoring's cost is worked out


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
    if not is_estimated(config.search) or demand.pool_is_given:
        return None
    (_, first), size = demand.every[0], config.model.block_size or BLOCK_SIZE
    alone = [text for _, tokens in demand.every for text in tokens.lengths.firsts][: label_prior.SAMPLE]
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
    annealing = annealing_of(
        with_shares(config, []).search
    )  # no forecast depends on them, and they may not be known yet
    return forecast_of(method_of(config.search), problem, annealing, budget_of(config.search, problem.n))


def seconds(config: Config, model: Model, part: Task, tokens: TokenPrompts) -> float:
    """Return the seconds of the scorings of one search, each from an empty cache."""
    pools = scorings(config, part)
    if not pools:
        return 0.0
    sizes = np.unique(np.geomspace(min(pools), max(pools), POOLS).astype(int))
    each = [seconds_of(config, model, cost(config, part, tokens, int(size))) for size in sizes]
    return float(np.interp(pools, sizes, each).sum())


def seconds_of(config: Config, model: Model, one: Cost) -> float:
    """Return the seconds of one scoring, or of what is asked beyond the pool, from an empty cache."""
    gpu = GPUS[config.cluster.gpu or ""]
    serving = serving_of(config)
    dtype = "fp8" if model.weights_bytes < 1.5 * model.shape.parameters else "bf16"
    replicas = serving.replicas
    return forecast.seconds(
        one, model.shape, gpu, serving.gpus, dtype, batch_tokens=serving.batch_tokens, replicas=replicas
    )
