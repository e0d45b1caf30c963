"""`python -m icm_hpc.report run=NAME`: write report.html, the result of a run as a page; of a stopped run, what there is.

A run that ends writes it itself. With prompt=ID the prompt in which that example's final scores were asked is printed instead.
"""

import logging
import sys

from .config import describe
from .config.loading import existing_run, load
from .errors import ConfigError
from .reports import collect, page
from .rundir.folder import RunDir
from .terminal import console, reporting_errors

ARGUMENTS = {
    "run=NAME": "the run: the name of its folder (required)",
    "prompt=ID": "print the prompt of this example, and write no page",
    "run.root=runs": "the folder of all runs",
}


@reporting_errors()
def main() -> None:
    """Write the page, and print where it is."""
    topic = describe.asked_for_help(sys.argv[1:])
    if topic is not None:
        describe.print_help(__doc__, ARGUMENTS, topic, takes_settings=False)
        return
    logging.basicConfig(format="%(message)s")
    asked = [word.removeprefix("prompt=") for word in sys.argv[1:] if word.startswith("prompt=")]
    words = [word for word in sys.argv[1:] if not word.startswith("prompt=")]
    run_dir = RunDir(existing_run(load(words, own=ARGUMENTS).run))
    console.out(_prompt(run_dir, asked[-1]) if asked else _written(run_dir))


def _written(run_dir: RunDir) -> str:
    page.write(run_dir)
    return str(run_dir.report)


def _prompt(run_dir: RunDir, id_: str) -> str:
    prompt = collect.prompt_of(run_dir, id_)
    if prompt is None:
        raise ConfigError(
            f"prompt={id_}: the prompt is not known: no labelled example has this id, or the run is of an earlier version"
        )
    return prompt


if __name__ == "__main__":
    main()
