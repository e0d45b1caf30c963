"""What to know of a run first: whether it has ended, what to beware of, how the labels are spread, and what it was."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config.schema import Config
from ..core.energy import entropy
from ..driver.exactness import cautions
from ..driver.summary import Summary, warnings
from ..rundir import lock
from ..rundir.folder import RunDir
from . import courses
from .figures import Fact, GoldFigures, Share, Verdict
from .labelling import Labelled

SAVED = "stopped, state saved"  # how a start ends that was told to
WARNINGS = 10  # that are listed

ONE_SEARCH = "One search: whether the result depends on where it began is not known. search.restarts=4 shows it."
COHERENT = "Coherent labels can be wrong as a whole: read some rows before you use them."
SO_FAR = "The figures are those of the last saved states: without the last pass, and without its checks."
NO_SUMMARY = "summary.json is not there or of another version: its figures are missing."


def state_of(run_dir: RunDir, attempts: Sequence[Mapping[str, Any]]) -> str:
    """Return whether a run is finished, running, stopped or not started."""
    if not attempts:
        return "finished" if run_dir.labels.exists() else "stopped" if courses.folders(run_dir) else "not started"
    end = attempts[-1].get("end")
    if end == "finished":
        return "finished"
    return "running" if end is None and lock.holder(run_dir.lock) else "stopped"


def verdict(
    config: Config,
    run_dir: RunDir,
    attempts: Sequence[Mapping[str, Any]],
    *,
    summary: Summary | None,
    found: Labelled | None,
    words: Sequence[str],
    gold: GoldFigures | None,
    progress: Mapping[str, Any] | None,
) -> Verdict:
    """Return what to know first."""
    state, is_whole = state_of(run_dir, attempts), run_dir.labels.exists()
    told = [*(warnings(summary) if summary else ()), *(_of_gold(gold) if is_whole else ())]
    return Verdict(
        tone="bad" if told else "good" if state == "finished" and config.search.restarts > 1 else "open",
        headline=_headline_of_result(state, told) if is_whole else _headline_without_result(state, attempts),
        warnings=[f"{one[:1].upper()}{one[1:]}." for one in told[:WARNINGS]],
        more_warnings=max(0, len(told) - WARNINGS),
        notes=list(_notes(config, run_dir, summary)),
        facts=[*_facts(config, summary, found, gold), *([] if summary else _reached(run_dir, progress))],
        balance=_balance(found, words),
    )


def _headline_of_result(state: str, told: Sequence[str]) -> str:
    goes_on = {"running": " It is being continued.", "stopped": " It was continued, and has stopped."}.get(state, "")
    if not told:
        return f"Finished, without a warning.{goes_on}"
    count, them = ("1 warning", "it") if len(told) == 1 else (f"{len(told)} warnings", "them")
    return f"Finished, with {count}: read {them} before you use these labels.{goes_on}"


def _headline_without_result(state: str, attempts: Sequence[Mapping[str, Any]]) -> str:
    if state == "not started":
        return "Not started."
    if state == "running":
        return "Running: no result yet."
    if state == "finished":
        return "labels.jsonl is not there, though the run has ended."
    end = str(attempts[-1].get("end", "killed")) if attempts else "how is not recorded"
    return "Stopped, with its state saved: no result yet." if end == SAVED else f"Stopped ({end}): no result yet."


def _of_gold(gold: GoldFigures | None) -> Iterator[str]:
    if gold and gold.low <= gold.majority:
        yield (
            f"the labels agree with {gold.share:.3f} of the gold labels ({gold.low:.3f} to {gold.high:.3f}): not clearly better"
            f" than one label for all ({gold.majority:.3f})"
        )


def _notes(config: Config, run_dir: RunDir, summary: Summary | None) -> Iterator[str]:
    where = shlex.join([f"run={run_dir.path.name}", f"run.root={run_dir.path.parent}"])
    if not run_dir.labels.exists():
        yield SO_FAR
        yield f"To continue it: python -m icm_hpc.resume {where}"
        return
    if summary is None:
        yield NO_SUMMARY
    if config.search.restarts == 1:
        yield ONE_SEARCH
    if summary and summary.exactness:
        yield from (f"{one[:1].upper()}{one[1:]}." for one in cautions(summary.exactness))
    yield COHERENT


def _facts(config: Config, summary: Summary | None, found: Labelled | None, gold: GoldFigures | None) -> Iterator[Fact]:
    search, model = config.search, config.model
    if summary:
        beyond = f", {summary.beyond.examples:,} given the pool" if summary.beyond else ""
        yield (
            "examples",
            f"{summary.examples:,} ({summary.labelled_by_search:,} labelled by the search,"
            f" {summary.labelled_by_completion:,} by the last pass{beyond})",
        )
        yield "energy", f"{summary.energy:.3f} ({summary.conflicts:,} conflicts left)"
    elif found:
        yield "examples", f"{len(found.ids):,} labelled so far"
    if gold:
        yield (
            "agreement with gold",
            f"{gold.share:.3f} of {gold.compared:,} ({gold.low:.3f} to {gold.high:.3f};"
            f" one label for all: {gold.majority:.3f})",
        )
    if summary and summary.restarts_agree is not None:
        yield "agreement of restarts", f"{summary.restarts_agree:.3f}"
    served = summary.served_model if summary else None
    loaded = f", served as {served['root'] or served['name']}" if served else ""
    yield "model", f"{model.name}{loaded}"
    yield "task", Path(config.task.name).stem
    yield "method", f"{search.method}, protocol {search.protocol}, objective {search.objective}, alpha {search.alpha:g}"
    yield from _priors(summary)
    seeds = [search.seed, search.seed + search.restarts - 1]
    yield "seeds", str(seeds[0]) if search.restarts == 1 else f"{seeds[0]} to {seeds[1]}"
    if summary and summary.exactness:
        yield "exactness", str(summary.exactness)
    if summary and len(summary.shards) > 1:
        yield "shards", f"{len(summary.shards):,}"


def _priors(summary: Summary | None) -> Iterator[Fact]:
    """Yield the priors of the result; not shares of labels that are equal."""
    if summary and summary.label_prior and summary.label_prior_by != "equal":
        shares = ", ".join(f"{word} {share:.3f}" for word, share in summary.label_prior.items())
        yield "shares of labels", f"{summary.label_prior_by}: {shares}"
    if summary and summary.word_prior:
        words = ", ".join(f"{word} {value:.2f}" for word, value in summary.word_prior.items())
        yield "subtracted from log P", words


def _reached(run_dir: RunDir, progress: Mapping[str, Any] | None) -> Iterator[Fact]:
    """Yield how far a run without a result has come."""
    steps, pool = courses.reached(run_dir)
    yield "steps", f"{steps:,}, over {len(courses.folders(run_dir)):,} searches"
    if progress:
        yield "labelled", f"{pool:,} of {progress['examples']:,} examples, over all searches"
    if progress and progress.get("to_apply"):
        yield "beyond the pool", f"{progress['applied']:,} of {progress['to_apply']:,} examples"


def _balance(found: Labelled | None, words: Sequence[str]) -> list[Share]:
    if found is None or not len(found.labels):
        return []
    counts = np.bincount(found.labels, minlength=len(words)).tolist()
    return [Share(word, count, count / len(found.labels)) for word, count in zip(words, counts, strict=True)]


def evenness(balance: Sequence[Share]) -> float:
    """Return the entropy of the labels' shares as a part of the largest there is: 0 one label, 1 all as many."""
    return entropy(tuple(one.count for one in balance)) / float(np.log(len(balance))) if len(balance) > 1 else 0.0
