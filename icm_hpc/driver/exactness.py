"""How exactly a run can be repeated: the engine's noise, the steps that it may have decided, and how often the run began."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.schema import Config
from ..rundir import measured, trace
from ..rundir.attempts import attempts
from ..rundir.folder import RunDir, ServedModel
from ..rundir.measured import Measured

WITHIN_NOISE = (
    "{within} of {watched} steps came out otherwise when scores were moved by the engine's noise ({noise:.1g} nats): another"
    " run with the same settings may end with other labels{resumed}"
)
RESUMED = ", and this one, which began {starts} times, may have ended otherwise than without the interruptions"
NOT_REPRODUCIBLE = (
    "model.reproducible=true, and log-probabilities still differ by up to {noise:.1g} nats between two requests: what the"
    " server says of batch invariance is in its log"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """What summary.json says of how exactly a run can be repeated."""

    reproducible: bool  # model.reproducible: answers are not to depend on other requests
    starts: int  # of the driver; more than 1: the run was started again
    # By which a log-probability differs between two requests, at most, as it was measured; nats.
    noise: float | None
    steps: int  # of all searches
    steps_watched: int  # of these, those that were done again with scores moved by the noise
    steps_within_noise: int  # of these, those that came out otherwise

    def __str__(self) -> str:
        began = f"began {self.starts} time{'s' * (self.starts != 1)}"
        if self.noise is None:
            return f"the engine's noise was not measured; the run {began}"
        watched = f"{self.steps_watched} steps" + (
            f" watched, of {self.steps}," if self.steps > self.steps_watched else ""
        )
        depends = f"{self.steps_within_noise} of {watched} may depend on it; " if self.steps else ""
        return f"noise of the engine {self.noise:.1g} nats; {depends}the run {began}"


@dataclass(frozen=True, slots=True)
class Server:
    """What a run's folder knows of its server, and of how exactly what it answers can be repeated."""

    served: ServedModel | None
    measured: Measured | None
    exactness: Exactness


def server_of(config: Config, run_dir: RunDir, searches: Sequence[Path] = ()) -> Server:
    """Return it, given the folders of the run's searches. Raises OSError."""
    known, counts = measured.of_run(run_dir.measured, config), [trace.watched(folder) for folder in searches]
    exactness = Exactness(
        reproducible=config.model.reproducible,
        starts=len(attempts(run_dir)),
        noise=known.noise.largest if known and known.noise else None,
        steps=sum(one.steps for one in counts),
        steps_watched=sum(one.watched for one in counts),
        steps_within_noise=sum(one.within_noise for one in counts),
    )
    return Server(run_dir.read_served_model(), known, exactness)


def cautions(found: Exactness) -> Iterator[str]:
    """Yield what makes a run's labels depend on the engine's noise: no fault, but to be known."""
    if found.steps_within_noise and found.noise is not None:
        resumed = RESUMED.format(starts=found.starts) if found.starts > 1 else ""
        yield WITHIN_NOISE.format(
            within=found.steps_within_noise, watched=found.steps_watched, noise=found.noise, resumed=resumed
        )


def warnings(found: Exactness) -> Iterator[str]:
    """Yield what is not as the settings promise it."""
    if found.reproducible and found.noise:
        yield NOT_REPRODUCIBLE.format(noise=found.noise)
