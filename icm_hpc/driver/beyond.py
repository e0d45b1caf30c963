"""Examples that no search labels: each labelled given the labels of a pool, once there are any.

They are those beyond the pool of a run (search.beyond=apply), new rows (icm_hpc.apply), or held-out ones (heldout).

All their prompts begin with the whole pool, which the server's prefix cache keeps: each costs little more than its own
tokens. They are asked and saved in pieces, so that a later start goes on from what is there.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .. import tasks
from ..config.fingerprint import fingerprint
from ..config.schema import Config
from ..config.searching import annealing_of
from ..core import search
from ..core.memo import Rows
from ..core.types import UNLABELLED, Labelling, frozen_labels, pool_of
from ..errors import FitError
from ..rundir import applied
from ..rundir.applied import Piece
from ..rundir.files import make_folder
from ..rundir.lock import Lock
from ..rundir.polling import until_done
from ..scoring import prompts
from ..scoring.client import Client, all_of
from ..scoring.scorer import Scorer, Work, answered
from ..tasks import Task

PIECE = 512  # examples that are asked and saved together: enough to fill an engine, few enough to lose
AT_A_TIME = 2  # pieces: one is being tokenized while the other is scored

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beyond:
    """What is labelled given a pool."""

    task: Task
    pool: Task
    longest: int  # tokens of the longest prompt, and the one that is generated
    label_ids: tuple[int, ...]  # by label


async def prepared(client: Client, pool: Task, task: Task) -> Beyond:
    """Return what will be labelled given a pool; raises FitError if a prompt exceeds the model's context.

    A text has no more tokens than bytes: only those with more bytes than the pool leaves room for are tokenized.
    """
    shown, context = await prompts.of_tokens(client, pool), await client.max_model_len()
    size = {example.id: len((task.separator + example.text).encode()) for example in task.examples}
    room = context - shown.longest_after(0)
    longest = max(task.examples, key=lambda example: size[example.id])
    asked = [example for example in task.examples if size[example.id] > room] or [longest]
    tokens = await prompts.of_tokens(client, replace(task, examples=tuple(asked)))
    lengths = dict(zip((example.id for example in asked), map(len, tokens.lengths.texts), strict=True))
    most = max(lengths, key=lambda id_: lengths[id_])
    found = shown.longest_after(lengths[most])
    if found > context and client.exact:
        raise FitError(
            f"the prompt of example {most!r} behind a pool of {len(pool.examples)} is {found} tokens, but the server's context"
            f" is {context}: set a smaller search.pool_size, or model.max_model_len={found}; or shorten or remove it"
        )
    return Beyond(task, pool, found, shown.label_ids)


async def label(
    config: Config,
    folder: Path,
    beyond: Beyond,
    pool: Labelling,
    client: Client,
    *,
    work: Work,
    report: Callable[[int], None],
    held: Lock | None = None,
    word_prior: Rows | None = None,
) -> Piece:
    """Label all examples given a pool, those that earlier starts have saved in `folder` included.

    `report` is told how many are done.
    """
    mark = applied.mark_of(fingerprint(config, beyond.task.sha256()), pool)
    slots, done = asyncio.Semaphore(AT_A_TIME), 0
    await until_done(partial(make_folder, folder))

    async def one(path: Path, task: Task) -> Piece:
        nonlocal done
        async with slots:
            piece = await until_done(lambda: applied.load(path, mark))
            if piece is None:
                piece = await _asked(
                    config, client, work, pool_task=beyond.pool, pool=pool, task=task, word_prior=word_prior
                )
                if held:
                    held.require_held()
                await until_done(lambda: applied.save(path, piece, mark))
        done += len(task.examples)
        report(done)
        return piece

    parts = tasks.pieces(beyond.task, PIECE)
    pieces = await all_of(one(folder / f"piece-{number:05d}.h5", part) for number, part in enumerate(parts))
    return Piece(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("labels", "scores")))


async def _asked(
    config: Config,
    client: Client,
    work: Work,
    *,
    pool_task: Task,
    pool: Labelling,
    task: Task,
    word_prior: Rows | None,
) -> Piece:
    """Ask for the scores of a piece, and choose its labels.

    Its examples may have ids and groups that the pool has, too; no rule is between the two.
    """
    members = pool_of(pool.labels)  # the others are not shown, nor asked
    apart = [replace(one, id=f"beyond {i}", group=f"beyond {one.group}") for i, one in enumerate(task.examples)]
    shown = [replace(one, id=f"pool {i}", group=f"pool {one.group}") for i, one in enumerate(pool_task.examples)]
    together = replace(task, examples=(*(shown[i] for i in members), *apart))
    _, written = await prompts.written(client, together, config.search.scoring)
    problem, n, m = together.problem(), len(members), len(task.examples)
    given = Labelling(
        labels=frozen_labels([*pool.labels[members], *[UNLABELLED] * m]),
        scores=np.concatenate([pool.scores[members], np.full((m, problem.n_labels), np.nan)]),
        energy=pool.energy,
    )
    scorer = Scorer(client, written, problem, config.search.layout, memo_bytes=0, work=work, word_prior=word_prior)
    asking = search.complete(problem, annealing_of(config.search), given)
    labels, scores = await answered(asking, scorer.answer)
    return Piece(labels[n:], scores[n:])
