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
