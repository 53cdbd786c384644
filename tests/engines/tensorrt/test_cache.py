"""The engine cache: built once however many processes ask, found again, bounded, and closed to others."""

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.engines.tensorrt.cache import EngineCache, EngineKey, cache_folder
from n2n_deploy.engines.tensorrt.profiles import make_profiles

KEY = EngineKey(
    model="ab" * 32,
    library="rtx",
    version="1.7.1.116",
    gpu="NVIDIA RTX A6000 8.6",
    precision="fp16",
    profiles=make_profiles([(512, 512)]),
)
FORK = multiprocessing.get_context("fork")


def never() -> bytes:
    raise AssertionError("it was there already")


def test_built_engine_is_found_again(tmp_path: Path) -> None:
    assert EngineCache(tmp_path / "cache").get(KEY, lambda: b"engine") == b"engine"
    assert EngineCache(tmp_path / "cache").get(KEY, never) == b"engine"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "cd" * 32},
        {"library": "tensorrt"},
        {"version": "1.7.1.117"},
        {"gpu": "NVIDIA RTX A6000 8.9"},
        {"precision": "bf16"},
        {"profiles": make_profiles([(512, 520)])},
    ],
)
def test_every_part_of_the_key_distinguishes_engines(tmp_path: Path, change: dict[str, object]) -> None:
    cache = EngineCache(tmp_path)
    cache.get(KEY, lambda: b"one")
    assert cache.get(KEY.model_copy(update=change), lambda: b"another") == b"another"
    assert cache.get(KEY, never) == b"one"


def ask(folder: Path, start: Barrier, log: Path, answers: "multiprocessing.Queue[bytes]") -> None:
    def build() -> bytes:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return b"built by " + str(os.getpid()).encode()

    start.wait()
    answers.put(EngineCache(folder).get(KEY, build))


def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    count, log = 3, tmp_path / "log"
    start, answers = FORK.Barrier(count), FORK.Queue()
    processes = [FORK.Process(target=ask, args=(tmp_path / "cache", start, log, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(log.read_text().split()) == 1
    assert found == {b"built by " + log.read_bytes().strip()}


def build_for_ever(folder: Path, building: Event) -> None:
    def build() -> bytes:
        building.set()
        signal.pause()
        return b""

    EngineCache(folder).get(KEY, build)


def test_killed_builder_leaves_neither_lock_nor_half_an_engine(tmp_path: Path) -> None:
    building = FORK.Event()
    process = FORK.Process(target=build_for_ever, args=(tmp_path, building))
    process.start()
    assert building.wait(timeout=60)
    process.kill()
    process.join()
    assert EngineCache(tmp_path).get(KEY, lambda: b"engine") == b"engine"


def test_failed_build_is_repeated(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise UsageError("no")

    with pytest.raises(UsageError):
        EngineCache(tmp_path).get(KEY, fail)
    assert EngineCache(tmp_path).get(KEY, lambda: b"engine") == b"engine"


def test_damaged_engine_is_built_again(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.get(KEY, lambda: b"engine")
    (path,) = tmp_path.glob("*.engine")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.get(KEY, lambda: b"again") == b"again"


def test_least_recently_used_engines_are_deleted_beyond_the_limit(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=2500)
    keys = [KEY.model_copy(update={"model": f"{number:064x}"}) for number in range(3)]
    for age, key in enumerate(keys[:2]):
        cache.get(key, lambda: bytes(1000))
        os.utime(tmp_path / f"{key.name}.engine", (age, age))
    cache.get(keys[0], never)
    cache.get(keys[2], lambda: bytes(1000))
    cache.get(keys[0], never)
    cache.get(keys[2], never)
    assert not (tmp_path / f"{keys[1].name}.engine").exists()
    assert EngineCache(tmp_path, limit=10).get(keys[1], lambda: bytes(1000)) == bytes(1000)
    assert [path.stem for path in tmp_path.glob("*.engine")] == [keys[1].name]


def test_kernels_count_towards_the_limit(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=2500)
    for age in range(4):
        kernels = cache.kernels(b"engine", f"GPU {age}")
        kernels.write_bytes(bytes(1000))
        os.utime(kernels, (age, age))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2500 + 1000
    assert kernels.exists()


def test_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(HostError, match="others can write"):
        EngineCache(tmp_path).get(KEY, lambda: b"engine")


def test_new_folder_is_accessible_to_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N2N_DEPLOY_CACHE", str(tmp_path / "mine"))
    EngineCache().get(KEY, lambda: b"engine")
    assert cache_folder().stat().st_mode & 0o777 == 0o700


def test_read_only_cache_gives_what_it_has_and_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EngineCache(tmp_path).get(KEY, lambda: b"engine")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a read-only file system; root may write to any other
    assert EngineCache(tmp_path).get(KEY, never) == b"engine"
    with pytest.raises(HostError, match="not writable.*N2N_DEPLOY_CACHE"):
        EngineCache(tmp_path).get(KEY.model_copy(update={"precision": "bf16"}), never)


def test_cache_is_in_the_users_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("N2N_DEPLOY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "n2n-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "n2n-deploy"
    monkeypatch.setenv("N2N_DEPLOY_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"


def test_folder_that_cannot_be_created_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="N2N_DEPLOY_CACHE"):
        EngineCache(tmp_path / "file" / "cache").get(KEY, lambda: b"engine")
