"""The figures of a run, as summary.json holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config.schema import Config
from ..core import energy as of_pool
from ..core.types import Problem, pool_of
from ..rundir.folder import ServedModel
from ..rundir.outcome import Outcome

ENGINE_NOISE = 1e-4  # by which one log-probability may differ between two requests; nats


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """The figures of a shard, as summary.json holds them."""

    examples: int
    labelled_by_search: int
    label_counts: dict[str, int]  # by label word
    label_entropy: float
    energy: float  # of the labelling that the best search chose
    last_energy: float  # of the last state of that search
    conflicts: int  # pairs of the result that break a rule
    one_label_for_all: dict[str, dict[str, float]]  # energy and conflicts, by label word
    beats_one_label_for_all: bool
    steps: int
    flips: int  # accepted proposals
    restart: int  # of the best search


@dataclass(frozen=True, slots=True)
class SinceStart:
    """What a start of the run did, all measured: the fields of Work and of Traffic, and those of its server."""

    scorings: int
    scorings_from_memo: int
    proposals_abandoned: int
    waits: int
    waiting_s: float
    requests: int
    prompts: int
    prompt_tokens: int
    retries: int
    failures: dict[str, int]
    servers_lost: int
    # By the server's own counters, since the last time that it was lost; None if it does not report them.
    server_prompt_tokens: int | None
    server_computed_tokens: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """summary.json: the figures of a run, of its shards and of this start."""

    task: str
    model: str
    served_model: (
        dict[str, str | None] | None
    )  # its server's name for the model, and what that server loaded, if it says
    protocol: str
    seed: int
    examples: int
    labelled_by_search: int
    labelled_by_completion: int  # by the last pass
    label_counts: dict[str, int]  # by label word
    energy: float  # mean over shards
    conflicts: int  # pairs of the result that break a rule
    steps: int  # of the best search of each shard, summed
    flips: int  # accepted proposals of these
    shards: Sequence[ShardFigures]
    since_start: SinceStart


def figures_of(outcome: Outcome, problem: Problem, label_words: Sequence[str], alpha: float) -> ShardFigures:
    """Return the figures of a shard."""
    counts = of_pool.counts(outcome.labels, problem.n_labels)
    words = [word.strip() for word in label_words]
    energy, broken = outcome.energy, len(of_pool.broken(problem, outcome.searched))
    uniform = [{"energy": one, "conflicts": conflicts} for one, conflicts in outcome.uniform]
    end = outcome.ends[outcome.restart]
    return ShardFigures(
        examples=problem.n,
        labelled_by_search=len(pool_of(outcome.searched)),
        label_counts=dict(zip(words, counts, strict=True)),
        label_entropy=of_pool.entropy(counts),
        energy=energy,
        last_energy=end.energy,
        conflicts=len(of_pool.broken(problem, outcome.labels)),
        one_label_for_all=dict(zip(words, uniform, strict=True)),
        beats_one_label_for_all=all(
            broken < conflicts or energy > one + alpha * ENGINE_NOISE for one, conflicts in outcome.uniform
        ),
        steps=end.step,
        flips=end.flips,
        restart=outcome.restart,
    )


def summary_of(
    config: Config, shards: Sequence[ShardFigures], since_start: SinceStart, served: ServedModel | None
) -> Summary:
    """Return the figures of a run."""

    def total(key: str) -> Any:
        return sum(getattr(figures, key) for figures in shards)

    words = shards[0].label_counts
    return Summary(
        task=config.task.name,
        model=config.model.name,
        served_model={"name": served.name, "root": served.root} if served else None,
        protocol=config.search.protocol,
        seed=config.search.seed,
        examples=total("examples"),
        labelled_by_search=total("labelled_by_search"),
        labelled_by_completion=total("examples") - total("labelled_by_search"),
        label_counts={word: sum(figures.label_counts[word] for figures in shards) for word in words},
        energy=total("energy") / len(shards),
        conflicts=total("conflicts"),
        steps=total("steps"),
        flips=total("flips"),
        shards=shards,
        since_start=since_start,
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the figures as summary.json holds them, and as the driver's job returns them."""
    return asdict(summary)


def from_json(values: Mapping[str, Any]) -> Summary:
    """Return the figures that `to_json` has made `values` of."""
    shards = [ShardFigures(**figures) for figures in values["shards"]]
    return Summary(**{**values, "shards": shards, "since_start": SinceStart(**values["since_start"])})
