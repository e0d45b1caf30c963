"""What a plan has found out."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Plan:
    """What was found out: lines to read, figures for machines, and what cannot work."""

    lines: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)  # settings, each of which would fit
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether nothing was found that cannot work."""
        return not self.misfits
