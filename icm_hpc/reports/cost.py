"""What a run cost: its starts, as provenance.json has them, and their sums."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..config.schema import Config
from ..driver.summary import Summary
from .figures import Fact, Start

STARTS = 20  # that are listed: the last ones
WORK = ("scorings", "scorings_from_memo", "single_examples", "proposals_abandoned")


def starts(attempts: Sequence[Mapping[str, Any]]) -> list[Start]:
    """Return the starts of the driver, the first one first."""
    return [
        Start(
            started=str(one.get("started", "")),
            seconds=_seconds(one),
            host=str(one.get("driver_host", "")),
            job=str(one.get("job") or ""),
            end=str(one.get("end", "no end is recorded: killed, or it goes on")),
        )
        for one in attempts
    ]


def facts(config: Config, attempts: Sequence[Mapping[str, Any]], summary: Summary | None) -> Iterator[Fact]:
    """Yield tokens, time and faults, summed over the starts."""
    counted = [one["counts"] for one in attempts if isinstance(one.get("counts"), dict)]
    traffic = _sum(one.get("traffic", {}) for one in counted)
    work = _sum(one.get("work", {}) for one in counted)
    yield (
        "tokens sent",
        f"{traffic['prompt_tokens']:,} in {traffic['prompts']:,} prompts, {traffic['requests']:,} requests",
    )
    yield from _computed(config, attempts, summary)
    yield (
        "scorings",
        f"{work['scorings']:,} of the pool, {work['single_examples']:,} of single examples,"
        f" {work['scorings_from_memo']:,} answered from memory",
    )
    yield from _time(config, attempts)
    yield from _of_server(summary)
    yield "faults survived", _faults(attempts, counted, traffic)


def _computed(config: Config, attempts: Sequence[Mapping[str, Any]], summary: Summary | None) -> Iterator[Fact]:
    since = summary.since_start if summary else None
    if since is None or since.server_prompt_tokens is None or since.server_computed_tokens is None:
        return
    of_last = ", in the last start" if len(attempts) > 1 or since.servers_lost else ""
    whose = ", for all who use the server" if config.external_url else ""
    total, computed = since.server_prompt_tokens, since.server_computed_tokens
    yield "tokens computed", f"{computed:,} (the server's own counter{of_last}{whose})"
    share = f", {(total - computed) / total:.1%} of {total:,}" if total else ""
    yield "tokens from the prefix cache", f"{total - computed:,}{share}"


def _of_server(summary: Summary | None) -> Iterator[Fact]:
    """Yield what the server was measured to do at the first start."""
    server = summary.server if summary else None
    if server and server.speed:
        speed = server.speed
        yield "speed of the server", f"{speed.tokens_per_s:,.0f} tokens a second, of {speed.prompts} new prompts"
    if server and server.sharing:
        one = server.sharing
        yield "prefix cache", f"{one.hit_rate:.1%} of a small scoring, where {one.best_hit_rate:.1%} can come from it"


def _time(config: Config, attempts: Sequence[Mapping[str, Any]]) -> Iterator[Fact]:
    known = [seconds for one in attempts if (seconds := _seconds(one)) is not None]
    missing = len(attempts) - len(known)
    without = f", without {missing} of {len(attempts)} starts whose end is not recorded" if missing else ""
    yield "time", f"{_duration(sum(known))}{without}"
    if config.external_url:
        yield "GPU-hours", "of a server that the run did not start: not known"
        return
    gpus = config.nodes * config.gpus_per_node
    hours = gpus * sum(known) / 3600
    price = config.cluster.gpu_hour_price
    cost = f", {hours * price:,.2f} at {price:g} an hour" if price else ""
    yield "GPU-hours", f"{hours:.2f} ({gpus} GPUs for that time{cost})" if gpus else "0: no GPU was asked for"


def _faults(attempts: Sequence[Mapping[str, Any]], counted: Sequence[Mapping[str, Any]], traffic: Counter[str]) -> str:
    failures = _sum(one.get("traffic", {}).get("failures", {}) for one in counted)
    lost = sum(int(one.get("servers_lost", 0)) for one in counted)
    abandoned = sum(int(one.get("work", {}).get("proposals_abandoned", 0)) for one in counted)
    parts = [
        (len(attempts) - 1, "restarts of the driver"),
        (lost, "servers lost"),
        *((count, f"failed requests ({kind})") for kind, count in failures.items()),
        (traffic["retries"], "retries"),
        (abandoned, "proposals abandoned"),
    ]
    return ", ".join(f"{count:,} {name}" for count, name in parts if count > 0) or "none"


def _sum(counts: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update({key: value for key, value in one.items() if isinstance(value, int)})
    return total


def _seconds(attempt: Mapping[str, Any]) -> float | None:
    try:
        began, ended = (datetime.strptime(attempt[key], "%Y-%m-%dT%H:%M:%S%z") for key in ("started", "ended"))
    except (LookupError, TypeError, ValueError):
        return None
    return (ended - began).total_seconds()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
