"""Logs stay small and private, and what is read from them stays right while they are shortened."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from icm_hpc.monitoring import screen
from icm_hpc.rundir import logs
from icm_hpc.rundir.files import private_append
from icm_hpc.rundir.folder import RunDir
from icm_hpc.rundir.logs import Bound, shorten, tail, written_since

SMALL = Bound(size=20_000, head=1_000, tail=5_000)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Give the test's own handlers back."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    root.handlers.clear()
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = kept


def append(log: Path, text: str) -> None:
    """Write as an engine does."""
    with private_append(log) as file:
        file.write(text.encode())


def lines(first: int, last: int) -> str:
    """Return numbered lines of 20 bytes."""
    return "".join(f"line {number:014d}\n" for number in range(first, last))


def test_driver_log_begins_again_when_it_is_full_and_every_file_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "DRIVER_LOG_BYTES", 2_000)
    run_dir = RunDir(tmp_path)
    earlier = os.umask(0)  # of a process that has not made the folder
    try:
        logs.log_to_files(run_dir)
        for number in range(500):
            root_logger.info("message %d", number)
        root_logger.warning("a warning")
    finally:
        os.umask(earlier)
    files = sorted(path for path in tmp_path.iterdir())
    assert files == [run_dir.driver_log, run_dir.earlier_driver_log]
    assert all(path.stat().st_size <= 2_000 for path in files)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    both = run_dir.earlier_driver_log.read_text() + run_dir.driver_log.read_text()
    numbers = [int(line.split()[-1]) for line in both.splitlines()[:-1]]
    assert numbers == list(range(numbers[0], 500)), "nothing is lost between the two files"
    assert "a warning" in tail(run_dir.driver_log, 1)
    told = capsys.readouterr().err
    assert "a warning" in told
    assert "message" not in told, "Slurm keeps stderr, and nothing bounds it"


def test_driver_log_goes_on_after_someone_has_removed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    monkeypatch.setattr(logs, "DRIVER_LOG_BYTES", 200)
    run_dir = RunDir(tmp_path)
    logs.log_to_files(run_dir)
    root_logger.info("x" * 150)
    run_dir.driver_log.unlink()
    root_logger.info("y" * 150)
    assert "yyy" in run_dir.driver_log.read_text()
    assert run_dir.driver_log.stat().st_mode & 0o777 == 0o600


def test_the_screen_shows_last_lines_when_driver_log_has_just_begun_again(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.earlier_driver_log.write_text("1 server ready\n2 step 1/9, pool 1\n3 the server is lost\n4 reconnected\n")
    run_dir.driver_log.write_text("5 saved\n")
    assert screen._log_lines(run_dir) == ["3 the server is lost", "4 reconnected", "5 saved"]
    run_dir.driver_log.unlink()
    assert screen._log_lines(run_dir) == ["1 server ready", "3 the server is lost", "4 reconnected"]


def test_a_log_within_its_bound_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    append(log, lines(0, 1000))
    shorten(log, SMALL)
    assert log.read_text() == lines(0, 1000)
    shorten(tmp_path / "missing", SMALL)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("begin", [0, 4_000])
def test_a_long_log_keeps_its_begin_and_its_end(tmp_path: Path, begin: int) -> None:
    log = tmp_path / "server.log"
    append(log, lines(0, 2000))
    shorten(log, SMALL, begin)
    head, note, end = log.read_text().partition("\n--- ")
    assert head == lines(0, (begin + 1_000) // 20)
    assert note
    assert end.partition("\n")[2] == lines(1750, 2000)
    assert log.stat().st_size < SMALL.size
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_cause_of_an_exit_is_found_from_the_begin_of_a_start_that_was_shortened(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    append(log, lines(0, 2000))
    shorten(log, SMALL)
    began = log.stat().st_size
    append(log, "Engine starts\n" + lines(0, 2000) + "ValueError: no memory\n")
    for _ in range(3):
        shorten(log, SMALL, began)
        append(log, lines(0, 2000))
    append(log, "ValueError: again\n")
    found = written_since(log, began)
    assert found.startswith("Engine starts\n")
    assert found.endswith("ValueError: again\n")
    assert tail(log, 1, begin=began) == "ValueError: again"


def test_an_end_is_found_also_if_the_log_was_replaced_by_a_shorter_one(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    append(log, "ValueError: no memory\n")
    assert written_since(log, 10_000) == "ValueError: no memory\n"
    assert tail(log, begin=10_000) == "ValueError: no memory"
    assert tail(log, begin=log.stat().st_size) == f"({log} is empty)"
    assert tail(tmp_path / "missing") == f"({tmp_path / 'missing'} is not there)"


def test_a_kill_at_any_write_loses_neither_begin_nor_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "server.log"
    monkeypatch.setattr(logs, "PIECE", 1_000)
    write = os.pwrite
    for writes in range(7):
        log.write_text(lines(0, 2000))
        left = [writes]

        def killed(handle: int, data: bytes, place: int, left: list[int] = left) -> int:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return write(handle, data, place)

        monkeypatch.setattr(os, "pwrite", killed)
        with contextlib.suppress(KeyboardInterrupt):
            shorten(log, SMALL)
        found = log.read_text()
        assert found.startswith(lines(0, 50))
        assert found.endswith(lines(1750, 2000))


def test_a_process_that_prints_without_end_is_bounded_and_no_reader_fails(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    bound = Bound(size=2**18, head=2**14, tail=2**16)
    script = "import sys\nprint('it starts', flush=True)\nn = 0\nwhile True:\n    print('line', n := n + 1)"
    append(log, "of an earlier start\n")
    began = log.stat().st_size
    with private_append(log) as output:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=output)
    failures: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                found = written_since(log, began)
                assert not found or found.startswith("it starts")
                assert "is not there" not in tail(log, begin=began)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        shortened = 0
        while shortened < 10:
            before = log.stat().st_size
            shorten(log, bound, began)
            after = log.stat().st_size
            if before > bound.size:
                shortened += 1
                assert after < before
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        over.set()
        reader.join()
    assert not failures, failures
    shorten(log, bound, began)
    text = log.read_text()
    assert text.startswith("of an earlier start\nit starts\nline 1\n")
    assert "\0" not in text, "an engine appends: no hole is left where it was"
    assert log.stat().st_size <= bound.size
