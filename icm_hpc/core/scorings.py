"""The ways of scoring: what a prompt is sent as, and which of the model's log-probabilities give the labels' scores."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scoring:
    """A way of scoring."""

    sends_text: bool  # the server tokenizes prompts; else they are sent as token ids
    reads_top_tokens: bool  # labels are looked for in the top-k tokens; else each label's log-probability is asked for


SCORINGS = {
    "exact": Scoring(sends_text=False, reads_top_tokens=False),  # log P(label word | prompt)
    "top20": Scoring(sends_text=True, reads_top_tokens=True),  # as the published code does
}
