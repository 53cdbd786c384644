"""Functions of arrays wherever they live: the device that an array is on, its transforms, its moments."""

import math
from typing import Any, overload

from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.cuda import cuda_device
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST


def device_of(array: object) -> Device:
    """Return the device that an array is on: the GPU of a CuPy array, the host for everything else."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return cuda_device(int(array.device.id))  # type: ignore[attr-defined]
    return HOST


def to_host(array: Array) -> NDArray[Any]:
    """Return an array in host memory: itself if it is a NumPy array, a copy if it is on a GPU."""
    return device_of(array).to_host(array)


@overload
def rfft2(array: NDArray[Any]) -> NDArray[Any]: ...
@overload
def rfft2(array: Array) -> Array: ...
def rfft2(array: Array) -> Array:
    """Real 2-D transform, unnormalised; (ny, nx) float32 gives (ny, nx//2+1) complex64."""
    return device_of(array).rfft2(array)


@overload
def irfft2(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]: ...
@overload
def irfft2(array: Array, shape: tuple[int, int]) -> Array: ...
def irfft2(array: Array, shape: tuple[int, int]) -> Array:
    """Inverse of `rfft2` to the real-space `shape`; complex64 gives float32."""
    return device_of(array).irfft2(array, shape)


def moments(values: Array, origin: float) -> tuple[float, float]:
    """Return the sum of the differences from `origin` and that of their squares, in float64."""
    # Cast, then subtract: NumPy crashes the process where a ufunc that casts gets no memory for its buffers.
    difference = values.astype(device_of(values).xp.float64).ravel()
    difference -= origin
    total = float(difference.sum())
    difference *= difference
    return total, float(difference.sum())


def standard_deviation(image: Array) -> float:
    """Standard deviation in float64 of an image whose mean is about 0; on the host without a float64 copy of it."""
    device = device_of(image)
    if device.is_gpu:
        return float(image.std(dtype=device.xp.float64))
    sums = device.map_rows(lambda rows: moments(image[rows], 0.0), image.shape)
    total, squares = (sum(parts) for parts in zip(*sums, strict=True))
    return math.sqrt(max(0.0, squares / image.size - (total / image.size) ** 2))
