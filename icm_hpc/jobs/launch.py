"""Decides where a run goes, checks what can be checked, makes its folder, and runs or queues its job."""

import dataclasses
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import evaluate, scheduler, tasks
from ..capacity import executor, plan
from ..capacity.found import Plan
from ..config import credentials, home, loading, runs
from ..config.fingerprint import differences, draw_the_same_examples, result_settings
from ..config.schema import Config
from ..driver import pools
from ..driver.summary import Summary, from_json, warnings
from ..errors import ClusterError, ConfigError, Interrupted, SchedulerError, TaskError
from ..heldout import conditions, results
from ..heldout import rows as test_rows
from ..rundir import lock, measured, progress
from ..rundir.folder import RunDir
from ..rundir.logs import log_to_files
from ..rundir.progress import Watch
from ..tasks import Task, gold
from ..terminal import console, go_on_without_output
from . import claim, local, sbatch, submission
from .notifying import notes, notify
from .reporting import write_report


def named(config: Config) -> Config:
    """Return `config` with a name for the run and absolute paths, so that they mean the same on every node."""
    made = re.sub(r"[^A-Za-z0-9._-]", "-", f"{Path(config.task.name).stem}-{config.model.name}")[:150]
    name = config.run.name or f"{made}-{time.strftime('%Y%m%d-%H%M%S')}"
    root = loading.run_folder(dataclasses.replace(config.run, name=""))
    run = dataclasses.replace(config.run, name=name, root=str(root))
    if run.notify_command and "/" in run.notify_command[0]:
        command = home.expanded(run.notify_command[0], instead="run.notify_command without ~").absolute()
        run = dataclasses.replace(run, notify_command=[str(command), *run.notify_command[1:]])
    task, model = config.task, config.model
    task = dataclasses.replace(task, data=_absolute(task.data, "data"), test=_absolute(task.test, "test"))
    if model.path and (folder := home.expanded(model.path, instead="model.path without ~")).is_dir():
        model = dataclasses.replace(model, path=str(folder.absolute()))
    return dataclasses.replace(config, run=run, task=task, model=model)


def _absolute(rows: str | None, key: str) -> str | None:
    """Return the absolute path of a file or a folder of rows; another name as it is."""
    path = home.expanded(rows, instead=f"task.{key} without ~") if rows else None
    return str(path.absolute()) if path and path.exists() else rows


