"""The reference protocol on a trace's data, told as the events that the published code would have recorded.

What runs is what production runs: its tasks, prompts, layout, scorer, search and reading of answers.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from icm_hpc.config import loading
from icm_hpc.config.searching import annealing_of
from icm_hpc.core import published, search
from icm_hpc.core.layout import Query
from icm_hpc.core.methods import single
from icm_hpc.core.types import Ask, Evaluation, LabelNumber, Labels, Problem, Round, ScoreOne, pool_of, with_labels
from icm_hpc.scoring.client import Client
from icm_hpc.scoring.prompts import TextPrompts, of_text
from icm_hpc.scoring.scorer import Scorer
from icm_hpc.tasks import TASKS, Task
from icm_hpc.tasks.rows import Row
from tests.conformance.trace import (
    KINDS,
    Different,
    Event,
    Oracle,
    Recorded,
    listed,
    none_if_unlabelled,
    pairs,
    problem_of,
)

TASK_NAMES = {
    "truthfulQA": "truthfulqa",
    "truthfulQA-preference": "truthfulqa-preference",
    "alpaca": "comparison",
    "gsm8k": "gsm8k",
}
COLUMNS = ("question", "choice", "choice_2", "answer", "consistency_id")
DUMMY = (-1e6, 100_000)  # mean score and conflicts from which the published repair of a proposal starts


class Replay:
    """A search that is given a trace's random outcomes and answers."""

    def __init__(self, header: Event, events: Sequence[Event]) -> None:
        self._header, self._events = header, events
        args = header["args"]
        names = {
            "alpha": "alpha",
            "num_seeds": "num_seed",
            "schedule": "scheduler",
            "initial_temperature": "initial_T",
            "final_temperature": "final_T",
            "decay": "decay",
            "seed_repair_rounds": "consistency_fix_K",
        }
        arguments = [f"search.{ours}={args[theirs]}" for ours, theirs in names.items()]
        configured = loading.load(["search.protocol=reference", *arguments]).search
        self._annealing = annealing_of(configured)
        self._family = TASKS[TASK_NAMES[header["task"]]]
        task = Task("trace", tuple(map(self._example, header["dataset"])), self._family.label_words)
        self._problem = problem_of(header["dataset"])
        prompts = of_text(task, np.ones(self._problem.n, dtype=np.int64))
        scorer = Scorer(cast(Client, Oracle(header)), prompts, self._problem, configured.layout)
        self._draws = Recorded(events)
        self._scorings = Scorings(scorer, prompts, self._problem, header)
        for uid, row in enumerate(header["dataset"]):
            text = prompts.text(Query(uid, ()), np.empty(0, dtype=LabelNumber))
            if text != row["prompt"]:
                raise Different(f"uid {uid}: the prompt is {text!r}, recorded {row['prompt']!r}")

    def events(self) -> Iterator[Event]:
        """Yield all events, from the choice of the batch to the end."""
        if self._header["raw"] is not None:
            yield from self._batch()
        state, info = self._scorings.answered(single.seed(self._problem, self._annealing, self._draws))
        seeds = cast(Evaluation, info.proposal)
        yield {"t": "init", "labels": listed(seeds.labelling.labels)}
        yield from self._evaluated("eval", seeds)
        own = (seeds.labelling.energy, len(seeds.broken))
        yield from self._repaired("init", seeds.labelling.labels, own, info.rounds)
        proposals = 0
        for i in range(sum(event["t"] == "choices" for event in self._events)):
            before = state
            self._scorings.reads_stale_cache = self._header["cache"] and i == 0
            state, info = self._scorings.answered(single.step(self._problem, self._annealing, before, self._draws))
            yield {"t": "choices", "weights": self._draws.weights.tolist(), "out": info.index}
            predicted = self._scorings.next("predict")
            yield predicted
            labels = {"old": none_if_unlabelled(info.old), "new": info.new}
            yield {"t": "proposal", "uid": info.index, **labels, "score": predicted["score"][0]}
            if info.proposal is not None:
                proposed = with_labels(before.current.labels, {cast(int, info.index): cast(int, info.new)})
                dummy = (self._annealing.alpha * DUMMY[0] - DUMMY[1], DUMMY[1])
                yield from self._repaired("proposal", proposed, dummy, info.rounds)
                yield from self._evaluated("eval", info.proposal)
                decision = {"flips": before.flips, "T": info.temperature}
                if any(event["t"] == "crash" and event["iteration"] == i for event in self._events):
                    yield {"t": "crash", "iteration": i, **decision}
                    if not info.accepted:
                        raise Different(f"iteration {i}: where the published exp() overflows, ours does not accept")
                    state = before
                    break
                proposals += 1
                energies = {"e_old": before.current.energy, "e_new": info.proposal.labelling.energy}
                yield {"t": "accept", **decision, **energies, "u": info.u, "accept": info.accepted}
            figures = {"energy": info.energy, "inconsistent_num": info.conflicts, "flips": info.flips}
            yield {"t": "iter_end", "i": i, "labels": listed(state.current.labels), **figures}
        figures = {"proposals": proposals, "accepted": state.flips, "energy": state.current.energy}
        labelled = len(pool_of(state.current.labels))
        yield {"t": "end", "labels": listed(state.current.labels), "labeled": labelled, **figures}

    def _example(self, row: Event) -> Any:
        values = {key: row[key] for key in COLUMNS if key in row}
        return self._family.example(Row("trace", {**values, "id": row["uid"]}), row["uid"])

    def _batch(self) -> Iterator[Event]:
        drawn = next(event["out"] for event in self._events if event["t"] == "sample")
        size = self._family.block_size
        blocks = published.blocks([row["consistency_id"] for row in self._header["raw"]], size)
        yield {"t": "sample", "n": len(blocks), "k": self._header["args"]["batch_size"] // size}
        positions = [block * size + place for block in drawn for place in range(size)]
        yield {"t": "batch", "positions": positions, "rows": [row for block in drawn for row in blocks[block]]}

    def _evaluated(self, context: str, found: Evaluation) -> Iterator[Event]:
        shuffle = {"t": "shuffle", "ctx": context, "before": pairs(found.broken)}
        score = self._scorings.next(context)
        yield from (shuffle, score) if context == "fix_try" else (score, shuffle)
        parts = {"train_prob": found.predictability, "inconsistent_num": len(found.broken)}
        yield {"t": "metric", "ctx": context, **parts, "energy": found.labelling.energy}

    def _repaired(
        self, phase: str, labels: Labels, reference: tuple[float, int], rounds: Sequence[Round]
    ) -> Iterator[Event]:
        limit = self._annealing.seed_repair_rounds if phase == "init" else self._annealing.repair_rounds
        (energy, conflicts), changed = reference, False
        figures = {"ref_energy": energy, "ref_inconsistent_num": conflicts}
        yield {"t": "fix_begin", "phase": phase, "K": limit, "labels": listed(labels), **figures}
        for k, done in enumerate(rounds):
            members = pool_of(done.labels)
            shown = {"pool": members.tolist(), "pool_labels": done.labels[members].tolist()}
            yield {"t": "fix_round", "k": k, **shown, "best_energy": energy, "best_inconsistent_num": conflicts}
            yield {"t": "shuffle", "ctx": "fix_propose", "before": pairs(done.broken)}
            for d, trial in enumerate(done.trials):
                place = {"k": k, "d": d}
                conflict = trial.conflict
                pair = {"pair": [conflict.first, conflict.second], "kind": KINDS[conflict.rule.name]}
                for s, evaluation in enumerate(trial.evaluations):
                    yield {"t": "try", **place, "s": s, **pair, "set": list(trial.pair_labels(evaluation))}
                    yield from self._evaluated("fix_try", evaluation)
                energies = [evaluation.labelling.energy for evaluation in trial.evaluations]
                yield {"t": "choose", **place, "energies": energies, "s": trial.chosen, "taken": trial.taken}
                if trial.taken:
                    labels, energy, conflicts, changed = (
                        trial.best.labelling.labels,
                        trial.best.labelling.energy,
                        len(trial.best.broken),
                        True,
                    )
        figures = {"energy": energy, "inconsistent_num": conflicts}
        yield {"t": "fix_end", "labels": listed(labels), **figures, "unchanged_metric": not changed}


class Scorings:
    """Answers what a search asks, by the production scorer, and keeps an event of each scoring.

    The published cache knows an answer by the example and the evaluation's name, not by the prompt. The names of a run's
    first two evaluations are the same: with the cache on, the second is answered by the first.
    """

    def __init__(self, scorer: Scorer, prompts: TextPrompts, problem: Problem, header: Event) -> None:
        self._scorer, self._prompts, self._problem, self._header = scorer, prompts, problem, header
        self._waiting: deque[Event] = deque()
        self._first_evaluation: dict[int, npt.NDArray[np.float64]] = {}
        self.reads_stale_cache = False

    def answered(self, asking: search.Asking[Any]) -> Any:
        """Answer all that is asked, and return what the search returns."""

        async def answer() -> Any:
            try:
                asks = next(asking)
                while True:
                    asks = asking.send([await self._answer(ask) for ask in asks])
            except StopIteration as end:
                return end.value

        return asyncio.run(answer())

    def next(self, context: str) -> Event:
        """Return the event of the earliest scoring that was not reported yet."""
        event = self._waiting.popleft()
        if event["ctx"] != context:
            raise Different(f"a scoring for {event['ctx']} where one for {context} belongs")
        return event

    async def _answer(self, ask: Ask) -> npt.NDArray[np.float64]:
        purpose = "predict" if isinstance(ask, ScoreOne) else ask.purpose
        queries = self._scorer.arranged(ask)
        rows = await self._scorer.score([(queries, ask.labels)])
        indices = [query.index for query in queries]
        hits = [int(purpose == "eval" and self.reads_stale_cache and i in self._first_evaluation) for i in indices]
        for place, hit in enumerate(hits):
            if hit:
                rows[place] = self._first_evaluation[indices[place]]
        if not self._first_evaluation:
            self._first_evaluation = dict(zip(indices, rows.copy(), strict=True))
        texts = [self._prompts.text(query, ask.labels) for query in queries]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        event: Event = {
            "t": "score",
            "ctx": {"repair": "fix_try"}.get(purpose, purpose),
            "uids": indices,
            "sha": [digest[: self._header["sha_len"]] for digest in digests],
            "sha_all": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "score": (rows[:, 1] - rows[:, 0]).tolist(),
            "prompts": dict(zip(map(str, indices), texts, strict=True)),
            "cache_hit": hits,
        }
        self._waiting.append(event)
        if isinstance(ask, ScoreOne):
            one: npt.NDArray[np.float64] = rows[0]
            return one
        scores = np.full((self._problem.n, self._problem.n_labels), np.nan)
        scores[indices] = rows
        return scores
