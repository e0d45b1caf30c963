"""A look at the one setting of a run's config.yaml that `status` shows: to read all of the file takes 15 ms a run."""

import re
from pathlib import Path

from ..engines import ENGINES
from . import loading


def has_external_server(config: Path) -> bool:
    """Return whether a run's server is one that already runs.

    Reads two lines of the file as this program writes it, and all of any other; then raises ConfigError as `load_file` does.
    """
    text = config.read_bytes().decode(errors="replace")
    url, engine = _word(text, "server", "url"), _word(text, "model", "engine")
    if _is_known_format(text) and url is not None and engine in ENGINES:
        return url != "null" or ENGINES[engine].default_url is not None
    return loading.load_file(config).external_url is not None


def _is_known_format(text: str) -> bool:
    found = re.match(r"format: ([0-9]+)\n", text)
    return found is not None and 1 <= int(found[1]) <= loading.FORMAT and text.endswith("\n")


def _word(text: str, section: str, key: str) -> str | None:
    """Return a value that is one unquoted word, or None; what stands deeper is indented by more than two spaces."""
    found = re.search(rf"^{section}:\n(?:(?: .*)?\n)*?  {key}: ([A-Za-z0-9][^\s#]*)\n", text, re.MULTILINE)
    return None if found is None else found[1]
