"""Pairs of answers in the formats of preference data, as two published rows each: one for either order.

`chosen` and `rejected` are texts, dialogues as in Anthropic/hh-rlhf, or lists of messages, with the prompt beside them or as
what they begin with alike; `response_a` and `response_b` and their like name two answers, and another column the winner. A
list of answers is each two of them.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from . import rankings
from .family import part_of
from .rows import GOLD, Dropped, Row, kind_of

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
PROMPTS = ("prompt", "question", "instruction", "query", "context")
RANKED = ("chosen", "rejected")
# Columns of two answers; another column, the first of WINNERS that a row has, names the better one.
PAIRS = (
    ("response_a", "response_b"), ("response_0", "response_1"), ("response_1", "response_2"), ("response1", "response2"),
    ("answer_a", "answer_b"), ("answer_0", "answer_1"), ("answer_1", "answer_2"), ("output_a", "output_b"),
    ("output_0", "output_1"), ("output_1", "output_2"), ("completion_a", "completion_b"), ("completion_1", "completion_2"),
    ("conversation_a", "conversation_b"),
)  # fmt: skip
WINNERS = ("winner", "preference", "preferred", "better_response_id", "overall_preference", "label")
TIES = {"tie", "tie (bothbad)", "tie (both bad)", "bothbad", "both_bad", "both", "neither", "equal", "draw", "same"}
SENTENCE_END = re.compile(r"[.?!:\n]\s+")
SPEAKERS = {
    "user": HUMAN,
    "human": HUMAN,
    "prompter": HUMAN,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
}
SAME_TWICE = "both answers are the same"
UNREADABLE = "its messages are not texts with a role"


def expand(row: Row) -> Iterator[Row]:
    """Yield both orders of a pair; a published row as it is. Raises Dropped for a pair with nothing to compare.

    Which answer is `a` and which `b` does not tell the better one: two columns that do not say it stand as they are, other
    answers as their texts sort.
    """
    published = [row.value(column) for column in ("choice", "choice_2")]
    if None not in published:
        if published[0] == published[1]:
            raise Dropped(SAME_TWICE)
        yield row
        return
    columns = _columns(row)
    if columns is None:
        several = list(rankings.pairs_of(row))
        yield from _each(several) if several else [row]  # whose columns the task asks for
        return
    question, a, b = _pair(row, *columns)
    if columns == RANKED:
        a_is_better: object = a <= b
        a, b = sorted((a, b))
    else:
        a_is_better = _winner(row, columns)
    for suffix, first, second in (("-ab", a, b), ("-ba", b, a)):
        label = a_is_better if not isinstance(a_is_better, bool) else int(a_is_better == (suffix == "-ab"))
        yield part_of(row, suffix, {"question": question, "choice": first, "choice_2": second, GOLD: label})


def _each(pairs: Sequence[Row]) -> Iterator[Row]:
    """Yield both orders of each pair; raises Dropped where none can be compared."""
    reasons: list[Dropped] = []
    for pair in pairs:
        try:
            yield from (Row(one.where, one.values, pair.part + one.part) for one in expand(pair))
        except Dropped as reason:
            reasons.append(reason)
    if len(reasons) == len(pairs):
        raise reasons[0]


def _columns(row: Row) -> tuple[str, str] | None:
    """Return the columns of a row that hold two answers, those with a value first; None if it has none of them."""
    known = [pair for pair in (RANKED, *PAIRS) if any(column in row.values for column in pair)]
    filled = [pair for pair in known if all(row.value(column) is not None for column in pair)]
    return next(iter(filled or known), None)


def _pair(row: Row, first: str, second: str) -> tuple[str, str, str]:
    """Return the question and both answers."""
    one, other = (_value(row, column) for column in (first, second))
    prompt = next((value for value in (_value(row, column) for column in PROMPTS) if value is not None), None)
    if isinstance(prompt, str) and row.value("instruction") and row.value("input"):  # Alpaca
        prompt = f"{prompt}\n{row.text('input')}"
    if one is None or other is None:
        raise Dropped(f"{first if one is None else second} is missing")
    if isinstance(one, list) or isinstance(other, list):
        question, one, other = _of_messages(prompt, _messages(one, ASSISTANT), _messages(other, ASSISTANT))
    else:
        question, one, other = _of_texts(
            _dialogue(_messages(prompt, HUMAN)) if isinstance(prompt, list) else prompt, one, other
        )
    question, one, other = question.strip(), one.strip(), other.strip()
    if one == other:
        raise Dropped(SAME_TWICE)
    if not question:
        raise Dropped("there is no prompt, and the answers do not begin alike")
    if not one or not other:
        raise Dropped("an answer is empty")
    return question, one, other


def _value(row: Row, column: str) -> Any:
    """Return a text with plain line ends, a list of messages, or None; a list may be written as a text, as in CSV."""
    value = row.value(column)
    if isinstance(value, str):
        value = value.replace("\r\n", "\n").replace("\r", "\n")
        if value.lstrip().startswith(("[{", '["', "['")):
            return _written_list(value)
    if isinstance(value, dict):
        return [value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, (str, list)):
        raise Dropped(f"{column} is {kind_of(value)}, which is no text and no list of messages")
    return value


def _written_list(text: str) -> Any:
    """Return the list that a text is in JSON or, as pandas writes a table, in Python; else the text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list) else text
    return text


