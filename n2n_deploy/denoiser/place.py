"""Where a session's arrays live: on the host, or on a GPU that each lane reaches over a stream of its own.

A lane enters its place, brings its image there, works on it with the same functions wherever that is, and takes the
result back. For a GPU files are read into pinned memory and written from it, so that no other copy is made on the host,
and each lane waits for its own stream alone.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import DTypeLike

from n2n_deploy.denoiser.memory_plan import Supply
from n2n_deploy.device.cupy_library import import_cupy
from n2n_deploy.device.memory import available_memory, process_memory
from n2n_deploy.engines.session import Array, Session
from n2n_deploy.io.mrc_output import Statistics

FFT_WORK = 8
"""Spectra of its largest micrograph that a lane's Fourier transforms may keep planned on a GPU: there and back, each
up to four times the data where a length has large prime factors."""

_PINNED = 1  # cudaMemoryTypeHost
_SHARE_OF_GPU = 0.9
_SHARE_OF_HOST = 0.8


class HostPlace:
    """Host memory: NumPy arrays, nothing to move.

    Attributes:
        parallel_networks: whether each lane's network has memory of its own.
    """

    parallel_networks = False

    def __init__(self, memory: int | None = None) -> None:
        self._budget = host_budget(memory)

    def supply(self, gpus: int = 1) -> Supply:
        """What may be used; what the process holds now is taken already."""
        del gpus
        return Supply(self._budget, process_memory())

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Enter the place in this thread."""
        yield

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array for a micrograph to be read into."""
        return numpy.empty(shape, dtype)

    def bring(self, image: Array) -> Array:
        """Return the image as an array of this place."""
        return image

    def take(self, result: Array) -> Array:
        """Return a result as a NumPy array, complete."""
        return result

    def take_small(self, result: Array) -> Array:
        """As `take`, of something that may be kept for long."""
        return result

    def statistics(self, result: Array) -> None:
        """Nothing: whoever writes the result finds its statistics as fast."""

    def wait(self) -> None:
        """Wait until what this thread asked for is done, so that the clock tells what it took."""

    def image_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes on the host of a micrograph (ny, nx)."""
        return 4 * math.prod(shape)

    def pixels(self, shape: tuple[int, int], size: tuple[int, int]) -> int:
        """Bytes on the host of a micrograph (ny, nx) with network input (h, w), beyond `working_memory`: as read."""
        del size
        return self.image_bytes(shape)

    def transfer(self, shape: tuple[int, int]) -> int:
        """Bytes that moving a micrograph (ny, nx) takes where it is worked on, beyond `working_memory`."""
        del shape
        return 0


