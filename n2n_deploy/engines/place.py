"""Where a session's arrays live: on the host, or on a GPU that each lane reaches over a stream of its own.

A lane enters its place, brings its image there, works on it with the same functions wherever that is, and takes the
result back. On a GPU copies go through pinned memory, and nothing but the two ends waits for the device.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from n2n_deploy.engines.session import Array, Session
from n2n_deploy.engines.tensorrt import import_cupy
from n2n_deploy.memory import available_memory, process_memory

FFT_PLAN_BYTES = 1 << 30
"""Work areas of the Fourier transforms that a thread keeps planned on a GPU."""

_SHARE_OF_GPU = 0.9
_SHARE_OF_HOST = 0.8


class HostPlace:
    """Host memory: NumPy arrays, nothing to move.

    Attributes:
        parallel_networks: whether each lane's network has memory of its own.
        budget: bytes that this process may use, all together.
        resident: bytes of it that are taken before the first image.
    """

    parallel_networks = False

    def __init__(self, memory: int | None = None) -> None:
        self.resident = process_memory()
        self.budget = memory if memory is not None else self.resident + int(_SHARE_OF_HOST * available_memory())

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Enter the place in this thread."""
        yield

    def bring(self, image: Array) -> Array:
        """Return the image as an array of this place."""
        return image

    def take(self, result: Array) -> Array:
        """Return a result as a NumPy array, complete."""
        return result

    def lane_memory(self, shape: tuple[int, int]) -> int:
        """Bytes that a lane needs for moving and transforming an image (ny, nx), beyond `working_memory`."""
        del shape
        return 0


class GpuPlace:
    """One GPU: CuPy arrays, a stream for each thread, pinned buffers for the way there and back.

    Attributes:
        parallel_networks: whether each lane's network has memory of its own.
        budget: bytes that were free on the GPU, less a reserve.
        resident: bytes of the budget that are taken: none, the network is loaded already.
    """

    parallel_networks = True
    resident = 0

    def __init__(self, device: int) -> None:
        self._cupy = import_cupy()
        self._device = device
        self._threads = threading.local()
        with self._cupy.cuda.Device(device):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            pooled = self._cupy.get_default_memory_pool().free_bytes()
        self.budget = int(_SHARE_OF_GPU * (free + pooled))

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Enter the place in this thread: its GPU and its stream become current."""
        cupy = self._cupy
        with cupy.cuda.Device(self._device):
            if not hasattr(self._threads, "stream"):
                self._threads.stream = cupy.cuda.Stream(non_blocking=True)
                # The plan cache is the thread's own, and by default bounded in number, not in bytes.
                cupy.fft.config.get_plan_cache().set_memsize(FFT_PLAN_BYTES)
            with self._threads.stream:
                try:
                    yield
                finally:
                    # Pinned memory and blocks of the pool are free again only when the device is done with them.
                    self._threads.stream.synchronize()

    def bring(self, image: Array) -> Array:
        """Copy an image to the GPU through pinned memory, on this lane's stream."""
        cupy = self._cupy
        if isinstance(image, cupy.ndarray):
            return image
        native = image.dtype.newbyteorder("=")
        pinned = self._pinned("up", image.shape, native)
        pinned[...] = image
        there = cupy.empty(image.shape, dtype=native)
        there.set(pinned, stream=self._threads.stream)
        return there

    def take(self, result: Array) -> Array:
        """Copy a result to the host through pinned memory, and wait for it."""
        if not isinstance(result, self._cupy.ndarray):
            return result
        pinned = self._pinned("down", result.shape, result.dtype)
        result.get(stream=self._threads.stream, out=pinned, blocking=False)
        self._threads.stream.synchronize()
        return pinned.copy()

    def lane_memory(self, shape: tuple[int, int]) -> int:
        """Bytes that a lane needs for moving and transforming an image (ny, nx), beyond `working_memory`."""
        # The image itself, and cuFFT's work area: about a spectrum each way.
        spectrum = 8 * shape[0] * (shape[1] // 2 + 1)
        return 4 * shape[0] * shape[1] + min(2 * spectrum, FFT_PLAN_BYTES)

    def _pinned(self, way: str, shape: tuple[int, ...], dtype: numpy.dtype[Any]) -> Array:
        """This lane's pinned buffer for one way, as an array; it grows and stays."""
        # Two images may be on their way up before the first wait (the halves): never write into one in flight.
        self._threads.stream.synchronize()
        size = int(numpy.prod(shape)) * dtype.itemsize
        buffer = getattr(self._threads, way, None)
        if buffer is None or buffer.nbytes < size:
            import cupyx

            buffer = cupyx.empty_pinned((size,), dtype=numpy.uint8)
            setattr(self._threads, way, buffer)
        return buffer[:size].view(dtype).reshape(shape)


Place = HostPlace | GpuPlace


def place_of(session: Session, memory: int | None = None) -> Place:
    """Return the place where a session's arrays live.

    Args:
        session: an open session.
        memory: host bytes that the process may use; a GPU's budget is what is free on it.
    """
    if session.array_module == "cupy":
        return GpuPlace(getattr(session, "device", 0))
    return HostPlace(memory)
