"""What decides the labels of a run: two runs that agree in it may share saved state, others may not."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.layout import LAYOUTS
from ..core.scorings import SCORINGS
from ..engines import ENGINES
from .schema import Config

# Settings of later versions, with the values at which a run is one of an earlier version, whose saved state has none of them.
ADDED = {
    "search.method": "single",
    "search.first_labels": "zero_shot",
    "search.label_prior": [],
    "search.calibration": 1.0,
    "search.beyond": "shards",
    "search.kicks": 0,
    "search.pool_run": "",
    "search.word_prior": False,
}
PROMPT_FORMAT = 2  # of the tokens that are sent; 1: pieces of text tokenized by themselves; 2: cut from running text


def result_settings(config: Config) -> dict[str, Any]:
    """Return, by dotted key, the settings that decide what labels a run ends with.

    Two runs that differ in none of these may share a folder. Where a run runs may change, and scorings, steps and restarts may
    grow: a search then goes on from its end, which need not be where one with the larger limit from the start would be.
    """
    # The data's content counts instead of its name (`fingerprint`).
    free = {"task.data", "task.subset", "task.split", "search.scorings", "search.steps", "search.restarts"}
    free |= {"task.test", "task.test_share", "task.test_limit"}  # the digest has what they leave of the data
    # The digest of the data has what these make of them.
    free |= {f"task.{key}" for key in ("prompt", "columns", "labels", "rule", "preamble", "separator")}
    free |= {"search.parallel_searches", "search.ahead", "search.memo_mb"}  # work saved, not decided otherwise
    model = ("engine", "path", "embedded", "revision", "dtype", "max_model_len")
    settings = {f"model.{key}": getattr(config.model, key) for key in model}
    for key in ("quantization", "kv_cache_dtype", "served_name", "top_logprobs"):
        if getattr(config.model, key) is not None:
            settings[f"model.{key}"] = getattr(config.model, key)
    if config.model.reproducible:
        settings["model.reproducible"] = True
    told = {name.replace("_", "-"): value for name, value in config.model.vllm_args.items()}
    neutral = ENGINES[config.model.engine].options.neutral
    settings["model.vllm_args"] = {name: value for name, value in told.items() if name not in neutral}
    for section in ("task", "search"):
        values = dataclasses.asdict(getattr(config, section))
        settings.update({f"{section}.{key}": value for key, value in values.items()})
    free |= {key for key, value in ADDED.items() if settings[key] == value}
    return {key: value for key, value in settings.items() if key not in free}


def fingerprint(config: Config, data_sha256: str) -> str:
    """Return, as JSON, what a checkpoint must agree with to be continued."""
    search = config.search
    never_changed = SCORINGS[search.scoring].sends_text and LAYOUTS[search.layout].is_published
    prompts = {} if never_changed else {"prompt_format": PROMPT_FORMAT}
    return json.dumps({**result_settings(config), **prompts, "data_sha256": data_sha256}, sort_keys=True)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Name the settings in which two runs differ, with both values; empty if there are none."""
    keys = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    return "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here" for key in keys)


def draw_the_same_examples(ours: Config, theirs: Config) -> bool:
    """Return whether two settings take the same examples from the same data; label words do not matter for that."""
    of_ours, of_theirs = (
        dataclasses.replace(one.task, label_words=None, test=None, test_limit=None) for one in (ours, theirs)
    )
    return (of_ours, ours.search.seed) == (of_theirs, theirs.search.seed)


def sha256_of(parts: Iterable[str]) -> str:
    """Return the SHA-256 of `parts`, each ended by a zero byte."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
