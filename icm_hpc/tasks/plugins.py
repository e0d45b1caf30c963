"""Tasks in Python that are not ours: a .py file, or an entry point `icm_hpc.tasks` of another package, each with a Family."""

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config.loading import TASK_PLUGINS
from ..errors import TaskError
from .family import Family

NAME = "FAMILY"


def family(name: str) -> Family | None:
    """Return the family of a .py file or an entry point; None if there is none of this name. Raises TaskError if it is none."""
    if name.endswith(".py"):
        return _family(_module(Path(name)), name)
    for point in metadata.entry_points(group=TASK_PLUGINS, name=name):
        try:
            found = point.load()
        except Exception as error:  # of another package's code
            raise TaskError(f"task.name={name}: {point.value} cannot be imported: {error}") from error
        return found if isinstance(found, Family) else _family(found, point.value)
    return None


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"icm_hpc_task_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TaskError(f"task={path}: there is no such file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of the user's code
        raise TaskError(f"task={path}: cannot be run: {type(error).__name__}: {error}") from error
    return module


def _family(module: Any, name: str) -> Family:
    found = getattr(module, NAME, None)
    if not isinstance(found, Family):
        raise TaskError(f"task={name}: defines no {NAME} = Family(...), see CONTRIBUTING.md")
    return found
