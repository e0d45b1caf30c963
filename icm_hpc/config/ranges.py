"""Checks of settings, which raise ValueError with the rule that does not hold."""


def require(holds: bool, rule: str) -> None:  # noqa: FBT001 - a condition, as of assert
    """Raise ValueError with the rule unless it holds."""
    if not holds:
        raise ValueError(rule)


def require_one_of(section: object, **choices: tuple[str, ...]) -> None:
    """Raise ValueError for a value of a section that is none of its choices."""
    for key, allowed in choices.items():
        value = getattr(section, key)
        require(value in allowed, f"{key}={value}: one of {', '.join(filter(None, allowed))}")


def require_at_least(section: object, least: float, *keys: str) -> None:
    """Raise ValueError for a value of a section that is too small; None is none."""
    for key in keys:
        value = getattr(section, key)
        require(value is None or value >= least, f"{key}={value}: {least} or more")


def require_file_names(section: object, *names: str) -> None:
    """Raise ValueError for a path that no file system takes."""
    for name in names:
        text = getattr(section, name) or ""
        fits = (
            "\0" not in text and len(text.encode()) < 4096 and all(len(part.encode()) < 256 for part in text.split("/"))
        )
        require(fits, f"{name}={text[:40]!r}...: is no name that a file can have")
