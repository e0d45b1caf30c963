"""A run's folder: whose it is, and how it is made."""

from pathlib import Path

import pytest

from icm_hpc.errors import ConfigError
from icm_hpc.rundir import files
from icm_hpc.rundir.files import require_private
from icm_hpc.rundir.folder import RunDir


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused_itself_or_above(tmp_path: Path, mode: int) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    require_private(run_dir.submitit)
    for folder in (run_dir.submitit, run_dir.path):
        folder.chmod(mode)
        with pytest.raises(ConfigError, match=f"with mode {mode:o}: nothing is loaded"):
            require_private(run_dir.submitit)
        folder.chmod(0o700)


def test_folders_of_a_run_of_an_earlier_version_are_made_private(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.submitit.mkdir(parents=True)
    run_dir.submitit.chmod(0o775)
    run_dir.create()
    require_private(run_dir.submitit)


def test_an_empty_root_in_a_folder_that_only_the_site_can_list_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, sync = tmp_path / "mine", files.fsync_folder
    root.mkdir()

    def refuse(folder: Path) -> None:
        if folder == tmp_path:
            raise PermissionError(13, "Permission denied")
        sync(folder)

    monkeypatch.setattr(files, "fsync_folder", refuse)
    run_dir = RunDir(root / "run")
    run_dir.create()
    assert run_dir.submitit.is_dir()
