"""Final answers: one form for all ways to write a number, exactly; which of a solution's numbers is its answer; rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icm_hpc.tasks import TASKS
from icm_hpc.tasks.gsm8k import final_answer
from icm_hpc.tasks.rows import Row

NINES = "9" * 31


def rule(one: object, other: object) -> str | None:
    """Return the name of the rule of two solutions with these answers."""
    family = TASKS["gsm8k"]
    a, b = (
        family.example(Row("", {"question": "Q", "choice": "s", "answer": answer}), i)
        for i, answer in enumerate((one, other))
    )
    assert family.conflict_rule is not None
    found = family.conflict_rule(a, b)
    return found.name if found else None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", "18 dollars"), ("18", "$18.00"), ("$1,234.50", "1234.5"), ("1234.50", "1.234,50"), ("0.5", "1/2"),
        (r"\frac{1}{2}", "0.5"), (r"\dfrac{3}{6}", "½"), ("1 1/2", "1½"), (r"\boxed{\frac{1}{2}}", ".5"), ("−3", "-3"),
        ("–3", "-3"), (r"-\frac{1}{2}", "-0.5"), ("50%", "50"), ("50 %", "0.5"), (r"50\%", "50 percent"), (r"1{,}234", "1234"),
        (r"1\,234", "1,234"), ("1\u202f234", "1234"), ("1'234", "1234"), (r"\$18", "18"), ("$18$", "18"), (r"\(18\)", "18"),
        ("x = 5", "5"), ("5 apples", "5"), ("5 apples", "5 red apples"), ("1 apple", "1 apples"), (r"\text{18 dollars}", "18"),
        ("3.0e2", "300"), (r"3 \times 10^5", "300000"), ("２４", "24"), ("-0", "0"), ("#### 42", "42"), (18, "18"), (18.0, 18),
        ("+7", "7"), ("007", "7"), ("1/3", "2/6"), ("Yes", "yes."), (NINES + "1", int(NINES + "1")), ("(5)", "5"),
        ("5 million", "5,000,000"), ("5k", 5000), ("2 dozen eggs", "24"), ("1 / 2", "0.5"), (r"#### \boxed{12}", "12"),
        ("30°", "30"), ("33 1/3 %", "1/3"), ("5 km", "5km"),
    ],
)  # fmt: skip
def test_equal_answers_are_recognised(one: object, other: object) -> None:
    assert rule(one, other) == rule(other, one) == "same"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", "19"), (NINES + "1", NINES + "2"), ("0." + NINES, "0." + NINES[:-1]), ("0.333333333333333333", "1/3"),
        ("1e9999999", "2"), ("9" * 5000, "8" * 5000), ("1e400", "1e401"), ("yes", "no"), ("-5", "5"), ("50%", "0.6"),
        ("1,234", "1.234"), ("$5", "$6"),
        ("5 million", "5"), ("5k", "5"),
    ],
)  # fmt: skip
def test_different_answers_are_recognised(one: object, other: object) -> None:
    assert rule(one, other) == rule(other, one) == "at most one"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[invalid]", "[invalid]"), ("N/A", "[invalid]"), ("N/A", "5"), ("none", "None"), ("", "5"), ("unknown", "unknown"),
        ("2 hours", "120 minutes"), ("5 hours", "5 minutes"), ("$5", "5 euros"), ("5 and 6", "6 and 5"), ("twelve", "12"),
        ("the red one", "red"), ("√2", "2"), ("3π", "3"), ("3x", "3"), (r"\sqrt{2}", "2"), ("0x1F", "0"),
        ("I don't know", "I don't know."), ("5 dollars and 50 cents", "5"), (float("nan"), "5"),
    ],
)  # fmt: skip
def test_answers_that_are_missing_or_cannot_be_compared_have_no_rule(one: object, other: object) -> None:
    assert rule(one, other) is None


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so 2 + 3 = 5 is it", "5"),
        ("The answer is 12. Check: 3 * 4.", "12"),
        ("The answer is 18 because 9 * 2 = 18. And 7.", "18"),
        ("the answer is: $1,234.50.\nThat took 3 steps", "1234.5"),
        ("**Answer:** 26 dollars", "26"),
        ("The final answer is **26**. It took 3 steps.", "26"),
        ("#### 5\nchecked 7 times", "5"),
        ("The answer is 6.\n#### 5", "5"),
        (r"\boxed{\frac{7}{2}}, after 8 steps", "3.5"),
        (r"first \boxed{1}, then \boxed{7}; 8 steps", "7"),
        ("#### [invalid] after 3", "3"),
        ("#### none", ""),
        ("The answer is not known.", ""),
        ("The answer is between 5 and 6.", ""),
        ("no number", ""),
    ],
)
def test_a_marked_answer_wins_over_the_last_number(solution: str, answer: str) -> None:
    assert final_answer(None, solution) == answer


def test_a_blank_stated_answer_is_none_unless_the_solution_marks_one() -> None:
    assert final_answer("", "4 + 4 = 8 and then 1") == ""
    assert final_answer("", "4 + 4 = 8. The answer is 8.") == "8"


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "1,",
        "1 ",
        "- ",
        "{",
        "$",
        "\\frac",
        "\\boxed{",
        "the answer is ",
        "answer is . ",
        "10 x ",
        "1/",
        "e9",
        "½",
        "*",
        "#### ",
    ],
)
def test_long_and_hostile_texts_are_read_in_time_that_grows_with_their_length(piece: str) -> None:
    for text in (piece * 20_000, "the answer is " + piece * 20_000, "#### " + piece * 20_000):
        assert isinstance(final_answer(None, text), str)
        assert isinstance(final_answer(text, ""), str)


@given(st.text(alphabet="0123456789.,/-e$% \\frac{}x=½−", max_size=40))
def test_any_text_has_an_answer_that_is_its_own_form_or_none(text: str) -> None:
    answer = final_answer(text, text)
    assert isinstance(answer, str)
    if answer.lstrip("-").isdecimal():
        assert final_answer(answer, "") == answer
