"""Locks between processes: exclusive, released by a killed holder, and done without where there are none."""

import errno
import fcntl
import multiprocessing
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from n2n_deploy.core.errors import HostError
from n2n_deploy.files.locks import locked

FORK = multiprocessing.get_context("fork")


def hold(path: Path, holding: Event) -> None:
    with locked(path):
        holding.set()
        signal.pause()


def count(path: Path, counter: Path) -> None:
    for _ in range(20):
        with locked(path):
            number = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(number + 1))


def test_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [FORK.Process(target=count, args=(tmp_path / "lock", counter)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert counter.read_text() == "60"


def test_timeout_names_the_lock_and_a_killed_holder_releases_it(tmp_path: Path) -> None:
    path, holding = tmp_path / "lock", FORK.Event()
    process = FORK.Process(target=hold, args=(path, holding))
    process.start()
    assert holding.wait(timeout=60)
    with pytest.raises(HostError, match=str(path)), locked(path, timeout=0.1):
        raise AssertionError("the lock was held")
    process.kill()
    process.join()
    with locked(path, timeout=10) as held:
        assert held


def test_the_lock_is_exclusive_for_flock_too(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), (tmp_path / "lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_runs_the_block_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock") as held:
        assert not held
    with locked(tmp_path / "lock", timeout=1) as held:
        assert not held


def test_lock_file_that_cannot_be_opened_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="lock file cannot be opened"), locked(tmp_path / "file" / "lock"):
        raise AssertionError("nothing can be locked there")


def test_error_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError("from the block")
    with locked(tmp_path / "lock", timeout=0) as held:
        assert held
