"""A run's labels in the formats that other programs read: docs/export.md. One line a format in FORMATS."""

from . import hub, records, tables
from .writing import Writer, json_lines, json_list

__all__ = ["FORMATS", "IN_FOLDERS", "PAIRED", "TAKES"]

FORMATS: dict[str, Writer] = {
    "parquet": tables.parquet,
    "hf": hub.folder,
    "csv": tables.csv,
    "sft": json_lines(records.sft),
    "dpo": json_lines(records.preferences),
    "reward": json_lines(records.preferences),
    "kto": json_lines(records.kto),
    "axolotl": json_lines(records.axolotl),
    "openai": json_lines(records.openai),
    "argilla": json_list(records.argilla),
    "labelstudio": json_list(records.labelstudio),
    "cleanlab": tables.cleanlab,
}

# Options that not every format takes.
TAKES: dict[str, tuple[str, ...]] = {
    "chat": ("sft", "dpo", "reward", "kto", "axolotl"),
    "gold": ("parquet", "hf", "csv"),
    "spreadsheet": ("csv",),
}

PAIRED = ("dpo", "reward")  # of which a record is a pair of texts; to=kto needs pairs of comparisons
IN_FOLDERS = ("hf",)  # what makes a folder and no file
