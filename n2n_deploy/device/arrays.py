"""NumPy or CuPy: which module an array belongs to, its Fourier transforms, and a bounded cache for grids."""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy
import scipy.fft

Array = Any
"""A NumPy or CuPy array; every function returns arrays of the module whose arrays it was given."""

Result = TypeVar("Result")

_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def array_module(array: Array) -> ModuleType:
    """Return the module, numpy or cupy, that `array` belongs to."""
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy  # type: ignore[no-any-return]
    return numpy


def to_numpy(array: Array) -> Array:
    """Return `array` in host memory: itself if it is a NumPy array, a copy if it lives on a GPU."""
    return array if array_module(array) is numpy else array.get()


def set_fft_workers(workers: int) -> None:
    """Set how many threads one image's Fourier work on the CPU uses (at first: all CPUs this process may use).

    Lanes that denoise several micrographs at once share the CPUs, so each of them should use few.
    """
    global _workers
    _workers = max(1, int(workers))


def fft_workers() -> int:
    """Return how many threads one image's Fourier work on the CPU uses."""
    return _workers


def _transform(name: str, array: Array, *, workers: int | None = None, **options: Any) -> Array:
    if array_module(array) is numpy:
        return getattr(scipy.fft, name)(array, workers=workers or _workers, **options)
    import cupy
    import cupyx.scipy.fft

    transform = getattr(cupyx.scipy.fft, name)
    while True:
        try:
            return transform(array, **options)
        except RuntimeError as error:
            # CuPy refuses a plan whose work area exceeds the cache's bound in bytes, before it transforms anything;
            # lengths with a large prime factor have such plans.
            cache = cupy.fft.config.get_plan_cache()
            if "memsize" not in str(error) or cache.get_memsize() <= 0:
                raise
            cache.set_memsize(2 * cache.get_memsize())


def rfft_rows(array: Array) -> Array:
    """Real transform of each row, in the calling thread; float32 gives complex64."""
    return _transform("rfft", array, axis=1, workers=1)


def irfft_rows(array: Array, n: int) -> Array:
    """Inverse of `rfft_rows` to `n` samples; missing high frequencies are taken as zero."""
    return _transform("irfft", array, n=n, axis=1, workers=1)


def fft(array: Array, axis: int, *, overwrite: bool = False) -> Array:
    """Complex transform along one axis; with `overwrite` the input may be used up."""
    return _transform("fft", array, axis=axis, overwrite_x=overwrite)


def ifft(array: Array, axis: int, *, overwrite: bool = False) -> Array:
    """Inverse of `fft`; with `overwrite` the input may be used up."""
    return _transform("ifft", array, axis=axis, overwrite_x=overwrite)


def rfft2(array: Array) -> Array:
    """Real 2-D transform, unnormalised; (ny, nx) float32 gives (ny, nx//2+1) complex64."""
    return _transform("rfft2", array)


def irfft2(array: Array, shape: tuple[int, int]) -> Array:
    """Inverse of `rfft2` to the real-space `shape`; complex64 gives float32."""
    return _transform("irfft2", array, s=shape)


BLOCK = 1 << 17
"""About how many values one block of rows has: chains of operations on it then stay in the CPU's cache."""


def row_blocks(shape: tuple[int, ...], xp: ModuleType, multiple: int = 1) -> Iterator[slice]:
    """Yield slices of rows, `multiple` at a time, with about `BLOCK` values each.

    On a GPU, where every launch costs and nothing is gained, one slice covers all rows.
    """
    rows = shape[0] if xp is not numpy else max(1, BLOCK // max(1, shape[1] * multiple)) * multiple
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def map_row_blocks(
    work: Callable[[slice], Result], shape: tuple[int, ...], xp: ModuleType, multiple: int = 1
) -> list[Result]:
    """Call `work` with each slice of `row_blocks`, on the CPU in as many threads as transforms use."""
    blocks = list(row_blocks(shape, xp, multiple))
    if min(_workers, len(blocks)) == 1:
        return [work(rows) for rows in blocks]
    with ThreadPoolExecutor(min(_workers, len(blocks))) as pool:
        return list(pool.map(work, blocks))


def from_row_blocks(
    work: Callable[[slice], Array], shape: tuple[int, int], dtype: Any, xp: ModuleType, width: int = 0
) -> Array:
    """Return the array of this shape and type whose rows `work` gives block by block; on a GPU it gives all at once.

    Blocks are of the size that rows of `width` values want, where those are more than `shape` says.
    """
    if xp is not numpy:
        return work(slice(0, shape[0])).astype(dtype, copy=False)
    array = xp.empty(shape, dtype=dtype)

    def fill(rows: slice) -> None:
        array[rows] = work(rows)

    map_row_blocks(fill, (shape[0], max(shape[1], width)), xp)
    return array


def moments(values: Array, origin: float) -> tuple[float, float]:
    """Return the sum of the differences from `origin` and that of their squares, in float64."""
    # Cast, then subtract: NumPy crashes the process where a ufunc that casts gets no memory for its buffers.
    difference = values.astype(array_module(values).float64).ravel()
    difference -= origin
    total = float(difference.sum())
    difference *= difference
    return total, float(difference.sum())


def standard_deviation(image: Array) -> float:
    """Standard deviation in float64 of an image whose mean is about 0; on the CPU without a float64 copy of it."""
    xp = array_module(image)
    if xp is not numpy:
        return float(image.std(dtype=xp.float64))
    sums = map_row_blocks(lambda rows: moments(image[rows], 0.0), image.shape, xp)
    total, squares = (sum(parts) for parts in zip(*sums, strict=True))
    return math.sqrt(max(0.0, squares / image.size - (total / image.size) ** 2))


device_lock = threading.RLock()
"""Held while a stream's work is captured and while a whole GPU is waited for: CUDA refuses the second during the first,
whichever threads and streams they are."""


class GridCache:
    """A least-recently-used cache of arrays, bounded in bytes and shared by all threads.

    Arrays are kept per array module and device, and NumPy's are made read-only: callers share them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._arrays: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, xp: ModuleType, make: Callable[[], Array]) -> Array:
        """Return the array kept under `key` for the current device of `xp`, made by `make` the first time."""
        place = (key, xp.__name__, None if xp is numpy else xp.cuda.Device().id)
        with self._lock:
            if place in self._arrays:
                self._arrays.move_to_end(place)
                return self._arrays[place]
        # Two threads may both make it; that costs time once, and holding the lock would cost it always.
        array = make()
        if xp is numpy:
            array.flags.writeable = False
        else:
            # Others take it on streams of their own, which do not wait for the one that fills it.
            xp.cuda.get_current_stream().synchronize()
        with self._lock:
            array = self._arrays.setdefault(place, array)
            while len(self._arrays) > 1 and sum(kept.nbytes for kept in self._arrays.values()) > self.limit:
                _, dropped = self._arrays.popitem(last=False)
                if (module := array_module(dropped)) is not numpy:
                    # Its memory goes back to the stream that made it, while another may still be reading.
                    with device_lock:
                        module.cuda.Device(dropped.device.id).synchronize()
        return array

    def clear(self) -> None:
        """Forget all arrays."""
        with self._lock:
            self._arrays.clear()


grid_cache = GridCache(limit=256 << 20)
"""Filters and frequency grids, per shape, spacing and recipe."""
