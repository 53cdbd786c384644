"""A file appears complete or not at all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n2n_deploy.core.errors import HostError
from n2n_deploy.files.atomic import TEMPORARY_SUFFIX, atomic_write, make_writable_folder, remove_stale_temporaries


def test_complete_file_takes_its_name_and_creates_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_write(path) as stream:
        stream.write(b"content")
        assert not path.exists()
        (temporary,) = path.parent.iterdir()
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(TEMPORARY_SUFFIX)
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_failure_leaves_the_earlier_file(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    with pytest.raises(failure), atomic_write(path) as stream:
        stream.write(b"half of it")
        raise failure
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_umask_determines_the_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as stream:
            stream.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_full_disk_is_reported_with_the_bytes_needed(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    # A limit on file size simulates a full disk without any privileges.
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(HostError, match=r"not enough disk space for file\.bin \(5000 bytes") as refusal,
            atomic_write(tmp_path / "file.bin", size=5000) as stream,
        ):
            stream.write(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(tmp_path) in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_read_only_file_system_is_reported() -> None:
    folder = Path("/proc")
    if not folder.is_dir():
        pytest.skip("this system has no /proc, where nobody can make files")
    with pytest.raises(HostError, match="/proc: .*file.*choose another output folder"), atomic_write(folder / "file"):
        pass
    with pytest.raises(HostError, match="/proc/out: cannot be written to .*choose another output folder"):
        make_writable_folder(folder / "out")


def test_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(HostError, match="taken: is a file, expected a folder"), atomic_write(folder / "file"):
            pass
        with pytest.raises(HostError, match="taken: is a file, expected a folder"):
            make_writable_folder(folder)


def test_folder_is_created_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_writable_folder(tmp_path / "a" / "b")
        assert list((tmp_path / "a").rglob("*")) == [tmp_path / "a" / "b"]


def test_errors_of_other_files_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        (tmp_path / "no such input").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_long_and_odd_names(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120)
    with atomic_write(path) as stream:
        stream.write(b"x")
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_dead_writers_are_removed_and_those_of_running_ones_kept(tmp_path: Path) -> None:
    if not Path("/proc/sys/kernel/random/boot_id").exists():
        pytest.skip("this system does not tell one start from another")
    dying = f"""
import os, signal
from n2n_deploy.files.atomic import atomic_write
with atomic_write({str(tmp_path / "dead.mrc")!r}) as stream:
    stream.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", dying], check=False)
    (left,) = tmp_path.iterdir()
    with atomic_write(tmp_path / "alive.mrc") as stream:
        stream.write(b"whole")
        assert remove_stale_temporaries(tmp_path) == [left]
    assert [path.name for path in tmp_path.iterdir()] == ["alive.mrc"]


def test_temporaries_of_other_machines_are_removed_only_if_old(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    old = tmp_path / "sub" / f".killed.mrc.0123abcd{TEMPORARY_SUFFIX}"
    fresh = tmp_path / f".running.mrc.0123abcd{TEMPORARY_SUFFIX}"
    other = tmp_path / ".hidden"
    for path in (old, fresh, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (time.time() - 3600,) * 2)
    assert remove_stale_temporaries(tmp_path) == [old]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([fresh, other])
