"""`HostDevice`: NumPy arrays, SciPy's transforms, and threads that share the rows of an array."""

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy
import scipy.fft
from numpy.typing import DTypeLike, NDArray

from n2n_deploy.device.array_types import Array, ArrayModule
from n2n_deploy.device.device import Result
from n2n_deploy.device.grid_cache import GridCache
from n2n_deploy.device.memory import available_memory
from n2n_deploy.device.processor import usable_cores

BLOCK = 1 << 17
"""About how many values one block of rows has: chains of operations on it then stay in the CPU's cache."""


def row_blocks(shape: tuple[int, ...], multiple: int = 1) -> Iterator[slice]:
    """Yield slices of rows, `multiple` at a time, with about `BLOCK` values each."""
    rows = max(1, BLOCK // max(1, shape[1] * multiple)) * multiple
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


class HostDevice:
    """Host memory; see `Device`.

    Threads are SciPy's number of workers in the calling thread: `workers` within `lane`, otherwise what
    `scipy.fft.set_workers` says, by default one.

    Args:
        workers: threads for one array; by default all cores that this process may use.
    """

    name = "cpu"
    is_gpu = False
    xp = cast(ArrayModule, numpy)

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or usable_cores()
        self.grids = GridCache(share=_make_read_only, retire=lambda: None)

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Let transforms and blocks of rows of this thread use the device's number of workers."""
        with scipy.fft.set_workers(self.workers):
            yield

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Nothing to mark."""
        del name
        return nullcontext()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def to_device(self, array: Array) -> Array:
        """Return the array itself."""
        return array

    def to_host(self, array: Array, *, pinned: bool = False) -> NDArray[Any]:
        """Return the array itself."""
        del pinned
        return cast(NDArray[Any], array)

    def empty_host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised array."""
        return numpy.empty(shape, dtype)

    def statistics(self, array: Array) -> None:
        """Return None: whoever writes the result finds its statistics as fast."""

    def rfft2(self, array: Array) -> NDArray[Any]:
        """Real 2-D transform; see `Device`."""
        return scipy.fft.rfft2(self.to_host(array))

    def irfft2(self, array: Array, shape: tuple[int, int]) -> NDArray[Any]:
        """Inverse of `rfft2`; see `Device`."""
        return scipy.fft.irfft2(self.to_host(array), s=shape)

    def rfft_rows(self, array: Array) -> NDArray[Any]:
        """Real transform of each row; see `Device`."""
        return scipy.fft.rfft(self.to_host(array), axis=1, workers=1)

    def irfft_rows(self, array: Array, n: int) -> NDArray[Any]:
        """Inverse of `rfft_rows`; see `Device`."""
        return scipy.fft.irfft(self.to_host(array), n=n, axis=1, workers=1)

    def fft_columns(self, array: Array) -> NDArray[Any]:
        """Complex transform of each column; see `Device`."""
        return scipy.fft.fft(self.to_host(array), axis=0, overwrite_x=True)

    def ifft_columns(self, array: Array) -> NDArray[Any]:
        """Inverse of `fft_columns`; see `Device`."""
        return scipy.fft.ifft(self.to_host(array), axis=0, overwrite_x=True)

    def map_rows(self, work: Callable[[slice], Result], shape: tuple[int, ...], multiple: int = 1) -> list[Result]:
        """Call `work` with blocks of rows, in as many threads as transforms use; see `Device`."""
        blocks = list(row_blocks(shape, multiple))
        threads = min(scipy.fft.get_workers(), len(blocks))
        if threads <= 1:
            return [work(rows) for rows in blocks]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, blocks))

    def from_rows(
        self, work: Callable[[slice], Array], shape: tuple[int, int], dtype: DTypeLike, width: int = 0
    ) -> Array:
        """Fill an array block by block; see `Device`."""
        array = numpy.empty(shape, dtype=dtype)

        def fill(rows: slice) -> None:
            array[rows] = work(rows)

        self.map_rows(fill, (shape[0], max(shape[1], width)))
        return array

    def grid(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """Return what is kept under `key`; see `Device`."""
        return self.grids.get(key, make)

    def free_memory(self) -> int:
        """Bytes that this process could still take without swapping."""
        return available_memory()

    def host_bytes(self, nbytes: int) -> int:
        """The array's own size."""
        return nbytes

    def fft_work(self, shape: tuple[int, int]) -> int:
        """None that stays."""
        del shape
        return 0


def _make_read_only(array: Array) -> None:
    array.flags.writeable = False


HOST = HostDevice()
"""This machine's processor."""
