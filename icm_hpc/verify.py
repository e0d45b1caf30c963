"""`python -m icm_hpc.verify url=http://HOST:PORT`: check whether a running server can score labels.

Each check is a line: ✓ passed; ✗ failed, with a remedy; – not checked. The exit code is 1 if a check failed, else 0. The
server's key is read from VLLM_API_KEY, in the environment or in the secrets file. Do not check a server that a run is
using: vLLM corrupts answers when two clients ask it for labels in different ways at the same time.
"""

import asyncio
import dataclasses
import json
import sys
from dataclasses import dataclass

from .config import credentials, describe
from .config.addresses import require_url
from .config.place import ServerConfig
from .engines import DEFAULT, ENGINES
from .errors import ConfigError
from .rundir.measured import Line
from .scoring import checks
from .scoring.checks import Check
from .scoring.client import Client
from .scoring.session import open_session
from .terminal import console, reporting_errors

ENGINE = ENGINES[DEFAULT]

ARGUMENTS = {
    "url=http://HOST:PORT": "address of the server (required)",
    "model=": "the server's name for the model; default: the only model that it lists",
    "context=": "length of the longest prompt, in tokens, with the generated one; default: the server's context",
    "json=false": "true: print a JSON object per check",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was told."""

    url: str
    model: str = ""
    context: int | None = None
    json: bool = False


@reporting_errors()
def main() -> None:
    """Run the command."""
    words = sys.argv[1:]
    topic = describe.asked_for_help(words)
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
        return
    asked = parse(words)
    key = credentials.find(ENGINE.key_variable)
    told = asyncio.run(verify(asked, key.value if key else None))
    sys.exit(1 if any(check.passed is False for check in told) else 0)


def parse(words: list[str]) -> Asked:
    """Return what the words of the command say; raises ConfigError for one that is not understood."""
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in ("url", "model", "context", "json") or not value:
            known = "url=http://HOST:PORT model=NAME context=TOKENS json=true"
            raise ConfigError(f"{key!r} is not understood: write {known}; the key is read from ${ENGINE.key_variable}")
        given[key] = value
    context = given.get("context", "")
    if context and not (context.isdecimal() and int(context) >= 2):
        raise ConfigError(f"context={context}: tokens, 2 or more")
    if given.get("json", "false") not in ("true", "false"):
        raise ConfigError(f"json={given['json']}: true or false")
    return Asked(
        url=_root(given.get("url", "")),
        model=given.get("model", ""),
        context=int(context) if context else None,
        json=given.get("json") == "true",
    )


def _root(url: str) -> str:
    """Return a server's address as the client takes it."""
    if not url:
        raise ConfigError("url is missing: write url=http://HOST:PORT")
    try:
        require_url(url)
    except ValueError as error:
        raise ConfigError(f"{error}: write it as url=http://HOST:PORT") from None
    return ENGINE.completions.base_url(url)


async def verify(asked: Asked, key: str | None) -> list[Check]:
    """Check the server and print each check when it is done; return all.

    Nothing is tried again: what is told is what one request found.
    """
    limits = ServerConfig()
    async with open_session(key, limits.request_timeout_s, external_url=asked.url) as session:
        # One of several replicas: each has a cache of its own. A server without replicas takes it too.
        session.headers.update(ENGINE.to_replica(0) if ENGINE.to_replica else {})
        client = Client(
            session,
            ENGINE,
            url=asked.url,
            model=asked.model,
            request_mb=limits.request_mb,
            requests_in_flight=1,
            retries=False,
        )
        return await checks.run(client, print_json if asked.json else print_line, context=asked.context)


def print_line(check: Check) -> None:
    """Print a check for people."""
    console.print(str(check))


def print_json(check: Check) -> None:
    """Print a check as a JSON object."""
    line = Line(check.name, check.passed, check.found, check.remedy, dict(check.figures))
    print(json.dumps(dataclasses.asdict(line)), flush=True)


if __name__ == "__main__":
    main()
