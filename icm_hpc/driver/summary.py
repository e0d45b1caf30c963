"""The figures of a run, as summary.json holds them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..config.schema import Config, SearchConfig
from ..config.searching import is_estimated
from ..core import agreement, alarms
from ..core import energy as of_pool
from ..core.json_values import typed
from ..core.memo import Rows
from ..core.types import Annealing, Problem, pool_of
from ..core.units import links_of, units_of
from ..rundir.applied import Piece
from ..rundir.measured import Measured
from ..rundir.outcome import Outcome
from . import exactness
from .exactness import Exactness, Server

CHANCE_P = 0.05  # more: the result's labels are worth no more than the same labels on other texts
ENGINE_NOISE = 1e-4  # by which one log-probability may differ between two requests; nats
NO_BETTER_THAN_ONE_LABEL = (
    "shard {number}: the labelling found (energy {energy:.3f}, {conflicts} conflicts) is no better than one label for all"
    " examples ({best}): do not trust it. The task may need a conflict rule, the search a smaller alpha, more"
    " steps or restarts; or the model cannot tell these labels apart"
)
CANNOT_TELL = (
    "shard {number}: its searches agree in {restarts_agree:.2f} of the labels, and random labels in up to"
    " {restarts_agree_by_chance:.2f}: do not trust the result. The model probably cannot tell these labels apart"
)
TEXTS_MAKE_NO_DIFFERENCE = (
    "shard {number}: the energy of the labels is {energy:.3f}, and {permuted_energy:.3f} with the same labels on other texts;"
    " chance may explain the difference (p = {permuted_p:.2f}): do not trust the result. The model probably cannot tell these"
    " labels apart, or the examples are too few to show it"
)
ANOTHER_BALANCE = (
    "shard {number}: the search gives {share:.0%} of the examples the label {word}, and the model without demonstrations"
    " {zero_shot_share:.0%}: see whether labels are equally frequent in your data, and if not, set search.label_prior"
    " to their shares, or to estimated"
)
LEFT_BY_SEARCH = (
    "shard {number}: the search labelled {labelled_by_search} of {examples} examples, and the last pass the others: search"
    " longer (search.steps, search.scorings). search.method=blocks labels every example within any limit of 2 scorings or more,"
    " unless examples have no score"
)


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """The figures of a shard, as summary.json holds them."""

    examples: int
    labelled_by_search: int
    label_counts: dict[str, int]  # by label word
    label_entropy: float
    objective: str
    energy: float  # of the labels of all examples
    energies: dict[str, float]  # the same by each objective
    searched_energy: float  # of what the best search itself labelled
    last_energy: float  # of the last state of that search
    conflicts: int  # pairs of the result that break a rule
    # By label word: conflicts, and energy, null if that label breaks more rules than the result, or has no score.
    one_label_for_all: dict[str, dict[str, float | int | None]]
    beats_one_label_for_all: bool
    steps: int
    flips: int  # accepted proposals
    restart: int  # of the best search
    searches: Sequence[dict[str, Any]]  # of each restart: energy, steps, scorings, and whether it settled
    restarts_agree: float | None  # share of examples, mean over pairs of restarts (aligned)
    restarts_agree_by_chance: float | None  # what random labels of the same counts and rules reach in 1 of 20 cases
    zero_shot_counts: dict[str, int] | None = None  # by label word; null if the method has not asked
    permuted_energy: float | None = None  # of the same labels on other texts; null if not known
    permuted_p: float | None = None  # of a one-sided paired t-test that the result's are worth more


@dataclass(frozen=True, slots=True)
class BeyondFigures:
    """The figures of the examples beyond the pool (search.beyond=apply)."""

    examples: int
    label_counts: dict[str, int]  # by label word
    conflicts: int  # pairs that break a rule
    margin: float  # mean; nats


@dataclass(frozen=True, slots=True)
class Priors:
    """The priors of labels and of label words, as summary.json holds them."""

    label_prior: dict[str, float] | None
    label_prior_by: str | None
    word_prior: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class SinceStart:
    """What a start of the run did, all measured: the fields of Work and of Traffic, and those of its server."""

    scorings: int  # of the pool, sent
    scorings_from_memo: int  # of the pool and of single examples
    single_examples: int  # sent each by itself
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
    method: str
    seed: int
    examples: int
    labelled_by_search: int
    labelled_by_completion: int  # by the last pass
    label_counts: dict[str, int]  # by label word
    energy: float  # of the labels of all examples of a shard; mean over shards; of icm_hpc.apply, of the pool shown
    conflicts: int  # pairs of the result that break a rule
    steps: int  # of the best search of each shard, summed
    flips: int  # accepted proposals of these
    restarts_agree: float | None  # share of examples, mean over pairs of restarts (aligned); null with one search
    shards: Sequence[ShardFigures]
    since_start: SinceStart
    zero_shot_counts: dict[str, int] | None = None  # of labels without demonstrations; null if the method has not asked
    beyond: BeyondFigures | None = None  # what was labelled given the pool, once the search had ended
    exactness: Exactness | None = None  # how exactly the run can be repeated; null in runs of earlier versions
    server: Measured | None = None  # what the server was measured to do; null if it was not measured
    # By label word: the shares that objective=calibrated assumes; else null.
    label_prior: dict[str, float] | None = None
    label_prior_by: str | None = None  # equal, given or estimated
    word_prior: dict[str, float] | None = None  # by label word: what was subtracted from its log-probabilities, nats


def figures_of(outcome: Outcome, problem: Problem, label_words: Sequence[str], annealing: Annealing) -> ShardFigures:
    """Return the figures of a shard."""
    counts = of_pool.counts(outcome.labels, problem.n_labels)
    words = [word.strip() for word in label_words]
    energy, broken = outcome.energy, len(of_pool.broken(problem, outcome.labels))
    uniform = [
        {"energy": None if math.isnan(one) else one, "conflicts": conflicts} for one, conflicts in outcome.uniform
    ]
    end, ends = outcome.ends[outcome.restart], [end.labels for end in outcome.ends]
    units = units_of(links_of(problem), range(problem.n))
    every = [replace(annealing, objective=name) for name in of_pool.OBJECTIVES]
    return ShardFigures(
        examples=problem.n,
        labelled_by_search=len(pool_of(outcome.searched)),
        label_counts=dict(zip(words, counts, strict=True)),
        label_entropy=of_pool.entropy(counts),
        objective=annealing.objective,
        energy=energy,
        energies={
            one.objective: of_pool.evaluation(problem, one, outcome.labels, outcome.scores).labelling.energy
            for one in every
        },
        searched_energy=outcome.searched_energy,
        last_energy=end.info.energy,
        conflicts=broken,
        one_label_for_all=dict(zip(words, uniform, strict=True)),
        beats_one_label_for_all=all(
            broken < conflicts or not energy <= one + annealing.alpha * ENGINE_NOISE
            for one, conflicts in outcome.uniform
        ),
        steps=end.info.step,
        flips=end.info.flips,
        restart=outcome.restart,
        searches=[
            {"energy": e.info.energy, "steps": e.info.step, "scorings": e.scorings, "settled": e.settled}
            for e in outcome.ends
        ],
        restarts_agree=agreement.pairwise(ends, problem.n_labels),
        restarts_agree_by_chance=agreement.by_chance(ends, units, problem.n_labels) if len(ends) > 1 else None,
        zero_shot_counts=dict(zip(words, outcome.zero_shot_counts, strict=True)) if outcome.zero_shot_counts else None,
        permuted_energy=outcome.permuted.energy if outcome.permuted else None,
        permuted_p=outcome.permuted.p if outcome.permuted else None,
    )


def beyond_figures_of(piece: Piece, problem: Problem, label_words: Sequence[str]) -> BeyondFigures:
    """Return the figures of what was labelled beyond the pool."""
    counts = of_pool.counts(piece.labels, problem.n_labels)
    return BeyondFigures(
        examples=problem.n,
        label_counts={word.strip(): count for word, count in zip(label_words, counts, strict=True)},
        conflicts=len(of_pool.broken(problem, piece.labels)),
        margin=float(np.mean(of_pool.margins(piece.scores, piece.labels))),
    )


def priors_of(
    as_set: SearchConfig, annealing: Annealing, label_words: Sequence[str], word_prior: Rows | None
) -> Priors:
    """Return the priors of a search with these settings and parameters; `word_prior` f64[L], nats, is what was subtracted."""
    words = [word.strip() for word in label_words]
    equal = [1 / len(words)] * len(words)
    shares = dict(zip(words, annealing.label_prior or equal, strict=True))
    by = "estimated" if is_estimated(as_set) else "given" if as_set.label_prior else "equal"
    is_used = annealing.objective == "calibrated"
    return Priors(
        label_prior=shares if is_used else None,
        label_prior_by=by if is_used else None,
        word_prior=None if word_prior is None else dict(zip(words, word_prior.tolist(), strict=True)),
    )


def summary_of(
    config: Config,
    shards: Sequence[ShardFigures],
    since_start: SinceStart,
    server: Server,
    *,
    priors: Priors,
    beyond: BeyondFigures | None = None,
) -> Summary:
    """Return the figures of a run."""

    def total(key: str) -> Any:
        return sum(getattr(figures, key) for figures in shards)

    every: list[ShardFigures | BeyondFigures] = [*shards, *([beyond] if beyond else [])]
    return Summary(
        **_common(config, server),
        examples=sum(figures.examples for figures in every),
        labelled_by_search=total("labelled_by_search"),
        labelled_by_completion=total("examples") - total("labelled_by_search"),
        label_counts={word: sum(figures.label_counts[word] for figures in every) for word in shards[0].label_counts},
        energy=total("energy") / len(shards),
        conflicts=sum(figures.conflicts for figures in every),
        steps=total("steps"),
        flips=total("flips"),
        restarts_agree=_mean([figures.restarts_agree for figures in shards]),
        shards=shards,
        since_start=since_start,
        zero_shot_counts=_total([figures.zero_shot_counts for figures in shards]),
        beyond=beyond,
        **asdict(priors),
    )


def given_summary_of(
    config: Config,
    pool_energy: float,
    since_start: SinceStart,
    server: Server,
    *,
    priors: Priors,
    given: BeyondFigures,
) -> Summary:
    """Return the figures of a run without a search, whose examples were labelled given the pool of another run."""
    return Summary(
        **_common(config, server),
        examples=given.examples,
        labelled_by_search=0,
        labelled_by_completion=0,
        label_counts=given.label_counts,
        energy=pool_energy,
        conflicts=given.conflicts,
        steps=0,
        flips=0,
        restarts_agree=None,
        shards=(),
        since_start=since_start,
        beyond=given,
        **asdict(priors),
    )


def _common(config: Config, server: Server) -> dict[str, Any]:
    """Return the figures that every run has."""
    served = server.served
    return {
        "task": config.task.name,
        "model": config.model.name,
        "served_model": {"name": served.name, "root": served.root} if served else None,
        "protocol": config.search.protocol,
        "method": config.search.method,
        "seed": config.search.seed,
        "exactness": server.exactness,
        "server": server.measured,
    }


def warnings(summary: Summary) -> Iterator[str]:
    """Yield what the user must know of a run."""
    yield from shard_warnings(summary.shards)
    if summary.exactness:
        yield from exactness.warnings(summary.exactness)


def shard_warnings(shards: Sequence[ShardFigures]) -> Iterator[str]:
    """Yield what the user must know of shards."""
    for number, figures in enumerate(shards):
        if not figures.beats_one_label_for_all:
            yield NO_BETTER_THAN_ONE_LABEL.format(number=number, best=_best_label(figures), **asdict(figures))
        if _agree_by_chance(figures):
            yield CANNOT_TELL.format(number=number, **asdict(figures))
        if figures.permuted_p is not None and figures.permuted_p > CHANCE_P:
            yield TEXTS_MAKE_NO_DIFFERENCE.format(number=number, **asdict(figures))
        yield from _other_balance(number, figures)
        if figures.labelled_by_search < figures.examples:
            yield LEFT_BY_SEARCH.format(number=number, **asdict(figures))


def _best_label(figures: ShardFigures) -> str:
    known = {word: one for word, one in figures.one_label_for_all.items() if one["energy"] is not None}
    if not known:
        return "whose energy is not known"
    word = max(known, key=lambda word: known[word]["energy"] or 0.0)
    return f"{word}: energy {known[word]['energy']:.3f}, {known[word]['conflicts']} conflicts"


def _agree_by_chance(figures: ShardFigures) -> bool:
    agree, chance = figures.restarts_agree, figures.restarts_agree_by_chance
    return agree is not None and chance is not None and agree <= chance < 1  # at 1, units cannot exchange their labels


def _other_balance(number: int, figures: ShardFigures) -> Iterator[str]:
    """Yield that the result's balance is another than zero-shot's, unless a rule keeps a label from examples."""
    own, zero_shot = figures.label_counts, figures.zero_shot_counts
    found = zero_shot and alarms.shift(list(own.values()), list(zero_shot.values()))
    if not zero_shot or not found:
        return
    rarer = (word for word in own if own[word] * sum(zero_shot.values()) < zero_shot[word] * sum(own.values()))
    if all((figures.one_label_for_all[word]["conflicts"] or 0) <= figures.conflicts for word in rarer):
        share, zero_shot_share = found.shares
        word = list(own)[found.label]
        yield ANOTHER_BALANCE.format(number=number, word=word, share=share, zero_shot_share=zero_shot_share)


def _total(counts: Sequence[Mapping[str, int] | None]) -> dict[str, int] | None:
    known = [of for of in counts if of is not None]
    return {word: sum(of[word] for of in known) for word in known[0]} if known and len(known) == len(counts) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the figures as summary.json holds them, and as the driver's job returns them."""
    return asdict(summary)


def from_json(values: Mapping[str, Any]) -> Summary:
    """Return the figures that `to_json` has made `values` of; raises ValueError for those of another version."""
    found: Summary = typed(Summary, values)
    return found
