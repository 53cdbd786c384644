"""A GPU as a device: lanes, their streams and pinned memory, transforms and plans, on a stand-in for CuPy."""

import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.fft
from standin_cupy import is_pinned
from standin_gpu import MEMORY, install_cupy
from standin_streams import Device, Stream

from n2n_deploy.core.errors import HostError
from n2n_deploy.device.arrays import device_of, irfft2, rfft2, standard_deviation, to_host
from n2n_deploy.device.cuda import CudaDevice, cuda_device, import_cupy


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in."""
    return install_cupy(monkeypatch)


def image(*shape: int, dtype: Any = np.float32) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_lanes_have_streams_that_outlast_their_threads() -> None:
    gpu, both = cuda_device(1), threading.Barrier(2)
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
            results.append(gpu.to_host(gpu.to_device(image(3, 4)) * 2))
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


def test_a_lane_waits_for_an_array_that_is_still_computed(cupy: ModuleType) -> None:
    gpu = cuda_device(0)
    with Stream(non_blocking=True):
        there = cupy.asarray(image(3, 4)) + 1
        with gpu.lane():
            assert gpu.to_device(there) is there
            assert np.array_equal(gpu.to_host(there * 1), image(3, 4) + 1)


def test_a_thread_keeps_to_its_lane() -> None:
    """Plans of cuFFT belong to threads, and their work areas to streams."""
    gpu, inside, leave = cuda_device(0), threading.Event(), threading.Event()

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


def test_pinned_memory_is_held_until_it_is_copied() -> None:
    """The GPU reads pinned memory late; whoever drops the array must not make it another's meanwhile."""
    gpu = cuda_device(0)
    read = gpu.empty_host((3, 4), "int16")
    assert is_pinned(read.ctypes.data)
    read[...] = image(3, 4)
    with gpu.lane():
        first = gpu.to_device(read)
        second = gpu.to_device(image(3, 4) + 1)  # from ordinary memory, by way of pinned
        del read
        assert np.array_equal(gpu.to_host(first), image(3, 4, dtype=np.int16))
        assert np.array_equal(gpu.to_host(second), image(3, 4) + 1)
    assert not gpu._threads.lane.in_transfer


def test_results_are_in_pinned_memory_and_small_ones_may_be_kept() -> None:
    gpu = cuda_device(0)
    with gpu.lane():
        there = gpu.to_device(image(3, 4))
        results = [gpu.to_host(there, pinned=True), gpu.to_host(there, pinned=True)]
        small = gpu.to_host(there)
    assert all(is_pinned(result.ctypes.data) for result in results)
    assert not np.shares_memory(*results)
    assert not is_pinned(small.ctypes.data)
    assert all(np.array_equal(result, image(3, 4)) for result in (*results, small))


