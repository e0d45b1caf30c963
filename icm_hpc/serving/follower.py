"""The server component on its second node and those after: serves a part of the engine that the first node's leads.

vLLM spreads one engine, or its replicas, over nodes by itself, once each node has started its rank. What it does not do: tell
the first node of a rank that has died (its /health stays 200), and end the ranks when the first one ends. The two agree by
files in the attempt's folder: the first node's rendezvous.json, and a rank's own record of its end.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from ..config.schema import Config
from ..engines import exit_of, inherited, start_of
from ..engines.engine import Rank
from ..errors import FolderError, IcmError
from ..rundir import logs, polling
from ..rundir.folder import Rendezvous, RunDir
from ..rundir.logs import tail, written_since
from ..rundir.polling import Polled
from . import process, weights

POLL_S = 0.5


def follow(
    config: Config, run_dir: RunDir, attempt: str, number: int, address: str, *, is_to_stop: Callable[[], bool]
) -> str:
    """Serve each start of the engine that the first node announces; return why no more."""
    polling.block_until_done(lambda: run_dir.write_rank_arrival(attempt, number, address))
    over: int | None = None  # the start that has ended here
    ended = Polled(lambda: run_dir.read_server_exit(attempt), None)
    announced = Polled(lambda: run_dir.read_rendezvous(attempt), None)
    while not is_to_stop():
        end = ended()
        if end is not None:
            return f"the first node's component ended: {end.reason}"
        meeting = announced()
        if meeting is None or meeting.start == over:
            time.sleep(POLL_S)
            continue
        over = meeting.start

        def is_over(meeting: Rendezvous = meeting) -> bool:
            return is_to_stop() or announced() != meeting

        try:
            how = _serve_once(config, run_dir, meeting, number, address, is_over=is_over)
        except FolderError:
            raise
        except (IcmError, OSError) as error:
            how = f"rank {number} on {address} cannot start: {error}"
        if how is not None:
            record = partial(run_dir.write_rank_exit, attempt, number, over, how)
            polling.block_until_done(record)
    return "told to stop"


def _serve_once(
    config: Config,
    run_dir: RunDir,
    meeting: Rendezvous,
    number: int,
    address: str,
    *,
    is_over: Callable[[], bool],
) -> str | None:
    """Run this rank until the start is over; return how it ended by itself, or None."""
    start = start_of(config.model.engine)
    served = weights.locate(config.model)
    rank = Rank(number, config.nodes, meeting.address, meeting.port, meeting.rpc_port)
    argv = start.argv(config.model, served, host=address, port=0, replicas=config.server.replicas, rank=rank)
    log = run_dir.rank_log(number)
    began = polling.block_until_done(lambda: logs.begun(log))
    patience_s = config.server.start_timeout_s
    settings = start.environment(config.model, "", address=address, start_timeout_s=patience_s)
    is_to_end = False
    with process.engine(argv, {**inherited.environment(os.environ), **settings}, log) as running:
        while running.poll() is None and not (is_to_end := is_over()):
            logs.shorten(log, logs.ENGINE_RUNS, began)
            time.sleep(POLL_S)
    if is_to_end:
        logs.shorten(log, logs.ENGINE_ENDED)
        return None
    how = exit_of(start, running.returncode, written_since(log, began))
    if how == f"exited with code {running.returncode}":
        how += f"; last lines of {log}:\n{tail(log, lines=5, begin=began)}"
    return f"{config.model.engine} of rank {number} on {address} {how}"
