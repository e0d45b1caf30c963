"""Settings in full: what their engine, protocol and method decide, once all that the user has written is read."""

import dataclasses

from ..core.scorings import SCORINGS
from ..engines import ENGINES
from ..errors import ConfigError
from . import searching
from .schema import PROTOCOLS, Config


def with_engine(config: Config) -> Config:
    """Fill in what the engine allows no choice of; raises ConfigError for what it cannot do."""
    model, server, search = config.model, config.server, config.search
    engine = ENGINES[model.engine]
    if engine.start is not None:
        limits = {"requests_per_min": server.requests_per_min, "tokens_per_min": server.tokens_per_min}
        told = [f"server.{key}" for key, value in limits.items() if value is not None]
        told += ["model.top_logprobs"] if model.top_logprobs is not None else []
        if told:
            others = " or ".join(name for name, one in ENGINES.items() if one.start is None)
            raise ConfigError(f"{', '.join(told)}: only for engine={others}, and this is engine={model.engine}")
    if server.replicas > 1 and engine.to_replica is None:
        raise ConfigError(f"server.replicas={server.replicas}: engine={model.engine} has no replicas to choose from")
    if engine.labels is not None:
        return config
    possible = next(name for name, one in SCORINGS.items() if one.reads_top_tokens)
    asks_for_all = {
        "search.word_prior=true": search.word_prior,
        "search.label_prior=estimated": search.label_prior == "estimated",
        f"search.scoring={search.scoring}": search.scoring and not SCORINGS[search.scoring].reads_top_tokens,
    }
    refused = [setting for setting, is_set in asks_for_all.items() if is_set]
    if refused:
        raise ConfigError(
            f"{refused[0]}: engine={model.engine} returns top-k log-probabilities only, not every label's:"
            " leave it out, or use a vLLM server"
        )
    return dataclasses.replace(config, search=dataclasses.replace(search, scoring=possible))


def with_protocol(config: Config) -> Config:
    """Fill in what is left empty."""
    for dotted, value in PROTOCOLS[config.search.protocol].items():
        section, key = dotted.split(".")
        if not getattr(getattr(config, section), key):
            filled = dataclasses.replace(getattr(config, section), **{key: value})
            config = dataclasses.replace(config, **{section: filled})
    return dataclasses.replace(config, search=searching.with_method(config.search))
