"""Which file systems a machine has for itself."""

from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
IN_MEMORY = ("tmpfs", "ramfs")
TEMPORARY = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))  # noqa: S108  # by the Filesystem Hierarchy Standard


def of_this_machine_only(path: Path) -> str | None:
    """Return the folder or file system that holds `path` and that other machines do not see; None if none is known to."""
    place = path.resolve()
    above = {place, *place.parents}
    for folder in TEMPORARY:
        if folder in above or folder.resolve() in above:
            return str(folder)
    return _in_memory(above)


def _in_memory(above: set[Path]) -> str | None:
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # no Linux
        return None
    mounts = [(Path(fields[1].replace("\\040", " ")), fields[2]) for fields in map(str.split, lines) if len(fields) > 2]
    holding = [(mount, kind) for mount, kind in mounts if mount in above]
    if not holding:
        return None
    mount, kind = max(holding, key=lambda held: len(held[0].parts))
    return f"{mount} ({kind})" if kind in IN_MEMORY else None
