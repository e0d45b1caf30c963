"""Stand-ins for Slurm's commands, put first on the PATH: what sbatch is given is kept, what each prints is the test's."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TESTED = "sbatch: Job 1 to start at 2025-01-01T00:00:00 using 1 processors on nodes n1 in partition p"
SBATCH = f"""#!/bin/bash
kind=queued; if [ "$1" = --test-only ]; then kind=tested; fi
env > "$FAKE/$kind.environment"
printf '%s\\n' "$@" > "$FAKE/$kind.arguments"
if [ $kind = tested ]; then echo '{TESTED}' >&2; exit 0; fi
cat "${{@: -1}}" > "$FAKE/script"
cat "$FAKE/printed"
exit "$(cat "$FAKE/code")"
"""


@dataclass(frozen=True)
class FakeSlurm:
    """A folder of commands."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """What puts the commands first on the PATH."""
        return {"PATH": f"{self.folder}:{os.environ['PATH']}", "FAKE": str(self.folder)}

    @property
    def alone(self) -> dict[str, str]:
        """What leaves a PATH without any of the machine's own Slurm: bash's commands, and these."""
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("bash", "env", "cat", "sh"):
            if not (tools / name).exists():
                (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
        return {"PATH": f"{self.folder}:{tools}", "FAKE": str(self.folder)}

    def command(self, name: str, text: str) -> None:
        """Add a command."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def sbatch(self, printed: str, code: int = 0) -> None:
        """Add an sbatch, or a site's wrapper of it."""
        self.command("sbatch", SBATCH)
        (self.folder / "printed").write_text(printed)
        (self.folder / "code").write_text(str(code))

    def environment(self, kind: str = "queued") -> Mapping[str, str]:
        """Return what sbatch's job would inherit, or, of `tested`, what its --test-only was given."""
        lines = (self.folder / f"{kind}.environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


def made(folder: Path) -> FakeSlurm:
    """Return a folder of commands that has none yet."""
    folder.mkdir()
    return FakeSlurm(folder)
