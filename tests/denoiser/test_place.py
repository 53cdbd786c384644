"""Where arrays live: a GPU's lanes, their streams and pinned memory, on a stand-in for CuPy."""

import threading
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from standin_cupy import is_pinned
from standin_gpu import MEMORY, install_cupy
from standin_streams import Device, Stream

from n2n_deploy.denoiser.place import GpuPlace, HostPlace, plan_bytes


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in."""
    return install_cupy(monkeypatch)


def image(*shape: int, dtype: Any = np.float32) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_lanes_have_streams_that_outlast_their_threads() -> None:
    gpu, both = GpuPlace(1), threading.Barrier(2)
    results: list[Any] = []
    streams: set[Stream] = set()
    inside: set[Stream] = set()

    def work(barrier: threading.Barrier | None) -> None:
        with gpu.lane():
            assert Device().id == 1
            stream = gpu._threads.lane.stream
            assert not stream.blocking
            assert stream not in inside, "two lanes are on one stream"
            inside.add(stream)
            streams.add(stream)
            if barrier:
                barrier.wait(5)
            results.append(gpu.take(gpu.bring(image(3, 4)) * 2))
            if barrier:
                barrier.wait(5)
            inside.remove(stream)

    for _ in range(3):
        threads = [threading.Thread(target=work, args=(both,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        work(None)
    assert len(results) == 9
    assert all(np.array_equal(result, image(3, 4) * 2) for result in results)
    assert len(streams) == 2


def test_a_lane_waits_for_what_the_caller_is_making(cupy: ModuleType) -> None:
    gpu = GpuPlace(0)
    with Stream(non_blocking=True):
        there = cupy.asarray(image(3, 4)) + 1
        with gpu.lane():
            assert gpu.bring(there) is there
            assert np.array_equal(gpu.take(there * 1), image(3, 4) + 1)


def test_a_thread_keeps_to_its_lane() -> None:
    """Plans of cuFFT belong to threads, and their work areas to streams."""
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


def test_what_is_on_its_way_is_held() -> None:
    """The GPU reads pinned memory late; whoever drops the array must not make it another's meanwhile."""
    gpu = GpuPlace(0)
    read = gpu.empty((3, 4), "int16")
    assert is_pinned(read.ctypes.data)
    read[...] = image(3, 4)
    with gpu.lane():
        first = gpu.bring(read)
        second = gpu.bring(image(3, 4) + 1)  # from ordinary memory, by way of pinned
        del read
        assert np.array_equal(gpu.take(first), image(3, 4, dtype=np.int16))
        assert np.array_equal(gpu.take(second), image(3, 4) + 1)
    assert not gpu._threads.lane.on_the_way


def test_results_are_in_pinned_memory_and_small_ones_may_be_kept() -> None:
    gpu = GpuPlace(0)
    with gpu.lane():
        there = gpu.bring(image(3, 4))
        results = [gpu.take(there), gpu.take(there)]
        small = gpu.take_small(there)
    assert all(is_pinned(result.ctypes.data) for result in results)
    assert not np.shares_memory(*results)
    assert not is_pinned(small.ctypes.data)
    assert all(np.array_equal(result, image(3, 4)) for result in (*results, small))
    host = HostPlace()
    assert host.take_small(host.take(host.bring(small))) is small


def test_pinned_blocks_have_the_size_of_the_largest_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's pool keeps blocks of each size for ever; and an image that is refused must not make all of them larger."""
    import cupyx

    sizes: list[int] = []
    real = cupyx.empty_pinned
    monkeypatch.setattr(cupyx, "empty_pinned", lambda shape, dtype: sizes.append(shape[0]) or real(shape, dtype))
    gpu = GpuPlace(0)
    gpu.empty((512, 512), "float32")
    for side in (64, 32, 128, 64):
        with gpu.lane():
            read = gpu.empty((side, side), "int16")
            read[...] = side
            assert gpu.take(gpu.bring(read).astype(np.float32)).shape == (side, side)
    large, small = 4 * 128 * 128, 4 * 64 * 64
    assert sizes == [4 * 512 * 512, small // 2, *3 * [small], large // 2, *3 * [large]]


def test_pinned_memory_is_planned_as_cupy_takes_it() -> None:
    """Its pool rounds 94 MB of a K3 micrograph up to 128 MiB."""
    k3, network = (4092, 5760), (1512, 2128)
    assert GpuPlace(0).pixels(k3, network) == 2 * 2**27 + 2 * 4 * 1512 * 2128


@pytest.mark.parametrize("dtype", [">i2", ">f4"])
def test_big_endian_images_arrive_as_they_are(dtype: str) -> None:
    gpu, foreign = GpuPlace(0), image(2, 3, dtype=dtype)
    with gpu.lane():
        assert np.array_equal(gpu.take(gpu.bring(foreign)), foreign)


def test_plans_are_bounded_by_the_largest_micrograph_that_a_thread_has_seen(cupy: ModuleType) -> None:
    gpu, bounds = GpuPlace(0), []
    for shape in ((64, 64), (32, 32), (64, 64), (128, 64)):
        with gpu.lane():
            gpu.bring(image(*shape))
        bounds.append(cupy.fft.config.get_plan_cache().get_memsize())
    assert bounds == [*3 * [plan_bytes((64, 64))], plan_bytes((128, 64))]
    assert plan_bytes((64, 64)) >= 8 * np.fft.rfft2(np.zeros((64, 64))).astype(np.complex64).nbytes


def test_supply_is_what_is_free_less_a_reserve() -> None:
    supply = GpuPlace(0, memory=3 * 10**9).supply(2)
    assert (supply.host, supply.gpus) == (3 * 10**9, 2)
    assert 0.8 * MEMORY < (supply.device or 0) < MEMORY
    host = HostPlace().supply()
    assert host.device is None
    assert host.process == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert host.process < host.host < host.process + psutil.virtual_memory().total
