"""The grid cache under threads and its bound; array modules; FFT plans on a GPU."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from standin_gpu import install_cupy

from n2n_deploy.device.arrays import GridCache, array_module, rfft2, row_blocks, to_numpy


def test_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    cache, made = GridCache(limit=100), []

    def get(key: int) -> None:
        cache.get(key, np, lambda: made.append(key) or np.zeros(40, np.uint8))  # type: ignore[func-returns-value]

    for key in (1, 2, 1, 3, 1, 2):
        get(key)
    assert made == [1, 2, 3, 2]


def test_cache_keeps_what_is_larger_than_its_limit_until_the_next() -> None:
    cache = GridCache(limit=10)
    first = cache.get(1, np, lambda: np.zeros(40))
    assert cache.get(1, np, lambda: np.ones(40)) is first


def test_cache_shares_one_read_only_array_between_threads() -> None:
    cache, barrier = GridCache(limit=1 << 20), threading.Barrier(8)

    def get(_: int) -> object:
        barrier.wait()
        return cache.get("key", np, lambda: np.zeros(1000))

    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(get, range(8)))
    assert all(array is arrays[0] for array in arrays)
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 1  # type: ignore[index]


@pytest.mark.parametrize("shape", [(1, 5), (1000, 999), (7, 1 << 20)])
def test_row_blocks_cover_all_rows_once(shape: tuple[int, int]) -> None:
    rows = [row for block in row_blocks(shape, np) for row in range(block.start, block.stop)]
    assert rows == list(range(shape[0]))


def test_array_module() -> None:
    array = np.zeros(3)
    assert array_module(array) is np
    assert to_numpy(array) is array


def test_a_plan_beyond_the_caches_bound_is_made_once_the_bound_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in with CuPy's rule: a plan larger than the bound in bytes is an error; `make gpu-test` asks CuPy."""
    cupy = install_cupy(monkeypatch)
    image, needed = cupy.asarray(np.ones((20, 22), np.float32)), 8 * 20 * 22
    cache = cupy.fft.config.get_plan_cache()
    cache.set_memsize(1000)
    assert rfft2(image).shape == (20, 12)
    assert needed <= cache.get_memsize() < 2 * needed
    cache.set_memsize(0)
    with pytest.raises(RuntimeError, match="memsize"):
        rfft2(image)