def _of_texts(prompt: str | None, one: str, other: str) -> tuple[str, str, str]:
    """Return question and answers of two texts: a prompt of its own, or what both begin with."""
    if prompt is not None:
        one, other = one.removeprefix(prompt), other.removeprefix(prompt)
        question = prompt
    else:
        start = shared_start(one, other)
        question, one, other = one[:start], one[start:], other[start:]
    question = question.rstrip().removesuffix(ASSISTANT.strip()).strip().removeprefix(HUMAN.strip())
    return question, _without_speaker(one), _without_speaker(other)


def _without_speaker(answer: str) -> str:
    return answer.strip().removeprefix(ASSISTANT.strip())


def shared_start(one: str, other: str) -> int:
    """Return where two texts part: after the last turn of a dialogue that both have, else after a sentence, else a word."""
    turns = [turn.end() for turn in re.finditer(ASSISTANT, one) if other.startswith(one[: turn.end()])]
    if turns:
        return max(turns)
    if all(HUMAN.strip() in text and ASSISTANT.strip() in text for text in (one, other)):
        return 0  # two dialogues of different beginnings
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    sentences = [end.end() for end in SENTENCE_END.finditer(one[:shared])]
    return sentences[-1] if sentences else one.rfind(" ", 0, shared) + 1


Message = tuple[str, str]  # HUMAN, ASSISTANT or "" (of a system prompt), and what is said


def _of_messages(prompt: Any, one: list[Message], other: list[Message]) -> tuple[str, str, str]:
    """Return question and answers of two lists of messages: a prompt of its own, and what both begin with."""
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    before = one[:shared]
    stated = _messages(prompt, HUMAN) if prompt is not None else []
    if stated and stated[-1] not in before:  # not the whole dialogue is in both
        before = [*stated, *before]
    return _dialogue(before), _said(one[shared:]), _said(other[shared:])


def _messages(value: Any, speaker: str) -> list[Message]:
    """Return messages as pairs; a text is one message of `speaker`. Raises Dropped for what is no message."""
    if isinstance(value, str):
        return [(speaker, value.strip())]
    return [_message(item, speaker) for item in value]


def _message(item: Any, speaker: str) -> Message:
    if isinstance(item, str):
        return speaker, item.strip()
    if not isinstance(item, dict):
        raise Dropped(UNREADABLE)
    role, said = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if isinstance(said, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in said):
        said = "\n".join(part["text"] for part in said)
    if not isinstance(said, str):
        raise Dropped(UNREADABLE)
    return SPEAKERS.get(role.casefold() if isinstance(role, str) else "", ""), said.replace("\r\n", "\n").strip()


def _dialogue(messages: Sequence[Message]) -> str:
    """Return messages as one text, in the form of the published prompt, which begins with Human."""
    text = "".join(f"{speaker} {said}" if speaker else f"\n\n{said}" for speaker, said in messages)
    return text.strip().removeprefix(HUMAN.strip()).strip()


def dialogue_prompt(question: str) -> str:
    """Return a question, or a dialogue that ends in one, as text behind which an answer stands (Anthropic/hh-rlhf)."""
    return f"{HUMAN.strip()} {question}{ASSISTANT}"


def turns(text: str) -> list[dict[str, str]]:
    """Return what is said in a text of that form as messages with `role` and `content`; a text without speakers is a user's."""
    before, *spoken = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    said = [("Human", before), *zip(spoken[::2], spoken[1::2], strict=True)]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[speaker], "content": words.strip()} for speaker, words in said if words.strip()]


def _said(messages: Sequence[Message]) -> str:
    """Return an answer: what is said, with the speakers where it is more than one message."""
    return messages[0][1] if len(messages) == 1 else _dialogue(messages).removeprefix(ASSISTANT.strip()).strip()


def _winner(row: Row, columns: tuple[str, str]) -> object:
    """Return whether the first answer is the better one; None where a row does not say, a text where it cannot be read.

    A tie is no comparison: raises Dropped.
    """
    for side, won in ((0, True), (1, False)):
        if _is_one(row.value(f"winner_model_{'ab'[side]}")):
            return won
    if _is_one(row.value("winner_tie")):
        raise Dropped("it is a tie")
    column = next((name for name in WINNERS if row.value(name) is not None), None)
    if column is None:
        return None
    value = row.value(column)
    if isinstance(value, (dict, list)):
        return f"{column} is {kind_of(value)}"
    said = (row.name(column) or "").casefold()
    ends = [re.split(r"[_ ]", name)[-1].removeprefix("response") for name in columns]  # a, b or 0, 1 or 1, 2
    if (
        said in TIES
        or (column == "overall_preference" and said == "0")
        or (ends == ["1", "2"] and said in ("0", "1.5"))
    ):
        raise Dropped("it is a tie")
    if column == "overall_preference" and re.fullmatch(r"-?[1-3]", said):  # below 0: the first
        return said.startswith("-")
    for name, end, won in ((columns[0], ends[0], True), (columns[1], ends[1], False)):
        if said in (end, name, f"model_{end}", f"model {end}", f"response_{end}", f"response {end}", f"answer_{end}"):
            return won
    return f"{column} is {row.value(column)}" if said else None


def _is_one(value: object) -> bool:
    return str(value).strip() in ("1", "1.0", "True", "true")
