"""The part of a plan that says how long a run will take, and what that costs."""

from ..config.schema import Config
from ..heldout import conditions
from . import search_time
from .demand import Demand
from .found import Plan
from .search_time import Clock


def add(found: Plan, config: Config, clock: Clock, demand: Demand) -> None:
    """Add the forecast of a run: the scorings that the search method is expected to do, each from an empty cache."""
    restarts, ends = config.search.restarts, len(demand.searched)  # each shard ends with its labels on other texts
    found.figures["forecast_scorings"] = ends + restarts * sum(
        len(search_time.scorings(config, part)) for part, _ in demand.searched
    )
    beyond = search_time.applied_cost(config, demand)
    once = [search_time.cost(config, part, tokens) for part, tokens in demand.searched]
    once += [one for one in (beyond, search_time.prior_cost(config, demand)) if one]
    seconds = restarts * sum(search_time.seconds(config, clock, part, tokens) for part, tokens in demand.searched)
    seconds += sum(clock.seconds_of(one) for one in once)
    if demand.test:
        seconds += _add_test(found, config, clock, demand)
    hours = seconds / 3600
    gpus = 0 if config.external_url is not None else config.nodes * config.gpus_per_node
    found.figures |= {"forecast_hours": hours, "forecast_gpu_hours": hours * gpus, "forecast": clock.source}
    limit_h = config.cluster.time_min / 60
    further = ""
    if beyond:
        found.figures["forecast_beyond_tokens"] = beyond.computed_tokens
        further = f" and {beyond.prompts:,} examples beyond the pool ({beyond.computed_tokens:,} tokens)"
    spent = f", {hours * gpus:.1f} GPU-hours" if gpus else ""
    found.lines["time"] = (
        f"forecast {clock.source}: {found.figures['forecast_scorings']:,} scorings{further}, {_written(hours)} of search with"
        f" the server up{spent}; the time limit is {limit_h:g} h"
    )
    price = config.cluster.gpu_hour_price
    if price is not None and gpus:
        found.figures["forecast_cost"] = hours * gpus * price
        found.lines["cost"] = (
            f"forecast: {hours * gpus * price:,.2f} at {price:g} a GPU-hour, without the server's start"
        )
    if hours > limit_h:
        found.notes.append(
            f"the search will take about {int(hours / limit_h) + 1} starts of the job, each going on from the last"
        )


def _add_test(found: Plan, config: Config, clock: Clock, demand: Demand) -> float:
    """Forecast the held-out evaluation; return its seconds."""
    part, tokens = demand.parts[0]
    one, scoring = search_time.test_cost(config, demand), search_time.cost(config, part, tokens)
    wanted, restarts = conditions.wanted(config), config.search.restarts
    labellings = sum(restarts if name in conditions.SEVERAL else 1 for name in wanted)
    scorings = sum(conditions.SCORINGS[name] * (restarts if name in conditions.SEVERAL else 1) for name in wanted)
    if one is None:
        return 0.0
    found.figures |= {"test": one.prompts, "forecast_test_tokens": labellings * one.computed_tokens}
    found.lines["evaluation"] = (
        f"forecast: {one.prompts:,} held-out examples given {labellings} labellings of the pool"
        f" ({labellings * one.computed_tokens:,} tokens), {scorings} scorings of the pool"
    )
    once_s = clock.seconds_of(one)
    return labellings * once_s + scorings * clock.seconds_of(scoring)


def _written(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"
