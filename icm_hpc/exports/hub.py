"""A folder for the Hugging Face hub: a Parquet file, and a card that says how the labels came about and what they are worth."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..driver.summary import Summary, warnings
from . import tables
from .selection import Selection

# The hub's name of a size, by the number of rows that it is under.
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
FILE = "data/train-00000-of-00001.parquet"

ABOUT = Path(__file__).with_name("card.md")  # a card without its metadata

LIMITS = (
    "A coherent labelling can be wrong as a whole: the model may have found another property of the texts than the one meant.",
    "Margins are those of a model that was shown these very labels as examples. They rank rows, and are not calibrated.",
    "The labels repeat what the model has learned from its training data, its biases included.",
    "The texts have the licence and the sensitive content of their source: set `license` before you publish them.",
)


def folder(path: Path, selection: Selection) -> int:
    """Write the folder; it is fit for `datasets.load_dataset(FOLDER)` and `hf upload`."""
    (path / "data").mkdir(parents=True)
    count = tables.parquet(path / FILE, selection)
    (path / "README.md").write_text(card(selection, count, (path / FILE).stat().st_size), encoding="utf-8")
    return count


def card(selection: Selection, count: int, size: int) -> str:
    """Return a dataset card of `count` rows in `size` bytes."""
    return _metadata(selection, count, size) + ABOUT.read_text(encoding="utf-8").format(
        title=f"{_task(selection)}, labelled by {_plain(selection.config.model.name)}",
        rows=f"{count:,}",
        k=len(selection.words),
        gold=_agreement(selection),
        how="\n".join(f"| {name} | {value} |" for name, value in _how(selection, count)),
        gold_column="| `gold` | gold label, null if there is none |\n" if selection.gold is not None else "",
        limits="\n".join(f"- {limit}" for limit in (*_warnings(selection), *LIMITS)),
    )


def _agreement(selection: Selection) -> str:
    """Return how many labels agree with the column of gold labels, as the end of a sentence; empty without one."""
    gold = selection.gold or {}
    known = [line.label == gold[line.id] for line in selection.kept() if line.id in gold]
    if not known:
        return ""
    return f"; the column `gold` was added afterwards, and {sum(known)} of {len(known)} labels agree with it"


def _metadata(selection: Selection, count: int, size: int) -> str:
    """Return the YAML part of a card, between its lines of dashes."""
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    splits = SplitDict({"train": SplitInfo("train", num_bytes=size, num_examples=count)})
    info = DatasetInfo(features=tables.features(selection), splits=splits, download_size=size, dataset_size=size)
    data = DatasetCardData(
        pretty_name=f"{_task(selection)}, labelled by {selection.config.model.name}",
        license="unknown",
        annotations_creators=["machine-generated"],
        task_categories=["text-classification"],
        size_categories=[next((name for limit, name in SIZES.items() if count < limit), "10M<n<100M")],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        tags=["icm", "machine-generated labels"],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return f"---\n{data.to_yaml()}\n---\n\n"


def _how(selection: Selection, count: int) -> Iterator[tuple[str, str]]:
    """Yield the settings and figures of a run, by what they are."""
    config, summary, lines = selection.config, selection.summary, selection.kept()
    search, model = config.search, config.model
    yield "task", f"`{_task(selection)}`"
    yield "model", f"`{_plain(model.name)}`" + (f", revision `{_plain(model.revision)}`" if model.revision else "")
    yield (
        "method",
        f"`{search.method}`, protocol `{search.protocol}`, layout `{search.layout}`, scoring `{search.scoring}`",
    )
    less = (
        "; scores are less log P of the word after the end that all texts have in common" if search.word_prior else ""
    )
    yield "objective", f"`{search.objective}`, alpha {search.alpha:g}{less}"
    if summary and summary.label_prior and summary.label_prior_by != "equal":
        shares = ", ".join(f"`{_plain(word)}` {share:.3f}" for word, share in summary.label_prior.items())
        yield "shares of labels", f"{summary.label_prior_by}: {shares}"
    yield "seeds", ", ".join(str(search.seed + number) for number in range(search.restarts))
    if summary:
        yield "labelled", _by(summary)
        yield "energy", f"{summary.energy:.3f}, {summary.conflicts} conflicts"
        agree = "one search, unknown" if summary.restarts_agree is None else f"{summary.restarts_agree:.3f}"
        yield "agreement of restarts", agree
    chosen = selection.filter
    bounds = [
        f"{name} of {value:g} or more"
        for name, value in (("margin", chosen.min_margin), ("stability", chosen.stable))
        if value is not None
    ]
    yield "rows", f"{count:,} of {len(selection.lines):,}" + (f": {' and '.join(bounds)}" if bounds else "")
    counts = np.bincount([line.label for line in lines], minlength=len(selection.words))
    yield (
        "labels",
        ", ".join(f"`{_plain(name)}` {number:,}" for name, number in zip(selection.names, counts, strict=True)),
    )
    yield "median margin", f"{median(line.margin for line in lines):.3f} nats"


def _by(summary: Summary) -> str:
    applied = summary.beyond.examples if summary.beyond else 0
    parts = (
        (summary.labelled_by_search, "the search"),
        (summary.labelled_by_completion, "its last pass"),
        (applied, "apply"),
    )
    return ", ".join(f"{number:,} by {name}" for number, name in parts if number)


def _warnings(selection: Selection) -> Iterator[str]:
    if selection.summary:
        yield from (f"**Warning.** {words}." for words in warnings(selection.summary))
    else:
        yield "The figures of the run were not there when this card was written."


def _task(selection: Selection) -> str:
    return _plain(Path(selection.config.task.name).stem)  # the name of a task of one's own may be its path


def _plain(text: Any) -> str:
    """Return a text as it can stand in a table of Markdown, in code or not."""
    return " ".join(str(text).replace("`", "'").replace("|", "/").replace("<", "&lt;").split())
