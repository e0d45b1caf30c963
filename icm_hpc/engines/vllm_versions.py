"""Which versions of vLLM a run works with, and what follows from the one that is found. Measured: docs/vllm-versions.md."""

import re

OLDEST = "0.26"  # whose /v1/completions heeds logprob_token_ids; older ones ignore the field
TESTED = ("0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0")  # CPU builds, the oldest first
READ = "0.33.0"  # for GPUs only: its parser accepts what is sent, and its sources were read; it was not run
REQUIRED = f"vLLM {OLDEST} or newer is required: older ones ignore logprob_token_ids"
INSTALL = "pip install 'icm-hpc[gpu]'"


def is_too_old(version: str) -> bool:
    """Return whether a version is known to ignore what we ask for; a build between releases may state any number."""
    found = _release(version)
    return found is not None and ".dev" not in version and found < _known(OLDEST)


def standing(version: str) -> str:
    """Return what follows from a version: whether tests are made with it, and if not, what then shows that it works."""
    release, newest = _release(version), TESTED[-1]
    if is_too_old(version):
        return f"older than {OLDEST}"
    if version.removeprefix("v").split("+")[0] in TESTED:
        return "tested"
    if release is not None and release > _known(newest):
        read = f" ({READ} was read, not run)" if release == _known(READ) else ""
        return f"newer than {newest}, the newest tested one{read}: the checks below show whether it works"
    return f"untested (tested: {', '.join(TESTED)}): the checks below show whether it works"


def _release(version: str) -> tuple[int, ...] | None:
    """Return major, minor and patch number, or None for what is no version."""
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", version)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _known(version: str) -> tuple[int, ...]:
    major, minor, *patch = map(int, version.split("."))
    return (major, minor, *(patch or [0]))
