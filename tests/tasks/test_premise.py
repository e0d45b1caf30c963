"""The premise of a task: what the texts of all its examples end with."""

import pytest

from icm_hpc import tasks
from icm_hpc.config.schema import TaskConfig
from icm_hpc.errors import TaskError
from icm_hpc.tasks import Example, Task, premise_of


def of_texts(*texts: str) -> Task:
    """Return a task of these texts."""
    return Task("own", tuple(Example(i, f"{i}", text) for i, text in enumerate(texts)), (" no", " yes"))


@pytest.mark.parametrize(("name", "premise"), [("reviews", "\nSentiment:"), ("topics", "\nTopic:")])
def test_the_premise_of_a_built_in_task_is_its_last_line(name: str, premise: str) -> None:
    assert premise_of(tasks.load(TaskConfig(name=name), seed=0)) == premise


@pytest.mark.parametrize(
    ("texts", "premise"),
    [
        (("Review: great\nSentiment:", "Review: meat\nSentiment:"), "\nSentiment:"),
        (("It is good. This is", "It is bad. This is"), " This is"),
        (("a\n\nIs it so?\nAnswer: ", "b\n\nIs it so?\nAnswer: "), "\n\nIs it so?\nAnswer: "),
        (("评论：好\n情感：", "评论：不好\n情感："), "\n情感："),
        (("\nLabel:", "text\nLabel:"), "\nLabel:"),
    ],
    ids=["half-a-word", "one-line", "two-lines", "no-spaces", "an-empty-text"],
)
def test_the_premise_begins_with_the_first_whole_word_that_all_texts_end_with(
    texts: tuple[str, ...], premise: str
) -> None:
    assert premise_of(of_texts(*texts)) == premise


@pytest.mark.parametrize(
    "texts", [("It is good.", "It is bad."), ("great ", "bad "), ("one", "two")], ids=["a-sign", "a-space", "nothing"]
)
def test_texts_without_a_common_end_have_no_premise_and_the_error_says_what_helps(texts: tuple[str, ...]) -> None:
    with pytest.raises(TaskError, match=r"search\.word_prior=true requires an end .*: end task\.prompt with one"):
        premise_of(of_texts(*texts))
