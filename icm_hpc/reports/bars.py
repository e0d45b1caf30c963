"""The published figure: accuracy by condition, with intervals, a group of bars for each series."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .drawing import COLOURS, GREY, INK, short
from .figures import POOL, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR_OF = {
    "icm": COLOURS[0],
    "gold": COLOURS[1],
    "zero_shot": COLOURS[2],
    "bootstrap": COLOURS[3],
    "random": GREY,
    POOL: COLOURS[0],
}
EACH = 0.21  # inches: a bar, or the name of a series
APART = 0.7  # of such a place, between series


def height(series: Sequence[Series]) -> float:
    """Return the height that the figure takes, in inches."""
    several = len(series) > 1
    return 0.8 + EACH * sum((1 + APART) * several + len(one.bars) for one in series)


def draw(axes: "Axes", series: Sequence[Series], majority: float | None) -> None:
    """Draw the bars, the first series on top."""
    place, ticks, names = 0.0, [], []
    for one in series:
        if len(series) > 1:
            axes.text(0, place, short(one.name, 60), fontsize=8.5, va="center", fontweight="bold")
            place += 1
        for bar in one.bars:
            value, low, high = bar.accuracy.value, bar.accuracy.low, bar.accuracy.high
            axes.barh(place, value, height=0.7, color=COLOUR_OF.get(bar.condition, GREY))
            if low == low:  # of one group of rows there is no interval
                axes.errorbar(value, place, xerr=[[value - low], [high - value]], color=INK, capsize=2.5, linewidth=1)
            ticks.append(place)
            names.append(f"{bar.condition}  {value:.2f}")
            place += 1
        place += APART
    axes.set_yticks(ticks, names)
    axes.set_ylim(place - APART - 0.4, -0.8)
    if majority is not None:
        axes.axvline(majority, color=COLOURS[4], linewidth=1, linestyle="--")
    axes.set(
        xlim=(0, 1),
        xlabel="accuracy, 95 % interval" + ("" if majority is None else "; dashed: one label for all"),
    )
