"""The grid cache: its bound, the order in which it drops, and threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from n2n_deploy.device.grid_cache import GridCache
from n2n_deploy.device.host import HostDevice


def cache_of(limit: int, retired: list[Any] | None = None) -> GridCache:
    return GridCache(lambda _: None, lambda: retired.append(1) if retired is not None else None, limit)


def test_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    retired: list[Any] = []
    cache, made = cache_of(100, retired), []

    def get(key: int) -> None:
        cache.get(key, lambda: made.append(key) or np.zeros(40, np.uint8))  # type: ignore[func-returns-value]

    for key in (1, 2, 1, 3, 1, 2):
        get(key)
    assert made == [1, 2, 3, 2]
    assert len(retired) == 2
    cache.clear()
    assert len(retired) == 3
    get(2)
    assert made == [1, 2, 3, 2, 2]


def test_cache_keeps_a_grid_larger_than_its_limit_until_the_next() -> None:
    cache = cache_of(10)
    first = cache.get(1, lambda: np.zeros(40))
    assert cache.get(1, lambda: np.ones(40)) is first


def test_threads_share_one_read_only_array() -> None:
    device, barrier = HostDevice(), threading.Barrier(8)

    def get(_: int) -> Any:
        barrier.wait()
        return device.grid("key", lambda: np.zeros(1000))

    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(get, range(8)))
    assert all(array is arrays[0] for array in arrays)
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 1
