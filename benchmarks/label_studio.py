"""Does Label Studio accept what `to=labelstudio` writes? `python benchmarks/label_studio.py EXPORT.json WORD ...`.

To be run in an environment of its own, `pip install label-studio-sdk==2.1.2`: it requires an older numpy than vLLM's. Only this
file and the export are needed.
"""

import json
import sys
from pathlib import Path
from xml.sax.saxutils import quoteattr


def labelling_config(words: list[str]) -> str:
    """Return the labelling interface that docs/export.md shows."""
    choices = "".join(f"<Choice value={quoteattr(word)}/>" for word in words)
    text = '<Text name="text" value="$text"/>'
    return f'<View>{text}<Choices name="label" toName="text">{choices}</Choices></View>'


def main() -> None:
    """Validate every task and prediction of an export; print how many there are."""
    from label_studio_sdk.label_interface import LabelInterface

    path, *words = sys.argv[1:]
    interface = LabelInterface(labelling_config(words))
    tasks = json.loads(Path(path).read_text(encoding="utf-8"))
    for number, task in enumerate(tasks):
        problems = [interface.validate_prediction(one, return_errors=True) for one in task["predictions"]]
        if any(problems) or not interface.validate_task({"data": task["data"]}):
            sys.exit(f"task {number}: {problems}")
    print(f"{len(tasks)} tasks with their predictions are valid")


if __name__ == "__main__":
    main()
