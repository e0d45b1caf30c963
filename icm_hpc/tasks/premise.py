"""The premise of a task: the text that stands before every label word, such as "\\nSentiment:"."""

import re
from itertools import takewhile

from ..errors import TaskError
from .task import Task


def premise_of(task: Task) -> str:
    """Return the end that the texts of all examples have in common, from its first white space on.

    So it begins with a whole word. Raises TaskError if nothing but white space is left.
    """
    reversed_texts = [example.text[::-1] for example in task.examples]
    pairs = zip(min(reversed_texts), max(reversed_texts), strict=False)  # all texts lie between these two
    common = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::-1]
    found = re.search(r"\s.*", common, re.DOTALL)
    if found is None or not found.group().strip():
        raise TaskError(
            f"task {task.name}: search.word_prior=true requires an end that the texts of all examples have in common, with"
            r' a space or a line break before it, such as "\nSentiment:": end task.prompt with one, or leave'
            " search.word_prior=false"
        )
    return found.group()
