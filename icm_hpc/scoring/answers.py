"""What is asked behind each prompt to score label words of one token or more, exactly: the words as a trie of tokens."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.memo import Rows
from .client import Client, all_of


@dataclass(frozen=True, slots=True)
class Node:
    """A place where words may go on: the tokens so far, and those that may follow."""

    beginning: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent together: behind each prompt each of these beginnings, with one list of ids for all."""

    nodes: tuple[int, ...]  # by their numbers
    ends: tuple[bytes, ...]  # of the JSON of a prompt, by node
    ids: tuple[int, ...]

    def asking(self, prompts: Iterable[bytes]) -> Iterable[bytes]:
        """Return the prompts that are sent for each prompt."""
        return (prompt[:-1] + end for prompt in prompts for end in self.ends)


@dataclass(frozen=True, slots=True)
class Answers:
    """The trie of the label words.

    log P(word | prompt) is the sum of the log-probabilities of its tokens, each after those before it. Words share what they
    begin with: each node is sent once. Words of one token have one node, whose beginning is empty: the prompt itself.
    """

    nodes: tuple[Node, ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]  # by label: its tokens as (number of the node, id)

    @classmethod
    def of(cls, words: Sequence[Sequence[int]]) -> "Answers":
        """Return what scores these words; none begins another."""
        children: dict[tuple[int, ...], dict[int, None]] = {}
        for word in words:
            for end, token in enumerate(word):
                children.setdefault(tuple(word[:end]), {})[token] = None
        numbers = {beginning: number for number, beginning in enumerate(children)}
        paths = [tuple((numbers[tuple(word[:end])], token) for end, token in enumerate(word)) for word in words]
        return cls(tuple(Node(beginning, tuple(ids)) for beginning, ids in children.items()), tuple(paths))

    @property
    def first_ids(self) -> tuple[int, ...]:
        """The first token of each word, by label."""
        return tuple(path[0][1] for path in self.paths)

    @property
    def longest(self) -> int:
        """Tokens of the longest beginning."""
        return max(len(node.beginning) for node in self.nodes)

    def requests(self, max_ids: int) -> list[Request]:
        """Return the nodes in as few requests as hold `max_ids` ids each; a node with more is in several."""
        groups: list[tuple[list[int], dict[int, None]]] = []
        for number, node in enumerate(self.nodes):
            for start in range(0, len(node.ids), max_ids):
                ids = dict.fromkeys(node.ids[start : start + max_ids])
                if not groups or len(groups[-1][1] | ids) > max_ids:
                    groups.append(([], {}))
                groups[-1][0].append(number)
                groups[-1][1].update(ids)
        return [Request(tuple(numbers), tuple(map(self._end, numbers)), tuple(ids)) for numbers, ids in groups]

    async def score(self, client: Client, prompts: Iterable[bytes]) -> Rows:
        """Return log P(word | prompt): f64[prompts, words], nats; raises what the client raises."""
        requests = self.requests(client.max_ids)
        if len(requests) == 1:  # no task between an answer and what keeps it
            (only,) = requests
            return self.read(requests, [await client.label_logprobs(only.asking(prompts), only.ids)])
        copies = itertools.tee(prompts, len(requests))
        asked = await all_of(
            client.label_logprobs(request.asking(copy), request.ids)
            for request, copy in zip(requests, copies, strict=True)
        )
        return self.read(requests, asked)

    def read(self, requests: Sequence[Request], asked: Sequence[Rows]) -> Rows:
        """Return f64[prompts, words] from what each request was answered: f64[prompts * its nodes, its ids]."""
        found = {}
        for request, rows in zip(requests, asked, strict=True):
            values = rows.reshape(-1, len(request.nodes), len(request.ids))
            for row, number in enumerate(request.nodes):
                wanted = set(self.nodes[number].ids)
                found.update({(number, id_): values[:, row, i] for i, id_ in enumerate(request.ids) if id_ in wanted})
        return np.stack([sum(found[step] for step in path) for path in self.paths], axis=1)

    def _end(self, number: int) -> bytes:
        return "".join(f",{token}" for token in self.nodes[number].beginning).encode() + b"]"