def test_pinned_blocks_have_the_size_of_the_largest_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's pool keeps blocks of each size for ever; and an image that is refused must not make all of them larger."""
    import cupyx

    sizes: list[int] = []
    real = cupyx.empty_pinned
    monkeypatch.setattr(cupyx, "empty_pinned", lambda shape, dtype: sizes.append(shape[0]) or real(shape, dtype))
    gpu = cuda_device(0)
    gpu.empty_host((512, 512), "float32")
    for side in (64, 32, 128, 64):
        with gpu.lane():
            read = gpu.empty_host((side, side), "int16")
            read[...] = side
            assert gpu.to_host(gpu.to_device(read).astype(np.float32)).shape == (side, side)
    large, small = 4 * 128 * 128, 4 * 64 * 64
    assert sizes == [4 * 512 * 512, small // 2, *3 * [small], large // 2, *3 * [large]]


@pytest.mark.parametrize("dtype", [">i2", ">f4"])
def test_big_endian_images_arrive_as_they_are(dtype: str) -> None:
    gpu, foreign = cuda_device(0), image(2, 3, dtype=dtype)
    with gpu.lane():
        assert np.array_equal(gpu.to_host(gpu.to_device(foreign)), foreign)


def test_fft_plans_are_bounded_by_the_largest_micrograph_that_a_thread_has_seen(cupy: ModuleType) -> None:
    gpu, bounds = cuda_device(0), []
    for shape in ((64, 64), (32, 32), (64, 64), (128, 64)):
        with gpu.lane():
            gpu.to_device(image(*shape))
        bounds.append(cupy.fft.config.get_plan_cache().get_memsize())
    assert bounds == [*3 * [gpu.fft_work((64, 64))], gpu.fft_work((128, 64))]
    assert gpu.fft_work((64, 64)) >= 8 * np.fft.rfft2(np.zeros((64, 64))).astype(np.complex64).nbytes


def test_each_gpu_is_one_device_that_its_arrays_know(cupy: ModuleType) -> None:
    with Device(1):
        there = cupy.asarray(image(3, 4))
    assert device_of(there) is cuda_device(1) is not cuda_device(0)
    assert cuda_device(1).name == "cuda:1"
    assert np.array_equal(to_host(there), image(3, 4))
    assert cuda_device(0).free_memory() == MEMORY - there.nbytes


@pytest.mark.parametrize("shape", [(64, 64), (63, 64), (64, 63)])
def test_transforms_are_scipys(shape: tuple[int, int]) -> None:
    gpu, pixels = cuda_device(0), np.random.default_rng(0).normal(30, 5, shape).astype(np.float32)
    spectrum = scipy.fft.rfft2(pixels)
    with gpu.lane():
        there = gpu.to_device(pixels)
        found = gpu.to_host(rfft2(there))
        back = gpu.to_host(irfft2(rfft2(there), shape))
        columns = gpu.to_host(gpu.fft_columns(gpu.rfft_rows(there)))
        rows = gpu.to_host(gpu.irfft_rows(gpu.ifft_columns(rfft2(there)), shape[1]))
        deviation = standard_deviation(there - np.float32(30))
    for one, other in ((found, spectrum), (back, pixels), (columns, spectrum), (rows, pixels)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
    assert deviation == pytest.approx(float((pixels - np.float32(30)).std(dtype=np.float64)), rel=1e-12)


def test_a_plan_beyond_the_caches_bound_is_made_once_the_bound_allows_it(cupy: ModuleType) -> None:
    """By CuPy's rule: a plan larger than the bound in bytes is an error; `make gpu-test` asks CuPy."""
    there, needed = cupy.asarray(np.ones((20, 22), np.float32)), 8 * 20 * 22
    cache = cupy.fft.config.get_plan_cache()
    cache.set_memsize(1000)
    assert rfft2(there).shape == (20, 12)
    assert needed <= cache.get_memsize() < 2 * needed
    cache.set_memsize(0)
    with pytest.raises(RuntimeError, match="memsize"):
        rfft2(there)


def test_rows_are_not_split() -> None:
    gpu = cuda_device(0)
    with gpu.lane():
        there = gpu.to_device(image(3000, 500))
        assert gpu.map_rows(lambda rows: (rows.start, rows.stop), there.shape) == [(0, 3000)]
        doubled = gpu.from_rows(lambda rows: there[rows] * 2, (3000, 500), np.float64)
        assert np.array_equal(gpu.to_host(doubled), 2.0 * image(3000, 500))


def test_a_grid_is_complete_when_another_stream_gets_it(cupy: ModuleType) -> None:
    gpu = cuda_device(0)
    with Stream(non_blocking=True):
        gpu.grid("key", lambda: cupy.zeros(10) + 3)
    with Stream(non_blocking=True):
        assert np.array_equal(gpu.to_host(gpu.grid("key", lambda: cupy.zeros(10))), np.full(10, 3.0))


def test_statistics_are_those_of_float64() -> None:
    gpu, pixels = cuda_device(0), np.random.default_rng(0).normal(30, 5, (301, 400)).astype(np.float32)
    with gpu.lane():
        found = gpu.statistics(gpu.to_device(pixels))
    truth = pixels.astype(np.float64)
    assert found == pytest.approx((truth.min(), truth.max(), truth.mean(), truth.std()), rel=1e-9)


def test_stages_are_marked_for_profilers_where_cupy_has_nvtx(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, ranges = cuda_device(0), cupy.cuda.nvtx
    with gpu.stage("preprocess"), gpu.stage("inner"):
        pass
    monkeypatch.setattr(ranges, "available", False)
    with gpu.stage("network"):
        pass
    assert ranges.marked == ["preprocess", "inner"]
    assert ranges.depth == 0


def test_a_capture_and_a_wait_for_the_whole_gpu_exclude_each_other() -> None:
    gpu, waited = cuda_device(0), threading.Event()

    def wait() -> None:
        gpu.synchronize_all()
        waited.set()

    thread = threading.Thread(target=wait)
    with CudaDevice.capture_lock:
        thread.start()
        assert not waited.wait(0.1)
    assert waited.wait(5)
    thread.join()


def test_cupy_that_finds_no_gpu_is_refused_with_a_remedy(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy.cuda, "is_available", lambda: False)
    with pytest.raises(HostError, match="n2n-deploy doctor"):
        import_cupy()


def test_missing_cupy_names_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(HostError, match=r"n2n-deploy\[gpu\]"):
        import_cupy()