def start(
    given: Config,
    url_from: str,
    command: plan.Command,
    *,
    name_is_made_up: bool = False,
    dry_run: bool = False,
    wait: bool = False,
    resumed: bool = False,
) -> None:
    """Decide where the run goes, check what can be checked here, make the run's folder, and run or queue the job.

    Until the job can start nothing is written. `url_from` is where the URL of a server that already runs was set. A run that
    is resumed goes on with its copy of the data.
    """
    if not dry_run:  # whose output is the script
        go_on_without_output()
    config, where = executor.resolved(given)
    read = {"cluster": where, **(plan.defaults_read() if command.run_config is None else {})}
    for name, text in read.items():
        if dry_run:
            print(f"icm_hpc: {name} {text}", file=sys.stderr)
        else:
            console.print(f"{name:<8} {text}")
    run_dir = RunDir(Path(config.run.root) / config.run.name)
    runs.require_writable(run_dir.path)
    task, gold_labels = _data(config, run_dir, resumed=resumed, is_new=name_is_made_up)
    test = test_rows.of_run(config, run_dir, task, is_new=name_is_made_up)
    if dry_run:
        print(sbatch.text(config, run_dir), end="")
        for note in (*task.notes, *(test.notes if test else ())):
            print(f"icm_hpc: {note}", file=sys.stderr)
        if config.external_url:
            print(f"icm_hpc: {config.external_url} runs already ({url_from})", file=sys.stderr)
        return
    seen = claim.Seen.of(run_dir)
    if not name_is_made_up:
        _require_startable(config, run_dir)
    key = credentials.of_server(config) if config.external_url else None
    misfits, remedies = executor.missing(config)
    plan.require_fit(Plan(misfits=misfits, remedies=remedies), command)
    is_begun = not name_is_made_up and run_dir.has_state()
    planned = plan.plan(config, task, test, measured.of_run(run_dir.measured, config) if is_begun else None)
    plan.require_fit(planned, command)
    if config.cluster.executor == "slurm":
        sbatch.require_startable(sbatch.text(config, run_dir))
    if name_is_made_up:
        run_dir = claim.unused(run_dir)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=run_dir.path.name))
    with claim.alone(run_dir):
        if not name_is_made_up and claim.Seen.of(run_dir) != seen:  # another submit or resume has been quicker
            _require_startable(config, run_dir)
        files = {run_dir.config: loading.to_yaml(config).encode()}
        if gold_labels is not None:
            files |= {run_dir.gold: gold.packed(gold_labels), run_dir.data: tasks.packed(task)}  # no data without these
        files |= test_rows.files(config, run_dir, test)
        if config.search.pool_run and not run_dir.has_state():  # else it goes on with its copy
            files |= pools.files_of_run(RunDir(Path(config.search.pool_run)), run_dir)
        with claim.written(run_dir, files):
            job = submission.submit(config, run_dir) if config.cluster.executor == "slurm" else None
        console.print(f"run      {run_dir.path}")
        console.print(f"task     {task.name}: {len(task.examples)} examples, {_words(task.label_words)}")
        if test is not None:
            console.print(f"test     {len(test.examples)} held-out examples, by {', '.join(conditions.wanted(config))}")
        if config.external_url:
            planned.lines["server"] += f" ({url_from})"
        for name in ("server", "time", "cost"):
            if name in planned.lines:
                console.print(f"{name:<8} {planned.lines[name]}")
        if config.external_url:
            console.print(f"key      {key.source if key else 'none: the server must want none'}")
        for note in (*planned.notes, *notes(config)):
            console.print(f"note     {note}")
        if job is None:
            _run_here(config, run_dir)
    if job is not None:
        _queued(job, config, run_dir, wait=wait)


def _require_startable(config: Config, run_dir: RunDir) -> None:
    """Refuse a folder whose saved state has other settings, and a run that is being driven or queued."""
    _require_same_configuration(config, run_dir)
    _require_idle(run_dir)


def _data(
    config: Config, run_dir: RunDir, *, resumed: bool, is_new: bool = False
) -> tuple[Task, Mapping[str, int] | None]:
    """Return the task, with notes on its data, and the gold labels that are to be kept with it; None if the run has its copy.

    Whatever a folder of a name that was made up holds is of another run: this one gets another name.
    Raises ConfigError where a run of this name has a copy of other data.
    """
    of_run = not is_new and run_dir.config.exists() and run_dir.data.exists()
    known = tasks.load(config.task, seed=config.search.seed, copy=run_dir.data) if of_run else None
    if known is not None and resumed and draw_the_same_examples(config, loading.load_file(run_dir.config)):
        return dataclasses.replace(known, notes=_notes_of_change(config, run_dir, known)), None
    task = tasks.load(config.task, seed=config.search.seed, least=pools.least(config))
    if is_new or not run_dir.has_state():
        found = gold.found(config.task)
        kept = {str(example.id) for example in task.examples}
        labels = {id_: label for id_, label in found.labels.items() if id_ in kept}
        return dataclasses.replace(task, notes=(*task.notes, *found.notes)), labels
    if known is None:  # of an earlier version, which kept no copy
        return task, None
    _require_same_configuration(config, run_dir)
    if task.sha256() != known.sha256():
        raise ConfigError(
            f"{run_dir.path} belongs to a run of other data than {config.task.data} holds now: choose another run.name, or"
            f" go on with its own copy: {run_dir.resume_command}"
        )
    return task, None


def _notes_of_change(config: Config, run_dir: RunDir, known: Task) -> tuple[str, ...]:
    """Return a note if the file that a run's data came from has changed or is gone."""
    source = config.task.data
    if source is None or not Path(source).is_absolute():  # built in, or a data set of the hub
        return ()
    try:
        if tasks.load(config.task, seed=config.search.seed).sha256() == known.sha256():
            return ()
        how = "has changed since this run was submitted"
    except TaskError:
        how = "cannot be read any more"
    return (f"{source} {how}: the run goes on with its own copy, {run_dir.data}",)


