"""`CudaDevice`: one NVIDIA GPU, through CuPy: streams, pinned memory, cuFFT, kernels compiled at first use.

Each thread that enters a lane has a stream of its own, and waits for that alone. Files are read into pinned memory and
written from it, so that no other copy is made on the host.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar, cast

import numpy
from numpy.typing import DTypeLike, NDArray

from n2n_deploy.core.errors import HostError
from n2n_deploy.device.array_types import Array, ArrayModule
from n2n_deploy.device.cuda_fft import transform, work_bytes
from n2n_deploy.device.device import Result, Statistics
from n2n_deploy.device.grid_cache import GridCache

_PINNED = 1  # cudaMemoryTypeHost
_THREADS = 256  # of a block


class CudaDevice:
    """One GPU; see `Device`. Ask `cuda_device` for it: streams and pinned memory are shared by all who use the GPU.

    Pinned memory comes from CuPy's pool, which keeps blocks of each size for ever; so all have one size, that of the
    largest result so far.

    Args:
        index: as CUDA counts.

    Attributes:
        index: as given.
        cupy: the module.

    Raises:
        HostError: CuPy is not installed, or cannot use a GPU here.
    """

    is_gpu = True
    workers = 1

    capture_lock: ClassVar = threading.RLock()
    """Held while a stream's work is captured and while a whole GPU is waited for: CUDA refuses the second during the
    first, whichever threads and streams they are."""

    def __init__(self, index: int) -> None:
        self.index, self.name = index, f"cuda:{index}"
        self.cupy = import_cupy()
        self.xp = cast(ArrayModule, self.cupy)
        self.grids = GridCache(share=self._finish, retire=self.synchronize_all)
        self._threads = threading.local()
        # Streams outlast the threads that used them: networks keep buffers for each.
        self._free: deque[_Lane] = deque()
        self._block = 0  # bytes
        self._modules: dict[str, Any] = {}  # by source

    def current(self) -> AbstractContextManager[Any]:
        """Make this GPU the thread's current one."""
        return self.cupy.cuda.Device(self.index)  # type: ignore[no-any-return]

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Enter the GPU in this thread: it and a free stream become current."""
        with self.current():
            lane = self._threads.lane = self._free_lane()
            # An array that is here already may still be computed, on the stream of whoever made it.
            lane.stream.wait_event(self.cupy.cuda.get_current_stream().record())
            with lane.stream:
                try:
                    yield
                finally:
                    # Pinned memory and blocks of the pool are free again only when the GPU is done with them.
                    lane.stream.synchronize()
                    lane.in_transfer.clear()
                    self._free.append(lane)

    def _free_lane(self) -> "_Lane":
        """A lane that no thread is in; this thread's last one where it is free, for cuFFT's plans belong to threads."""
        last: Any = getattr(self._threads, "lane", None)
        with suppress(ValueError):  # it has none, or another thread is in it
            self._free.remove(last)
            return cast(_Lane, last)
        with suppress(IndexError):
            return self._free.pop()
        return _Lane(self.cupy.cuda.Stream(non_blocking=True))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Mark a stage as an NVTX range, where CuPy has NVTX."""
        nvtx = self.cupy.cuda.nvtx
        if not nvtx.available:
            yield
            return
        nvtx.RangePush(name)
        try:
            yield
        finally:
            nvtx.RangePop()

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.cupy.cuda.get_current_stream().synchronize()

    def synchronize_all(self) -> None:
        """Wait for all streams of this GPU."""
        with self.capture_lock, self.current() as device:
            device.synchronize()

    def to_device(self, array: Array) -> Array:
        """Copy to the GPU on this lane's stream: from pinned memory, so by way of it where the array is elsewhere."""
        if type(array) is self.cupy.ndarray:
            return array
        host, lane = cast(NDArray[Any], array), self._threads.lane
        if host.ndim == 2:  # other input is rejected in preprocess()
            self._bound_plans((host.shape[0], host.shape[1]))
        if not (host.dtype.isnative and host.flags.c_contiguous and self._is_pinned(host)):
            pinned = self.empty_host(host.shape, host.dtype.newbyteorder("="))
            pinned[...] = host
            host = pinned
        lane.in_transfer.append(host)
        there = self.cupy.empty(host.shape, dtype=host.dtype)
        there.set(host, stream=lane.stream)
        return cast(Array, there)

    def to_host(self, array: Array, *, pinned: bool = False) -> NDArray[Any]:
        """Copy to pinned memory on the host and wait for it; then on to ordinary memory, unless `pinned`."""
        if not isinstance(array, self.cupy.ndarray):
            return cast(NDArray[Any], array)
        if array.nbytes > self._block:
            self._block = array.nbytes
            self.cupy.get_default_pinned_memory_pool().free_all_blocks()
        taken = self.empty_host(array.shape, array.dtype)
        with self.current():
            stream = self.cupy.cuda.get_current_stream()
            array.get(stream=stream, out=taken, blocking=False)
            stream.synchronize()
        return taken if pinned else taken.copy()

    def empty_host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in pinned memory, which goes back to the pool with the last reference to the array."""
        import cupyx

        size = math.prod(shape) * numpy.dtype(dtype).itemsize
        with self.current():
            block: NDArray[Any] = cupyx.empty_pinned((max(size, self._block),), dtype=numpy.uint8)
        return block[:size].view(dtype).reshape(shape)

    def statistics(self, array: Array) -> Statistics:
        """Minimum, maximum, mean and standard deviation, in float64."""
        float64 = self.xp.float64
        found = (array.min(), array.max(), array.mean(dtype=float64), array.std(dtype=float64))
        low, high, mean, deviation = map(float, found)
        return low, high, mean, deviation

    def rfft2(self, array: Array) -> Array:
        """Real 2-D transform; see `Device`."""
        return transform(self.cupy, "rfft2", array)

    def irfft2(self, array: Array, shape: tuple[int, int]) -> Array:
        """Inverse of `rfft2`; see `Device`."""
        return transform(self.cupy, "irfft2", array, s=shape)

    def rfft_rows(self, array: Array) -> Array:
        """Real transform of each row; see `Device`."""
        return transform(self.cupy, "rfft", array, axis=1)

    def irfft_rows(self, array: Array, n: int) -> Array:
        """Inverse of `rfft_rows`; see `Device`."""
        return transform(self.cupy, "irfft", array, n=n, axis=1)

    def fft_columns(self, array: Array) -> Array:
        """Complex transform of each column; see `Device`."""
        return transform(self.cupy, "fft", array, axis=0, overwrite_x=True)

    def ifft_columns(self, array: Array) -> Array:
        """Inverse of `fft_columns`; see `Device`."""
        return transform(self.cupy, "ifft", array, axis=0, overwrite_x=True)

    def _bound_plans(self, shape: tuple[int, int]) -> None:
        """Bound the thread's plan cache in bytes to what is budgeted; CuPy's own bound is a number of plans."""
        bound = max(self.fft_work(shape), getattr(self._threads, "fft_work", 0))
        if bound != getattr(self._threads, "fft_work", None):
            self._threads.fft_work = bound
            self.cupy.fft.config.get_plan_cache().set_memsize(bound)

    def map_rows(self, work: Callable[[slice], Result], shape: tuple[int, ...], multiple: int = 1) -> list[Result]:
        """Call `work` with all rows at once: every launch costs, and blocks gain nothing here."""
        del multiple
        return [work(slice(0, shape[0]))]

    def from_rows(
        self, work: Callable[[slice], Array], shape: tuple[int, int], dtype: DTypeLike, width: int = 0
    ) -> Array:
        """Compute all rows at once; see `Device`."""
        del width
        return work(slice(0, shape[0])).astype(dtype, copy=False)

    def grid(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """Return what is kept under `key`; see `Device`."""
        return self.grids.get(key, make)

    def _finish(self, array: Array) -> None:
        """Wait for a new grid: others read it on streams of their own, which do not wait for the one that fills it."""
        del array
        self.synchronize()

    def launch(
        self, source: str, options: tuple[str, ...], name: str, threads: int, arguments: tuple[Any, ...]
    ) -> None:
        """Run a kernel on the current stream.

        Args:
            source: CUDA C++, compiled by NVRTC at first use; only ASCII reaches the compiler.
            options: of the compiler.
            name: of the kernel, `extern "C"`.
            threads: how many are needed at least, in one dimension.
            arguments: arrays on this GPU, C-contiguous; NumPy structures and scalars, by value.
        """
        if source not in self._modules:
            # CuPy writes the source in the locale's encoding, which may lack the comments' Greek.
            code = source.encode("ascii", "ignore").decode()
            self._modules[source] = self.cupy.RawModule(code=code, options=options)
        self._modules[source].get_function(name)((-(-threads // _THREADS),), (_THREADS,), arguments)

    def free_memory(self) -> int:
        """Bytes free on the GPU, with those that CuPy's pool keeps for later."""
        with self.current():
            free, _ = self.cupy.cuda.runtime.memGetInfo()
            return int(free + self.cupy.get_default_memory_pool().free_bytes())

    def host_bytes(self, nbytes: int) -> int:
        """Pinned: CuPy's pool takes powers of two."""
        return 1 << (nbytes - 1).bit_length()

    def fft_work(self, shape: tuple[int, int]) -> int:
        """Bytes that cuFFT's plans for a micrograph may keep."""
        return work_bytes(shape)

    def _is_pinned(self, array: NDArray[Any]) -> bool:
        return bool(self.cupy.cuda.runtime.pointerGetAttributes(array.ctypes.data).type == _PINNED)


@dataclass(eq=False)
class _Lane:
    """A stream, and the host arrays that copies on it may still be reading."""

    stream: Any
    in_transfer: list[NDArray[Any]] = field(default_factory=list)


_devices: dict[int, CudaDevice] = {}
_devices_lock = threading.Lock()


def cuda_device(index: int = 0) -> CudaDevice:
    """Return the GPU of this index; the same object for all who ask.

    Raises:
        HostError: CuPy is not installed, or cannot use a GPU here.
    """
    if index not in _devices:
        with _devices_lock:
            _devices.setdefault(index, CudaDevice(index))
    return _devices[index]


def import_cupy() -> ModuleType:
    """Import CuPy.

    Raises:
        HostError: it is not installed, or cannot use a GPU here.
    """
    try:
        import cupy
    except ImportError as error:
        raise HostError(f"CuPy cannot be imported ({error}); install it with pip install 'n2n-deploy[gpu]'") from error
    if not cupy.cuda.is_available():
        raise HostError("CuPy finds no usable GPU here; see n2n-deploy doctor")
    return cupy  # type: ignore[no-any-return]
