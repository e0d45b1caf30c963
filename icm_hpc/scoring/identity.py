"""Which model a server serves, by its name and by its answers; a run has the scores of one model."""

import json
import logging
from dataclasses import replace

import numpy as np

from ..config.schema import Config
from ..engines import ENGINES
from ..errors import BadAnswer, ScoringError
from ..rundir.folder import RunDir, ServedModel
from .client import Client

TEXTS = ("The capital of France is", "Two and two make four. This is", "once upon a time there was a")
WORDS = (" True", " False", " yes", " the")
PROMPT_TOKENS = 8  # at most: the shortest context that is served holds 16
# Between two servers of one model, nats. Logits of 16 to 32 in bfloat16 are 0.125 apart, so that another GPU, batch or
# tensor-parallel layout moves a log-probability by up to a quarter; another model moves one of a dozen by more than 1.
TOLERANCE = 0.5

log = logging.getLogger(__name__)


async def of_server(client: Client, config: Config) -> ServedModel:
    """Ask a server which model it serves; what is sent counts in no traffic but its own.

    An API that gives the top-k tokens only is known by the name that it is asked for.
    """
    if ENGINES[config.model.engine].labels is None:
        return ServedModel(client.model)
    asking = client.replica(0).apart()
    root = await asking.root()
    tokens = await asking.tokenize(TEXTS)
    prompts = tuple(tuple(ids[:PROMPT_TOKENS]) for ids in tokens)
    token_ids = tuple(dict.fromkeys(ids[0] for ids in await asking.tokenize(WORDS)))
    try:
        rows = await asking.label_logprobs([json.dumps(ids).encode() for ids in prompts], token_ids)
    except BadAnswer as error:  # as of a server that others ask for plain log-probabilities at the same time
        log.warning("the served model is known by its name alone: %s", error)
        return ServedModel(client.model, root)
    return ServedModel(client.model, root, prompts, token_ids, tuple(map(tuple, rows.tolist())))


def require_same(run_dir: RunDir, now: ServedModel) -> None:
    """Record the model that a run begins with, and refuse another: its scores are saved. Raises ScoringError.

    A record of an earlier version, with the name alone, gets the answers of the model of that name.
    """
    first = run_dir.read_served_model()
    if first is not None:
        _require_same(run_dir, first, now)
    if first is None or not first.logprobs:
        run_dir.write_served_model(now if first is None else replace(now, timed_tokens=first.timed_tokens))
    if first is not None and first.root and now.root and first.root != now.root:
        log.info("the server loaded %s, at the first start %s; its answers are the same", now.root, first.root)


def _require_same(run_dir: RunDir, first: ServedModel, now: ServedModel) -> None:
    begin_another = "or begin another run: run.name=NEW"
    if first.name != now.name:
        raise ScoringError(
            f"the server now serves {now.name!r}, and the scores of {run_dir.path} are by {first.name!r}: serve that model"
            f" under this name (vLLM's --served-model-name {first.name}), {begin_another}",
            counter="other_model",
        )
    if not first.logprobs or not now.logprobs:
        return
    how = None
    if (first.prompts, first.token_ids) != (now.prompts, now.token_ids):
        how = "its tokenizer is another"
    else:
        differ = float(np.abs(np.array(first.logprobs) - np.array(now.logprobs)).max())
        if differ > TOLERANCE:
            how = f"its log-probabilities differ by up to {differ:.2f} nats, where one model's differ by {TOLERANCE} at most"
    if how is not None:
        raise ScoringError(
            f"the server serves another model under the name {now.name!r} ({_loaded(now)}) than the one that scored"
            f" {run_dir.path} ({_loaded(first)}): {how}. Serve that model under this name (vLLM's --served-model-name"
            f" {first.name}), {begin_another}",
            counter="other_model",
        )


def _loaded(model: ServedModel) -> str:
    return f"loaded from {model.root}" if model.root else "the server does not say from where"