def _require_same_configuration(config: Config, run_dir: RunDir) -> None:
    """Refuse a folder that belongs to a run whose labels would be others; without saved state there are none yet."""
    if not run_dir.config.exists() or not run_dir.has_state():
        return
    ours, theirs = result_settings(config), result_settings(loading.load_file(run_dir.config))
    differing = differences(ours, theirs)
    if differing:
        raise ConfigError(
            f"{run_dir.path} belongs to a run of another configuration ({differing}): choose another run.name"
        )


def _require_idle(run_dir: RunDir) -> None:
    """Refuse a run that someone drives, or whose job is in the queue, or may be: then Slurm does not answer."""
    job = scheduler.newest(run_dir.submitit)
    try:
        components = scheduler.queued(job, scheduler.cluster_of(run_dir.submitit, job)) if job else []
    except SchedulerError as error:
        if not error.is_missing:
            raise ClusterError(
                f"whether job {job} of {run_dir.path} is still in the queue is not known ({error}): try again when Slurm"
                " answers"
            ) from error
        console.print(f"note     {error}: whether job {job} of this run is still in a queue cannot be seen from here")
        components = []
    if components:
        states = ", ".join(component.state for component in components)
        raise ConfigError(f"job {job} of {run_dir.path} is in the queue ({states}): wait for its end, or scancel {job}")
    holder = lock.holder(run_dir.lock, listen=True)
    if holder:
        raise ConfigError(f"{run_dir.path} is in use: {holder}; wait for its end, or stop it first")


def _run_here(config: Config, run_dir: RunDir) -> None:
    _print_commands(config, "cancel   Ctrl-C (the state is saved)")
    log_to_files(run_dir)
    try:
        with _progress_bar() as watch:
            summary = local.run(config, run_dir, watch)
    except Interrupted:
        console.print("stopped; the state is saved")
        notify(config, run_dir, "stopped")
        raise
    except Exception:
        notify(config, run_dir, "failed")
        raise
    write_report(run_dir)
    notify(config, run_dir, "finished")
    _print_summary(config, run_dir, from_json(summary))


def _queued(job: Any, config: Config, run_dir: RunDir, *, wait: bool) -> None:
    """Print what to do with a queued job, and wait for its end if that is asked for."""
    console.print(f"job      {job.job_id}")
    other = scheduler.on_cluster(scheduler.cluster_of(run_dir.submitit, job.job_id))
    _print_commands(config, f"cancel   {shlex.join(['scancel', job.job_id, *other])}")
    if not wait:
        return
    _print_summary(config, run_dir, from_json(submission.result(job, run_dir)))


def _print_commands(config: Config, cancel: str) -> None:
    run_dir = RunDir(Path(config.run.root) / config.run.name)
    status = ["python", "-m", "icm_hpc.status", f"run={config.run.name}", f"run.root={config.run.root}"]
    console.print(f"watch    {shlex.join(['tail', '-F', str(run_dir.driver_log)])}")
    console.print(f"status   {shlex.join(status)}")
    console.print(f"resume   {run_dir.resume_command}")
    console.print(cancel)


