"""Whether a server that is ready can do what a run asks of it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..config.schema import Config
from ..errors import BadAnswer, NoAnswer, ServerError
from ..rundir import measured
from ..rundir.folder import RunDir
from ..rundir.polling import until_done
from ..scoring import checks
from ..scoring.checks import Check
from ..scoring.client import Client

log = logging.getLogger(__name__)


async def check(config: Config, client: Client, run_dir: RunDir, longest: int, label_ids: Sequence[int]) -> None:
    """Check that the server can do what a prompt of so many tokens and the labels ask of it.

    A prompt of full length is timed once in a run, and noise and speed are measured once for each kind of server: a start may
    be too short to do it again.

    Raises ServerError if it cannot, and NoAnswer if it is lost meanwhile. What is only slower for it is logged.
    """

    def heed(check: Check) -> None:
        log.log(logging.WARNING if check.passed is False else logging.INFO, "%s", check)
        if check.passed is not False or check.name not in checks.NEEDED:
            return
        if isinstance(check.error, NoAnswer):
            raise check.error
        if config.external_url is not None and check.name == checks.LABELS and isinstance(check.error, BadAnswer):
            return  # another run asks for labels at the same time, which spoils plain log-probabilities; ours were proved
        raise ServerError(f"the server cannot score the labels of this run: {check}") from check.error

    served = run_dir.read_served_model()
    timed = served.timed_tokens if served else 0
    first = await until_done(partial(measured.of_run, run_dir.measured, config)) is None
    done = await checks.run(client, heed, context=longest, label_ids=label_ids, clock=longest > timed, measure=first)
    if served and any(check.name == checks.CLOCK and check.passed for check in done):
        run_dir.write_served_model(replace(served, timed_tokens=longest))
    found = replace(checks.measured(done), of=measured.served_by(config))
    if first and found.noise:
        await until_done(partial(measured.write, run_dir.measured, found))
