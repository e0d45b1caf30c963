"""The plots of a run's page, as SVG."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import bars
from .drawing import COLOURS, GREY, INK, Draw, short, svg
from .figures import Course, GoldFigures, LabelMargins, Numbers, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOXES = 30  # labels of a plot of margins


def plots(report: Report) -> dict[str, str]:
    """Return the SVG of each plot that the run has figures for, by name; raises ImportError without matplotlib."""
    return {name: element for name, height, draw in _wanted(report) if (element := svg(name, height, draw))}


def _wanted(report: Report) -> Iterator[tuple[str, float, Draw]]:
    """Yield name, height in inches and content of each plot."""
    if report.courses:
        shown = next((one for one in report.courses if one.is_best), report.courses[0])
        yield "energy", 2.7, lambda axes: _energy(axes, report.courses)
        if any(value is not None for value in shown.temperature):
            yield "temperature", 2.2, lambda axes: _temperature(axes, shown)
        yield "pool", 2.2, lambda axes: _line(axes, shown.steps, shown.pool, "examples in the pool")
        yield "counts", 2.7, lambda axes: _counts(axes, shown, report.words)
    if len(report.margins):
        used = _most_frequent(report.margins_by_label)
        yield "margins", max(1.6, 0.9 + 0.22 * len(used)), lambda axes: _margins(axes, report, used)
    if len(report.stability):
        yield "stability", 2.2, lambda axes: _stability(axes, report.stability)
    degenerate = _bars(report) if report.degenerate else []
    if len(degenerate) > 1:
        yield "degenerate", 0.9 + 0.24 * len(degenerate), lambda axes: _degenerate(axes, degenerate)
    series, test = report.held_out, report.test
    if series and test:
        yield "held-out", bars.height([series]), lambda axes: bars.draw(axes, [series], test.majority)
    gold = report.gold
    if gold:
        yield "gold", 1.6, lambda axes: _gold(axes, gold)
        yield "reliability", 2.9, lambda axes: _reliability(axes, gold)


def _energy(axes: "Axes", courses: Sequence[Course]) -> None:
    for course in sorted(courses, key=lambda one: one.is_best):
        style: dict[str, Any] = (
            {"color": COLOURS[0], "linewidth": 1.8} if course.is_best else {"color": GREY, "linewidth": 0.9}
        )
        axes.plot(course.steps, course.energy, **style)
    axes.set(xlabel="step", ylabel="energy")


def _temperature(axes: "Axes", course: Course) -> None:
    """Draw the temperature of the steps that had one."""
    known = [(step, value) for step, value in zip(course.steps, course.temperature, strict=True) if value is not None]
    steps, values = zip(*known, strict=True)
    _line(axes, steps, values, "temperature")
    if min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()


def _line(axes: "Axes", steps: Sequence[int], values: Sequence[float], name: str) -> None:
    axes.plot(steps, values, color=COLOURS[0], linewidth=1.6, drawstyle="steps-post")
    axes.set(xlabel="step", ylabel=name)


def _counts(axes: "Axes", course: Course, words: Sequence[str]) -> None:
    """Stack the shares of the most frequent labels, and of all others together."""
    counts = np.array(course.counts, dtype=np.float64).T
    shares = counts / np.maximum(1.0, counts.sum(axis=0))
    order = np.argsort(-counts[:, -1], kind="stable")
    first, rest = order[: len(COLOURS)], order[len(COLOURS) :]
    names = [short(words[label]) for label in first]
    stacked, colours = [shares[label] for label in first], list(COLOURS[: len(first)])
    if len(rest):
        stacked, names, colours = (
            [*stacked, shares[rest].sum(axis=0)],
            [*names, f"{len(rest)} others"],
            [*colours, GREY],
        )
    areas = axes.stackplot(course.steps, stacked, colors=colours, step="post", alpha=0.85)
    axes.set(xlabel="step", ylabel="share of labels", ylim=(0, 1))
    axes.margins(x=0)
    axes.figure.legend(
        areas, names, loc="outside upper center", ncols=3 if len(names) < 4 else 2, fontsize=8.5, handlelength=1
    )


def _margins(axes: "Axes", report: Report, used: Sequence[LabelMargins]) -> None:
    """Draw a box for each label: quartiles, median, and from 5 to 95 of 100."""
    by_word = {word: report.margins[report.labels == label] for label, word in enumerate(report.words)}
    known = [by_word[one.word][~np.isnan(by_word[one.word])] for one in used]
    axes.boxplot(
        known,
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": COLOURS[0], "edgecolor": COLOURS[0], "alpha": 0.55},
        medianprops={"color": INK},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
    )
    axes.axvline(0, color=COLOURS[4], linewidth=1)
    axes.set_yticks(range(1, len(used) + 1), [f"{short(one.word)} ({one.count:,})" for one in used])
    axes.invert_yaxis()
    axes.set_xlabel("margin, nats")


def _stability(axes: "Axes", stability: Numbers) -> None:
    values, counts = np.unique(stability.round(6), return_counts=True)
    axes.bar(values, counts, width=min(0.9 * np.diff(values).min(initial=0.4), 0.3), color=COLOURS[0])
    axes.set(xlabel="share of the other searches that agree", ylabel="examples", xlim=(-0.2, 1.2))
    if len(values) <= 8:
        axes.set_xticks(values, [f"{value:.2f}" for value in values])


def _most_frequent(labels: Sequence[LabelMargins]) -> list[LabelMargins]:
    """Return the labels that a plot has room for, in their own order."""
    first = sorted((one for one in labels if one.count), key=lambda one: -one.count)[:BOXES]
    return [one for one in labels if one in first]


Bar = tuple[str, float, str]  # name, energy, colour


def _bars(report: Report) -> list[Bar]:
    """Return the result of the first shard, that is the worst, and one label for all where it has an energy."""
    shard = report.degenerate[0]
    name = "the result" if len(report.degenerate) == 1 else f"the result of shard {shard.shard}"
    return [
        (name, shard.energy, COLOURS[0]),
        *((f"all {short(one.word)}", one.energy, GREY) for one in shard.labels if one.energy is not None),
    ]


def _degenerate(axes: "Axes", bars: Sequence[Bar]) -> None:
    names, energies, colours = zip(*bars, strict=True)
    axes.barh(range(len(bars)), energies, color=colours, height=0.65)
    axes.set_yticks(range(len(bars)), [f"{name}  {energy:.2f}" for name, energy in zip(names, energies, strict=True)])
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("energy")


def _gold(axes: "Axes", gold: GoldFigures) -> None:
    axes.barh([0, 1], [gold.share, gold.majority], color=[COLOURS[0], GREY], height=0.6)
    axes.errorbar(gold.share, 0, xerr=[[gold.share - gold.low], [gold.high - gold.share]], color=INK, capsize=4)
    axes.set_yticks([0, 1], ["this run", "one label for all"])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="agreement with gold, and its 95 % interval")


def _reliability(axes: "Axes", gold: GoldFigures) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.plot([one.probability for one in gold.bins], [one.agreement for one in gold.bins], "o-", color=COLOURS[0])
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the label", ylabel="agreement with gold")
