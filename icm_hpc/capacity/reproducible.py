"""Whether a run's answers can be independent of what its server computes at the same time (model.reproducible)."""

from collections.abc import Iterator

from ..config.schema import Config
from ..engines import ENGINES

REMEDY = "model.reproducible=false"
FP8 = (
    "model.reproducible=true: vLLM states batch invariance of 16-bit weights, and nothing of FP8: the run measures at its start"
    " whether answers still differ, and warns"
)


def misfits(config: Config) -> Iterator[str]:
    """Yield why it cannot be had."""
    if not config.model.reproducible:
        return
    engine = ENGINES[config.model.engine]
    if config.external_url is not None:
        yield (
            f"model.reproducible=true says how a server is started, and {config.external_url} runs already: start that one so"
            f" ({engine.advice.reproducible or 'its operator must'})"
        )
    elif engine.batch_dependence and (reason := engine.batch_dependence(config.model, config.gpus_per_node)):
        yield f"model.reproducible=true: {reason}"


def notes(config: Config) -> Iterator[str]:
    """Yield what is not certain of it."""
    told = f"{config.model.quantization} {config.model.name} {config.model.path}".lower()
    if config.model.reproducible and "fp8" in told:
        yield FP8