class GpuPlace:
    """One GPU: CuPy arrays; each lane that is entered has a stream. On the host micrographs are in pinned memory.

    Pinned memory comes from CuPy's pool, which keeps blocks of each size for ever; so all have one size, that of the
    largest result so far.

    Attributes:
        parallel_networks: whether each lane's network has memory of its own.
    """

    parallel_networks = True

    def __init__(self, device: int, memory: int | None = None) -> None:
        self._cupy = import_cupy()
        self._device = device
        self._threads = threading.local()
        # Streams outlast the threads that used them: networks keep buffers for each.
        self._free: deque[_GpuLane] = deque()
        self._block = 0  # bytes
        self._budget = host_budget(memory)
        with self._cupy.cuda.Device(device):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            pooled = self._cupy.get_default_memory_pool().free_bytes()
        self._device_budget = int(_SHARE_OF_GPU * (free + pooled))

    def supply(self, gpus: int = 1) -> Supply:
        """What may be used, with `gpus` GPUs like this one that share the host."""
        return Supply(self._budget, process_memory(), self._device_budget, gpus)

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Enter the place in this thread: its GPU and a free stream become current."""
        with self._cupy.cuda.Device(self._device):
            lane = self._threads.lane = self._free_lane()
            # An image that is here already may still be in the making, on the stream of whoever made it.
            lane.stream.wait_event(self._cupy.cuda.get_current_stream().record())
            with lane.stream:
                try:
                    yield
                finally:
                    # Pinned memory and blocks of the pool are free again only when the device is done with them.
                    lane.stream.synchronize()
                    lane.on_the_way.clear()
                    self._free.append(lane)

    def _free_lane(self) -> "_GpuLane":
        """A lane that no thread is in; this thread's last one where it is free, for cuFFT's plans belong to threads."""
        last: Any = getattr(self._threads, "lane", None)
        with suppress(ValueError):  # it has none, or another thread is in it
            self._free.remove(last)
            return last  # type: ignore[no-any-return]
        with suppress(IndexError):
            return self._free.pop()
        return _GpuLane(self._cupy.cuda.Stream(non_blocking=True))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array in pinned memory, which goes back to the pool with the last reference to the array."""
        import cupyx

        size = math.prod(shape) * numpy.dtype(dtype).itemsize
        with self._cupy.cuda.Device(self._device):
            block = cupyx.empty_pinned((max(size, self._block),), dtype=numpy.uint8)
        return block[:size].view(dtype).reshape(shape)

    def bring(self, image: Array) -> Array:
        """Copy an image to the GPU on this lane's stream: from pinned memory, so by way of it where it is elsewhere."""
        cupy, lane = self._cupy, self._threads.lane
        if isinstance(image, cupy.ndarray):
            return image
        if image.ndim == 2:  # what is no image is refused later
            self._bound_plans(image.shape)
        if not (image.dtype.isnative and image.flags.c_contiguous and self._is_pinned(image)):
            pinned = self.empty(image.shape, image.dtype.newbyteorder("="))
            pinned[...] = image
            image = pinned
        lane.on_the_way.append(image)
        there = cupy.empty(image.shape, dtype=image.dtype)
        there.set(image, stream=lane.stream)
        return there

    def take(self, result: Array) -> Array:
        """Copy a result to pinned memory on the host, and wait for it; see `empty`."""
        if not isinstance(result, self._cupy.ndarray):
            return result
        if result.nbytes > self._block:
            self._block = result.nbytes
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()
        taken = self.empty(result.shape, result.dtype)
        stream = self._threads.lane.stream
        result.get(stream=stream, out=taken, blocking=False)
        stream.synchronize()
        return taken

    def take_small(self, result: Array) -> Array:
        """Copy a result to ordinary memory on the host, so that it may be kept for long."""
        return self.take(result).copy()

    def statistics(self, result: Array) -> Statistics:
        """Minimum, maximum, mean and standard deviation, found where the result is, which saves the host a pass."""
        float64 = self._cupy.float64
        found = (result.min(), result.max(), result.mean(dtype=float64), result.std(dtype=float64))
        low, high, mean, deviation = map(float, found)
        return low, high, mean, deviation

    def wait(self) -> None:
        """Wait until what this lane asked of the GPU is done; `restore` has to wait for it next in any case."""
        self._threads.lane.stream.synchronize()

    def image_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes on the host of a micrograph (ny, nx), pinned: CuPy's pool takes powers of two."""
        return 1 << (4 * math.prod(shape) - 1).bit_length()

    def pixels(self, shape: tuple[int, int], size: tuple[int, int]) -> int:
        """Bytes on the host of a micrograph (ny, nx) as read, its result, and what the network (h, w) saw and made."""
        return 2 * self.image_bytes(shape) + 2 * 4 * math.prod(size)

    def transfer(self, shape: tuple[int, int]) -> int:
        """Bytes on the GPU for a micrograph (ny, nx) beyond `working_memory`.

        As read, the spectra of its rows, which are transformed at once and whole, and work areas of cuFFT.
        """
        return 4 * math.prod(shape) + 8 * shape[0] * (shape[1] // 2 + 1) + plan_bytes(shape)

    def _bound_plans(self, shape: tuple[int, int]) -> None:
        """Bound the thread's plan cache in bytes to what is planned; CuPy's own bound is a number of plans."""
        bound = max(plan_bytes(shape), getattr(self._threads, "plan_bytes", 0))
        if bound != getattr(self._threads, "plan_bytes", None):
            self._threads.plan_bytes = bound
            self._cupy.fft.config.get_plan_cache().set_memsize(bound)

    def _is_pinned(self, image: Array) -> bool:
        return bool(self._cupy.cuda.runtime.pointerGetAttributes(image.ctypes.data).type == _PINNED)


@dataclass(eq=False)
class _GpuLane:
    """A stream, and the arrays that copies on it may still be reading."""

    stream: Any
    on_the_way: list[Array] = field(default_factory=list)


def plan_bytes(shape: tuple[int, int]) -> int:
    """Bytes of work areas that the Fourier transforms of a micrograph (ny, nx) may keep planned on a GPU."""
    return FFT_WORK * 8 * shape[0] * (shape[1] // 2 + 1)


def host_budget(memory: int | None) -> int:
    """Bytes of host memory that this process may use, all together: those it was given, or a share of what is free."""
    return memory if memory is not None else process_memory() + int(_SHARE_OF_HOST * available_memory())


Place = HostPlace | GpuPlace


def place_of(session: Session, memory: int | None = None) -> Place:
    """Return the place where a session's arrays live.

    Args:
        session: an open session.
        memory: host bytes that the process may use; of a GPU's memory it may use what is free.
    """
    if session.array_module == "cupy":
        return GpuPlace(getattr(session, "device", 0), memory)
    return HostPlace(memory)
