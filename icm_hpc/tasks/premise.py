"""The premise of a task: the text that stands before every label word, such as "\\nSentiment:"."""

import re
from itertools import takewhile

from ..errors import TaskError
from .task import Task

WORD_PRIOR, LABEL_PRIOR = "search.word_prior=true", "search.label_prior=estimated"
INSTEAD = {  # of the settings that require a premise
    WORD_PRIOR: "leave search.word_prior=false",
    LABEL_PRIOR: "give the shares of the labels, as in search.label_prior=[0.8,0.2]",
}


def premise_of(task: Task, required_by: str = WORD_PRIOR) -> str:
    """Return the end that the texts of all examples have in common, from its first white space on.

    So it begins with a whole word. Raises TaskError, which names the setting of INSTEAD that requires it, if nothing but
    white space is left.
    """
    reversed_texts = [example.text[::-1] for example in task.examples]
    pairs = zip(min(reversed_texts), max(reversed_texts), strict=False)  # all texts lie between these two
    common = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::-1]
    found = re.search(r"\s.*", common, re.DOTALL)
    if found is None or not found.group().strip():
        raise TaskError(
            f"task {task.name}: {required_by} requires an end that the texts of all examples have in common, with"
            r' a space or a line break before it, such as "\nSentiment:": end task.prompt with one, or'
            f" {INSTEAD[required_by]}"
        )
    return found.group()
