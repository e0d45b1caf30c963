"""From rows to the records that trainers and annotation tools read; docs/export.md has the columns of each."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..driver.labels import LabelRow
from ..errors import ConfigError
from ..tasks import Example
from ..tasks.preferences import dialogue_prompt, turns
from .pairs import Pair
from .selection import Selection

Record = dict[str, Any]
FIELD, QUESTION = "text", "label"  # of annotation tools


def sft(selection: Selection) -> Iterator[Record]:
    """Yield prompts with the label word as completion."""
    for row in selection.rows():
        if selection.chat:
            user, assistant = _messages(selection, row)
            yield {"prompt": [user], "completion": [assistant]}
        else:
            yield {"prompt": row.text, "completion": selection.words[row.label]}


def preferences(selection: Selection) -> Iterator[Record]:
    """Yield a prompt with a chosen and a rejected text for each pair; raises ConfigError for messages without a prompt."""
    for pair in _pairs(selection):
        if selection.chat and not pair.prompt:
            raise ConfigError(
                "chat=true: the two texts of a pair begin with nothing alike, which leaves no prompt: leave it out"
            )
        yield {
            "prompt": turns(pair.prompt) if selection.chat else pair.prompt,
            "chosen": _answer(selection, pair.chosen),
            "rejected": _answer(selection, pair.rejected),
        }


def kto(selection: Selection) -> Iterator[Record]:
    """Yield prompts and completions, each desirable or not; raises ConfigError for a task that has not two labels.

    Comparisons give two answers to a question. Claims give one; it is desirable if its label is the second one. Of any other
    task, the completion is the second label's word.
    """
    if len(selection.words) != 2:
        raise ConfigError(f"to=kto: requires a task of two labels, and this one has {len(selection.words)}; use to=sft")
    if selection.family.compared:
        for pair in _pairs(selection):
            prompt = turns(pair.prompt) if selection.chat else pair.prompt
            for answer, label in ((pair.chosen, True), (pair.rejected, False)):
                yield {"prompt": prompt, "completion": _answer(selection, answer), "label": label}
        return
    for row in selection.rows():
        prompt, completion = row.text, selection.words[1]
        if selection.family.claimed:
            question, claim = selection.family.claimed(Example(row.id, row.group, row.text))
            prompt, completion = dialogue_prompt(question), f" {claim}"
        asked = turns(prompt) if selection.family.claimed else [{"role": "user", "content": prompt}]
        shown = asked if selection.chat else prompt
        yield {"prompt": shown, "completion": _answer(selection, completion), "label": row.label == 1}


def axolotl(selection: Selection) -> Iterator[Record]:
    """Yield segments for `type: input_output`, where only the label word is trained; or messages for `type: chat_template`."""
    for row in selection.rows():
        if selection.chat:
            yield {"messages": _messages(selection, row)}
        else:
            segments = ((row.text, False), (selection.words[row.label], True))
            yield {"segments": [{"label": is_trained, "text": text} for text, is_trained in segments]}


def openai(selection: Selection) -> Iterator[Record]:
    """Yield dialogues of a user who shows the text and an assistant who says the label."""
    for row in selection.rows():
        yield {"messages": _messages(selection, row)}


def argilla(selection: Selection) -> Iterator[Record]:
    """Yield records in the form of `argilla.Record.to_dict`, with the label as a suggestion."""
    for row in selection.rows():
        suggestion = {
            "value": row.word,
            "score": probability(row),
            "agent": selection.config.model.name,
            "type": "model",
        }
        yield {"id": str(row.id), "fields": {FIELD: row.text}, "suggestions": {QUESTION: suggestion}}


def labelstudio(selection: Selection) -> Iterator[Record]:
    """Yield tasks with the label as a prediction, for a `<Choices name="label" toName="text">`."""
    for row in selection.rows():
        choice = {"from_name": QUESTION, "to_name": FIELD, "type": "choices", "value": {"choices": [row.word]}}
        prediction = {"model_version": selection.config.model.name, "score": probability(row), "result": [choice]}
        yield {"data": {"id": str(row.id), FIELD: row.text}, "predictions": [prediction]}


def probability(row: LabelRow) -> float:
    """Return the probability of the label among all label words, 0 to 1."""
    return math.exp(min(0.0, row.margin)) / (1 + math.exp(-abs(row.margin)))


def _pairs(selection: Selection) -> Sequence[Pair]:
    kept = selection.pairs.kept if selection.pairs else ()
    return sorted(kept, key=lambda pair: pair.margin) if selection.order == "margin" else kept


def _messages(selection: Selection, row: LabelRow) -> list[dict[str, str]]:
    word = selection.words[row.label].strip()
    return [{"role": "user", "content": row.text}, {"role": "assistant", "content": word}]


def _answer(selection: Selection, text: str) -> Any:
    """Return a completion as plain text, or as messages of which the first is the assistant's."""
    return turns(f"Assistant:{text}") if selection.chat else text
