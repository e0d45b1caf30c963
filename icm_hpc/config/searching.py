"""From the settings of the search to the values that the core takes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..core.layout import LAYOUTS
from ..core.methods import METHODS
from ..core.methods.method import Method
from ..core.types import Annealing, Budget
from ..errors import ConfigError
from .schema import Config, SearchConfig

BY_METHOD = ("schedule", "initial_temperature", "decay")  # settings that are the method's own unless they are given


def with_method(config: SearchConfig) -> SearchConfig:
    """Fill in what is left to the method."""
    usual = {name: METHODS[config.method].defaults.get(name, getattr(Annealing(), name)) for name in BY_METHOD}
    left = {name: value for name, value in usual.items() if getattr(config, name) in (None, "")}
    if "initial_temperature" in left:
        left["initial_temperature"] = max(left["initial_temperature"], config.final_temperature)
    return replace(config, **left)


def annealing_of(config: SearchConfig, *, restart: int = 0) -> Annealing:
    """Return the annealing's parameters of a search, whose prior is known (`with_shares`)."""
    assert isinstance(config.label_prior, list), "it is estimated before any search"
    filled = {"label_prior", "first_labels", "predict_from_pool"}
    total = sum(config.label_prior)
    return Annealing(
        **{name: getattr(config, name) for name in Annealing.__dataclass_fields__.keys() - filled},
        label_prior=tuple(share / total for share in config.label_prior),
        first_labels="random" if restart else config.first_labels,
        predict_from_pool=not LAYOUTS[config.layout].depends_on_purpose,
    )


def is_estimated(config: SearchConfig) -> bool:
    """Return whether the shares of labels are still to be estimated."""
    return config.label_prior == "estimated"


def with_shares(config: Config, shares: Iterable[float]) -> Config:
    """Return the settings with these shares of labels: what a search knows of, and what its saved state must agree with."""
    return replace(config, search=replace(config.search, label_prior=list(shares)))


def require_prior(config: SearchConfig, label_words: Sequence[str]) -> None:
    """Raise ConfigError for a prior that is not of these labels."""
    given = [] if is_estimated(config) else config.label_prior
    if given and len(given) != len(label_words):
        words = ", ".join(word.strip() for word in label_words)
        raise ConfigError(
            f"search.label_prior has {len(given)} shares, and the task has {len(label_words)} labels: {words}"
        )


def method_of(config: SearchConfig) -> Method:
    """Return the search method."""
    return METHODS[config.method]


def budget_of(config: SearchConfig, n: int) -> Budget:
    """Return what a search of n examples may spend."""
    usual = method_of(config).budget(n)
    scorings = usual.scorings if config.scorings is None else config.scorings
    steps = usual.steps if config.steps is None else config.steps
    if config.steps is None and steps and usual.scorings and scorings:
        steps = max(steps, steps * scorings // usual.scorings)
    return Budget(steps, scorings)
