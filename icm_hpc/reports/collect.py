"""From a run's folder to the figures of its page; of a run that was stopped, what there is."""

import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import tasks
from ..config.loading import load_file, to_yaml
from ..config.schema import Config
from ..core.layout import LAYOUTS
from ..driver.summary import ShardFigures, Summary, from_json
from ..errors import DamagedFile, IcmError
from ..heldout import results
from ..rundir.attempts import attempts
from ..rundir.files import read_json
from ..rundir.folder import RunDir
from ..rundir.progress import read as read_progress
from ..rundir.trace import digest_of
from ..tasks import Task
from . import beside, comparison, cost, courses, labelling, repeat, rows
from .figures import Degenerate, Fact, Numbers, OneLabel, Report, SearchFigures, Series
from .labelling import Labelled
from .prompts import Prompts, prompts_of
from .verdict import verdict

SHARDS = 40  # that are listed
ENDS = 60  # searches
ONE_LABELS = 12  # labels for all, of a shard
SETTINGS = 20_000  # characters

log = logging.getLogger(__name__)


def collect(run_dir: RunDir) -> Report:
    """Return the figures of a run. Raises ConfigError for a folder whose settings cannot be read."""
    config, known = load_file(run_dir.config), attempts(run_dir)
    summary = summary_of(run_dir) if run_dir.labels.exists() else None
    task = labelling.task_of(config, run_dir)
    words = _words(config, task, summary)
    found = _labelled(config, run_dir, task, summary)
    gold = comparison.gold_of(config, run_dir)
    compared = comparison.compared(found, gold, words) if found else None
    lister = rows.Lister(found, words, _prompts(config, run_dir, task, found), gold) if found else None
    broken, all_broken = rows.conflicts(lister, task) if lister and task else ([], 0)
    listed = cost.starts(known)
    ends = _ends(summary) if summary else []
    degenerate = _degenerate(summary) if summary else []
    test = results.of_run(config, run_dir)
    bars = beside.bars_of(test) if test else []
    command, note = repeat.command(config)
    return Report(
        name=run_dir.path.name,
        where=shlex.join([f"run={run_dir.path.name}", f"run.root={run_dir.path.parent}"]),
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
        verdict=verdict(
            config,
            run_dir,
            known,
            summary=summary,
            found=found,
            words=words,
            gold=compared,
            progress=_progress(run_dir),
        ),
        searches=len(courses.folders(run_dir)),
        courses=courses.courses(run_dir, found.best if found else {}),
        words=words,
        labels=found.labels if found else np.array([], dtype=np.int64),
        margins=found.margins if found else np.array([]),
        margins_by_label=rows.margins_by_label(found, words) if found else [],
        stability=_stability(found),
        ends=ends[:ENDS],
        more_ends=max(0, len(ends) - ENDS),
        degenerate=degenerate[:SHARDS],
        more_degenerate=max(0, len(degenerate) - SHARDS),
        least_certain=rows.least_certain(lister) if lister else [],
        broken=broken,
        all_broken=all_broken,
        held_out=Series(config.model.name, [run_dir.path.name], bars) if bars else None,
        test=test,
        gold=compared,
        cost=list(cost.facts(config, known, summary)),
        starts=listed[-cost.STARTS :],
        more_starts=max(0, len(listed) - cost.STARTS),
        provenance=list(_provenance(run_dir, known)),
        command=command,
        command_note=note,
        settings=to_yaml(config)[:SETTINGS],
    )


def _progress(run_dir: RunDir) -> dict[str, Any] | None:
    try:
        return read_progress(run_dir)
    except DamagedFile as error:
        log.warning("%s", error)
        return None


def summary_of(run_dir: RunDir) -> Summary | None:
    """Return a run's figures, None if they are not there or of another version."""
    try:
        return from_json(read_json(run_dir.summary))
    except (TypeError, LookupError, ValueError):
        return None


def prompt_of(run_dir: RunDir, id_: str) -> str | None:
    """Return the whole prompt in which an example's final scores were asked; None if it is not known."""
    config = load_file(run_dir.config)
    task = labelling.task_of(config, run_dir)
    prompts = _prompts(config, run_dir, task, _labelled(config, run_dir, task, summary_of(run_dir)))
    asked = prompts.of(id_) if prompts else None
    return asked[0] if asked else None


def _words(config: Config, task: Task | None, summary: Summary | None) -> list[str]:
    """Return the label words, without the spaces around them."""
    if task:
        return [word.strip() for word in task.label_words]
    if summary:
        return list(summary.label_counts)
    try:
        return [word.strip() for word in tasks.label_words(tasks.family_of(config.task), config.task)]
    except IcmError:
        return []


def _labelled(config: Config, run_dir: RunDir, task: Task | None, summary: Summary | None) -> Labelled | None:
    if run_dir.labels.exists():
        return labelling.finished(run_dir, {n: one.restart for n, one in enumerate(summary.shards)} if summary else {})
    found = labelling.saved(config, run_dir, task) if task else None
    return found if found and len(found.ids) else None


def _prompts(config: Config, run_dir: RunDir, task: Task | None, found: Labelled | None) -> Prompts | None:
    """Return the prompts of the final scores. Of a run that goes on, they are known where a layout has one order for all."""
    if task is None or found is None:
        return None
    if not run_dir.labels.exists() and LAYOUTS[config.search.layout].depends_on_purpose:
        return None
    return prompts_of(config.search, run_dir, task, found.by_id)


def _stability(found: Labelled | None) -> Numbers:
    return found.stability[~np.isnan(found.stability)] if found else np.array([])


def _ends(summary: Summary) -> list[SearchFigures]:
    return [
        SearchFigures(
            shard=number,
            restart=restart,
            is_best=restart == shard.restart,
            energy=one["energy"],
            steps=one["steps"],
            scorings=one["scorings"],
            settled=one["settled"],
        )
        for number, shard in enumerate(summary.shards)
        for restart, one in enumerate(shard.searches)
    ]


def _degenerate(summary: Summary) -> list[Degenerate]:
    """Return the shards beside one label for all, those that are no better first."""
    found = [_beside(number, shard) for number, shard in enumerate(summary.shards)]
    return sorted(found, key=lambda one: (one.beats_them, one.shard))


def _beside(number: int, shard: ShardFigures) -> Degenerate:
    labels = [
        OneLabel(word, one["energy"], int(one["conflicts"] or 0)) for word, one in shard.one_label_for_all.items()
    ]
    labels.sort(key=lambda one: (one.conflicts, one.energy is None, -(one.energy or 0.0)))
    return Degenerate(
        shard=number,
        energy=shard.energy,
        conflicts=shard.conflicts,
        beats_them=shard.beats_one_label_for_all,
        labels=labels[:ONE_LABELS],
        more=max(0, len(labels) - ONE_LABELS),
        agree=shard.restarts_agree,
        agree_by_chance=shard.restarts_agree_by_chance,
    )


def _provenance(run_dir: RunDir, known: Sequence[Mapping[str, Any]]) -> Iterator[Fact]:
    yield "folder", str(run_dir.path)
    served = run_dir.read_served_model()
    if served:
        yield "served model", f"{served.name}" + (f", loaded from {served.root}" if served.root else "")
    if run_dir.data.exists():
        with run_dir.data.open("rb") as file:
            yield f"SHA-256 of {run_dir.data.name}", digest_of(file, run_dir.data.stat().st_size)[0].hexdigest()
    if known:
        versions = known[-1].get("versions", {})
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
        yield "Python", str(known[-1].get("python", ""))
