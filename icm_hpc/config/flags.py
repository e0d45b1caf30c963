"""Words of a command that are true or false and are no settings, such as json=true."""

from collections.abc import Sequence

from ..errors import ConfigError


def split_flags(words: Sequence[str], *flags: str) -> tuple[list[str], dict[str, bool]]:
    """Return all other words, and the flags that are given; raises ConfigError for a flag that is neither true nor false."""
    pairs = {key: value for key, _, value in (word.partition("=") for word in words) if key in flags}
    for key, value in pairs.items():
        if value not in ("true", "false"):
            raise ConfigError(f"{key}={value}: one of true, false")
    others = [word for word in words if word.partition("=")[0] not in flags]
    return others, {key: value == "true" for key, value in pairs.items()}
