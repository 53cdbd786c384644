"""Where arrays live: the bookkeeping of a GPU's lanes, on a stand-in for CuPy; `make gpu-test` asks the real one."""

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from n2n_deploy.engines import place
from n2n_deploy.engines.place import GpuPlace, HostPlace, plan_bytes


class _Array(np.ndarray):  # type: ignore[type-arg]
    """An array on the stand-in."""

    def set(self, source: Any, stream: Any) -> None:
        assert stream.entered
        self[...] = source

    def get(self, stream: Any, out: Any, blocking: bool) -> None:
        assert stream.entered
        assert not blocking
        out[...] = self


class _Stream:
    made = 0

    def __init__(self, *, non_blocking: bool) -> None:
        assert non_blocking
        _Stream.made += 1
        self.entered = False

    def __enter__(self) -> None:
        assert not self.entered, "two lanes are on one stream"
        self.entered = True

    def __exit__(self, *_: object) -> None:
        self.entered = False

    def synchronize(self) -> None: ...

    def record(self) -> "_Stream":
        return self

    def wait_event(self, event: "_Stream") -> None:
        self.awaited = event


CALLER = _Stream(non_blocking=True)
"""Of who calls the denoiser."""


class _Device:
    current: int | None = None

    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> None:
        _Device.current = self.index

    def __exit__(self, *_: object) -> None:
        _Device.current = None


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU with 10 GB free; the bounds that its plan caches are given."""
    found: list[int] = []
    monkeypatch.setattr(_Stream, "made", 0)
    cache = SimpleNamespace(set_memsize=found.append)
    cupy = SimpleNamespace(
        ndarray=_Array,
        empty=lambda shape, dtype: np.empty(shape, dtype).view(_Array),
        fft=SimpleNamespace(config=SimpleNamespace(get_plan_cache=lambda: cache)),
        get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 10**9),
        get_default_pinned_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
        cuda=SimpleNamespace(
            Device=_Device,
            Stream=_Stream,
            get_current_stream=lambda: CALLER,
            runtime=SimpleNamespace(memGetInfo=lambda: (9 * 10**9, 10**11)),
        ),
    )
    monkeypatch.setattr(place, "import_cupy", lambda: cupy)
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=np.empty))  # type: ignore[misc]
    return found


def test_lanes_have_streams_that_outlast_their_threads(bounds: list[int]) -> None:
    del bounds
    gpu, image, both = GpuPlace(1), np.arange(12, dtype=np.float32).reshape(3, 4), threading.Barrier(2)
    results: list[Any] = []

    def work(barrier: threading.Barrier | None) -> None:
        with gpu.lane():
            assert _Device.current == 1
            if barrier:
                barrier.wait(5)
            results.append(gpu.take(gpu.bring(image) * 2))
            if barrier:
                barrier.wait(5)

    for _ in range(3):
        threads = [threading.Thread(target=work, args=(both,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        work(None)
    assert len(results) == 9
    assert all(np.array_equal(result, image * 2) for result in results)
    assert _Stream.made == 2


def test_a_lane_waits_for_what_the_caller_is_making(bounds: list[int]) -> None:
    del bounds
    gpu = GpuPlace(0)
    with gpu.lane():
        assert gpu._threads.lane.stream.awaited is CALLER
        there = np.zeros((3, 4), np.float32).view(_Array)
        assert gpu.bring(there) is there


def test_a_thread_keeps_to_its_lane(bounds: list[int]) -> None:
    """Plans of cuFFT belong to threads, and their work areas to streams."""
    del bounds
    gpu, inside, leave = GpuPlace(0), threading.Event(), threading.Event()

    def other() -> None:
        with gpu.lane():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with gpu.lane():
        mine = gpu._threads.lane
        thread.start()
        inside.wait(5)
    leave.set()
    thread.join()
    with gpu.lane():
        assert gpu._threads.lane is mine


def test_pinned_memory_is_planned_as_cupy_takes_it(bounds: list[int]) -> None:
    """Its pool rounds 94 MB of a K3 micrograph up to 128 MiB, each way."""
    del bounds
    k3, network = (4092, 5760), (1512, 2128)
    raw = 4 * 4092 * 5760
    assert GpuPlace(0).pixels(k3, network) == 2 * raw + 2 * 2**27 + 2 * 4 * 1512 * 2128


def test_big_endian_images_arrive_as_they_are(bounds: list[int]) -> None:
    del bounds
    gpu, image = GpuPlace(0), np.arange(6, dtype=">i2").reshape(2, 3)
    with gpu.lane():
        assert np.array_equal(gpu.take(gpu.bring(image)), image)


def test_plans_are_bounded_by_the_largest_micrograph_that_a_thread_has_seen(bounds: list[int]) -> None:
    gpu = GpuPlace(0)
    for shape in ((64, 64), (32, 32), (64, 64), (128, 64)):
        with gpu.lane():
            gpu.bring(np.zeros(shape, np.float32))
    assert bounds == [plan_bytes((64, 64)), plan_bytes((128, 64))]
    assert plan_bytes((64, 64)) >= 8 * np.fft.rfft2(np.zeros((64, 64))).astype(np.complex64).nbytes


def test_supply_is_what_is_free_less_a_reserve(bounds: list[int]) -> None:
    del bounds
    supply = GpuPlace(0, memory=3 * 10**9).supply(2)
    assert (supply.host, supply.gpus) == (3 * 10**9, 2)
    assert 8 * 10**9 < (supply.device or 0) < 10**10
    host = HostPlace().supply()
    assert host.device is None
    assert host.process == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert host.process < host.host < host.process + psutil.virtual_memory().total
