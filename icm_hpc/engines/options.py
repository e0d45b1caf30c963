"""Options of an engine's command line that a run sets itself, in every spelling that the engine's parser accepts."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """What model.vllm_args may not hold, and what of it decides no label."""

    product: str  # whose options they are
    settings: Mapping[str, str]  # by option, the setting that has it
    reasons: Mapping[str, str]  # by option, why it has no setting
    short: Mapping[str, str]  # by short option, the long one
    neutral: frozenset[
        str
    ]  # may differ between the starts of a run: they change log-probabilities by no more than noise

    def reserved(self, name: str) -> str | None:
        """Return the reserved option that the engine's parser makes of a name: short, abbreviated, negated, or with _ for -."""
        plain = written_plainly(name)
        known = [*self.settings, *self.reasons]
        for word in (plain, plain.removeprefix("no-")):
            if word in self.short:
                return self.short[word]
            if word in known:
                return word
            begun = [option for option in known if option.startswith(word)]
            if begun and word:
                return begun[0]
        return None


def written_plainly(name: str) -> str:
    """Return an option's name without leading -, inner keys and _."""
    return name.lstrip("-").split(".")[0].replace("_", "-")