@contextmanager
def _progress_bar() -> Iterator[Watch]:
    """Show where the search is; before the first step, that the server is waited for."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("waiting for the server", total=None, figures="")

        def watch(now: progress.Progress) -> None:
            each_s = now.waiting_s / now.waits if now.waits else 0.0
            figures = (
                f"pool {now.pool}/{now.examples} ({progress.balance(now.counts)})  energy {now.energy:.2f}"
                f"  flips {now.flips}  {each_s:.2f} s a scoring"
            )
            if now.applied:
                figures = f"{now.applied}/{now.to_apply} given the pool"
            doing = "applying" if now.applied else "searching"
            bar.update(shown, description=doing, total=now.expected, completed=now.done, figures=figures)

        yield watch


def _words(words: Sequence[str]) -> str:
    """Return the label words; of many, the first."""
    listed = ", ".join(map(repr, words[: progress.LISTED_LABELS]))
    return f"labels {listed}" if len(words) <= progress.LISTED_LABELS else f"{len(words)} labels {listed}, ..."


def _labels(counts: Mapping[str, int]) -> str:
    """Return how many examples have each label word; of many words, the commonest."""
    if len(counts) <= progress.LISTED_LABELS:
        return ", ".join(f"{word} {count}" for word, count in counts.items())
    used = [(word, count) for word, count in Counter(counts).most_common() if count]
    listed = ", ".join(f"{word} {count}" for word, count in used[: progress.LISTED_LABELS])
    more = f", {len(used) - progress.LISTED_LABELS} others" if len(used) > progress.LISTED_LABELS else ""
    return f"{listed}{more} ({len(used)} of {len(counts)} labels are used)"


def _shares(summary: Summary) -> dict[str, str]:
    """Return the row of the shares of labels that the run has estimated, if it has."""
    shares = summary.label_prior if summary.label_prior_by == "estimated" else None
    if not shares:
        return {}
    top = sorted(shares, key=lambda word: -shares[word])[: progress.LISTED_LABELS]
    named = [word for word in shares if word in top]
    return {"label_prior": "estimated: " + ", ".join(f"{word} {shares[word]:.3f}" for word in named)}


def _print_summary(config: Config, run_dir: RunDir, summary: Summary) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    since = summary.since_start
    labels, zero_shot = map(_labels, (summary.label_counts, summary.zero_shot_counts or {}))
    rows = {
        "labelled": f"{summary.examples} ({summary.labelled_by_search} by the search,"
        f" {summary.labelled_by_completion} by the last pass"
        + (f", {summary.beyond.examples} given the pool)" if summary.beyond else ")"),
        "labels": labels + (f" (without demonstrations: {zero_shot})" if zero_shot else ""),
        **_shares(summary),
        "energy": f"{summary.energy:.3f} ({summary.conflicts} conflicts)",
        "steps": f"{summary.steps} ({summary.flips} flips)",
        "prompts": f"{since.prompts} sent in {since.requests} requests",
        "scorings": f"{since.scorings} of the pool, {since.single_examples} of single examples,"
        f" {since.scorings_from_memo} answered from memory",
    }
    if config.search.pool_run:
        rows["labelled"] = (
            f"{summary.examples} given the pool of {config.search.pool_run} (its energy: {summary.energy:.3f})"
        )
        rows = {name: rows[name] for name in ("labelled", "labels", *_shares(summary), "prompts")}
    if since.server_prompt_tokens:
        computed = since.server_computed_tokens
        whose = "the server (its own counters" + (", since it came back)" if since.servers_lost else ")")
        whose += ", for all who use it" if config.external_url else ""
        rows["tokens"] = f"{since.prompt_tokens:,} sent, {computed:,} computed by {whose}"
    failures = {name: count for name, count in since.failures.items() if count}
    if failures or since.servers_lost:
        told = ", ".join(f"{name} {count}" for name, count in failures.items())
        rows["failures"] = (
            f"{told}; {since.retries} retries, {since.servers_lost} times the server was lost,"
            f" {since.proposals_abandoned} proposals abandoned"
        )
    found = evaluate.of_run(config, run_dir)
    if found:
        rows["agreement with gold"] = (
            f"{found.share:.3f} of {found.labelled} (one label for all: {found.majority:.3f}; balanced accuracy"
            f" {found.balanced_accuracy:.3f}; the search never saw gold)"
        )
    test = results.of_run(config, run_dir)
    if test and test.majority is not None:
        known = {name: one.figures.accuracy for name, one in test.conditions.items() if one.figures}
        shown = ", ".join(f"{name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for name, one in known.items())
        rows["held-out accuracy"] = f"{shown}; {test.compared} rows, one label for all: {test.majority:.3f}"
    if summary.exactness and summary.exactness.noise is not None:
        rows["exactness"] = str(summary.exactness)
    cautions = list(warnings(summary))
    names = [f"warning {number}" for number in range(1, len(cautions) + 1)] if len(cautions) > 1 else ["warning"]
    rows |= dict(zip(names, cautions, strict=False))
    rows["result"] = str(run_dir.labels)
    if run_dir.report.is_file():
        rows["report"] = str(run_dir.report)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
