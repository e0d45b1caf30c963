"""How long a search takes on GPUs: a forecast by a roofline, one scoring of the pool a step."""

import numpy as np

from ..config.schema import Config
from ..core.cost import Cost
from ..scoring.prompts import TokenPrompts
from ..tasks import Task
from . import forecast
from .demand import serving_of
from .fit import Model
from .forecast import GPUS

BLOCK_SIZE = 16  # vLLM's own on GPUs
POOLS = 6  # sizes of the pool at which a scoring's cost is worked out


def cost(config: Config, part: Task, tokens: TokenPrompts, pool: int | None = None) -> Cost:
    """Return what one scoring costs, of all examples or of the first `pool`."""
    groups, size = part.problem().groups, config.model.block_size or BLOCK_SIZE
    return tokens.cost(config.search.layout, groups, size, replicas=config.server.replicas, pool=pool)


def seconds(config: Config, model: Model, part: Task, tokens: TokenPrompts) -> float:
    """Return the seconds of one search as its pool grows by one example a step, each scoring from an empty cache."""
    n, search = len(part.examples), config.search
    first = min(max(search.num_seeds, 2), n)
    sizes = np.unique(np.geomspace(first, n, POOLS).astype(int))
    each = [_scoring_seconds(config, model, cost(config, part, tokens, int(size))) for size in sizes]
    return float(np.interp(np.minimum(first + np.arange(search.steps), n), sizes, each).sum())


def _scoring_seconds(config: Config, model: Model, one: Cost) -> float:
    gpu = GPUS[config.cluster.gpu or ""]
    serving = serving_of(config)
    dtype = "fp8" if model.weights_bytes < 1.5 * model.shape.parameters else "bf16"
    replicas = serving.replicas
    return forecast.seconds(
        one, model.shape, gpu, serving.gpus, dtype, batch_tokens=serving.batch_tokens, replicas=replicas
    )
