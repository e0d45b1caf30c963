"""Labels -> prompts in a layout -> requests -> scores, with a memo of what was already asked."""

import asyncio
import hashlib
import time
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .client import Client, Prompt
from .core.layout import LAYOUTS, Layout, Query
from .core.types import Ask, Labels, Problem, ScoreOne, Scores, pool_of
from .prompts import Prompts

MEMO_PROMPTS = 1_000_000  # about 150 bytes each


@dataclass(slots=True)
class Work:
    """What scorers have done; their requests are in the client's traffic."""

    scorings: int = 0
    scoring_s: float = 0.0  # spent waiting for answers, summed over scorers
    prompts_wanted: int = 0
    prompts_from_memo: int = 0


class Scorer:
    """Answers what searches of one problem ask, by one client."""

    def __init__(self, client: Client, prompts: Prompts, problem: Problem, layout: str, work: Work) -> None:
        self._client, self._prompts, self._problem = client, prompts, problem
        self._layout: Layout = LAYOUTS[layout]
        self._tokens = prompts.demonstration_tokens
        self._memo: OrderedDict[bytes, npt.NDArray[np.float64]] = OrderedDict()
        self.work = work

    def arranged(self, ask: Ask) -> list[Query]:
        """Return the prompts that `ask` needs, in the layout's order."""
        pool, groups = pool_of(ask.labels), self._problem.groups
        if isinstance(ask, ScoreOne):
            members = np.union1d(pool, [ask.index])
            return self._layout(members, np.array([ask.index]), groups, self._tokens, "predict")
        return self._layout(pool, pool, groups, self._tokens, ask.purpose)

    async def answer(self, ask: Ask) -> npt.NDArray[np.float64]:
        """Return what `ask` is to be sent: Scores for a pool, f64[L] for one example."""
        queries = self.arranged(ask)
        rows = await self.score(queries, ask.labels)
        if isinstance(ask, ScoreOne):
            one: npt.NDArray[np.float64] = rows[0]
            return one
        scores: Scores = np.full((self._problem.n, self._problem.n_labels), np.nan)
        scores[[query.index for query in queries]] = rows
        scores.flags.writeable = False
        return scores

    async def score(self, queries: Sequence[Query], labels: Labels) -> npt.NDArray[np.float64]:
        """Return f64[len(queries), L]; prompts that were asked before are answered from the memo."""
        prompts = [self._prompts.write(query, labels) for query in queries]
        keys = [_key(prompt) for prompt in prompts]
        missing = [place for place, key in enumerate(keys) if key not in self._memo]
        self.work.prompts_wanted += len(keys)
        self.work.prompts_from_memo += len(keys) - len(missing)
        known = {key: self._memo[key] for key in keys if key in self._memo}
        if missing:
            began = time.monotonic()
            values = await self._prompts.score(self._client, [prompts[place] for place in missing])
            self.work.scorings += 1
            self.work.scoring_s += time.monotonic() - began
            known.update((keys[place], row) for place, row in zip(missing, values, strict=True))
            self._memo.update(known)
        while len(self._memo) > MEMO_PROMPTS:
            self._memo.popitem(last=False)
        await asyncio.sleep(0)  # a search answered from the memo alone must still let signals through
        return np.array([known[key] for key in keys]).reshape(len(keys), self._problem.n_labels)


def _key(prompt: Prompt) -> bytes:
    content = prompt.encode() if isinstance(prompt, str) else array("q", prompt).tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()
