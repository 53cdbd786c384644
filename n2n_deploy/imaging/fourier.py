"""Fourier cropping and padding: from a micrograph's grid to the network's and back."""

import math
from typing import Any, overload

import numpy
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST

MULTIPLE = 8
"""The network halves three times, so its sides are multiples of this."""

SMALLEST = 32
"""Pixels; a network image with a smaller side has nothing to denoise in it."""


def effective_resolution(pixel_size: float, max_resolution: float) -> float:
    """Return the resolution in Å that the network sees: `max_resolution`, or Nyquist where that is coarser.

    Raises:
        DataError: the pixel size is not a positive number.
    """
    if not (math.isfinite(pixel_size) and pixel_size > 0):
        raise DataError(f"the pixel size must be a positive number of Å, not {pixel_size}: correct it in the table")
    return max(max_resolution, 2.0 * pixel_size)


def network_shape(shape: tuple[int, int], pixel_size: float, max_resolution: float) -> tuple[int, int]:
    """Return the (height, width) at which the network sees an image of `shape` (S2.1).

    On each axis the smallest multiple of 8 that is ≥ n · pixel_size / (max_resolution / 2), so that Nyquist
    lies at `max_resolution` or just beyond. Where `max_resolution` (Å) is finer than the image's own Nyquist
    (`effective_resolution` tells), that is used instead, and the axis may grow to the next multiple of 8.

    Raises:
        DataError: the pixel size is not a positive number, or the image is too small.
    """
    resolution = effective_resolution(pixel_size, max_resolution)

    sides = [n * pixel_size / (resolution / 2.0) for n in shape]
    # The tolerance keeps a ratio that is whole in exact arithmetic from growing by rounding.
    height, width = (math.ceil(side / MULTIPLE - 1e-9) * MULTIPLE for side in sides)
    if min(height, width) < SMALLEST:
        raise DataError(
            f"{shape[0]}×{shape[1]} pixels of {pixel_size:g} Å are {sides[0]:.0f}×{sides[1]:.0f} at {resolution:g} Å: "
            f"too small, the network needs {SMALLEST} a side"
        )
    return height, width


def grid_spacing(shape: tuple[int, int], pixel_size: float, new_shape: tuple[int, int]) -> tuple[float, float]:
    """Return Å per pixel along (y, x) after resampling an image to `new_shape`: the field of view stays."""
    return shape[0] * pixel_size / new_shape[0], shape[1] * pixel_size / new_shape[1]


def nyquist(spacing: tuple[float, float]) -> float:
    """Return the lower of the two axes' Nyquist frequencies in 1/Å."""
    return 0.5 / max(spacing)


@overload
def frequencies(shape: tuple[int, int], spacing: tuple[float, float]) -> NDArray[numpy.float32]: ...
@overload
def frequencies(shape: tuple[int, int], spacing: tuple[float, float], device: Device) -> Array: ...
def frequencies(shape: tuple[int, int], spacing: tuple[float, float], device: Device = HOST) -> Array:
    """Return |s| in 1/Å on the rfft grid of an image of `shape`: (ny, nx//2+1) float32, read-only and cached.

    `spacing` is Å per pixel along (y, x); `device` is where the grid is wanted.
    """
    xp = device.xp

    def make() -> Any:
        y = xp.fft.fftfreq(shape[0], spacing[0])[:, None]
        x = xp.fft.rfftfreq(shape[1], spacing[1])[None, :]
        return xp.hypot(y, x).astype(xp.float32)

    return device.grid(("frequencies", shape, spacing), make)


@overload
def resize_spectrum(spectrum: NDArray[Any], shape: tuple[int, int], new_shape: tuple[int, int]) -> NDArray[Any]: ...
@overload
def resize_spectrum(spectrum: Array, shape: tuple[int, int], new_shape: tuple[int, int]) -> Array: ...
def resize_spectrum(spectrum: Array, shape: tuple[int, int], new_shape: tuple[int, int]) -> Array:
    """Crop or zero-pad each axis of a spectrum: sinc resampling of the image to `new_shape`.

    Cropping to an even size adds up the components at +Nyquist and −Nyquist, padding from one halves and
    spreads them, so that a crop undoes a pad exactly and real images stay real. The mean is preserved.

    Args:
        spectrum: (ny, nx//2+1) complex64, unnormalised; columns beyond those of the smaller of the two widths
            are not looked at and may be missing.
        shape: (ny, nx), the image's shape in real space.
        new_shape: (height, width) wanted.

    Returns:
        (height, width//2+1) complex64, a new array.
    """
    rows = _resize_rows(spectrum[:, : common_columns(shape, new_shape)], shape[0], new_shape[0])
    resized = _resize_columns(rows, shape[1], new_shape[1])
    resized *= numpy.float32(math.prod(new_shape) / math.prod(shape))
    return resized


def common_columns(shape: tuple[int, int], new_shape: tuple[int, int]) -> int:
    """Return how many columns of the rfft grid two real-space shapes share."""
    return min(shape[1], new_shape[1]) // 2 + 1


def shared_rows(n: int, new_n: int) -> list[tuple[slice, slice]]:
    """Return slices of rows of two grids that hold the same frequencies, those below the lower Nyquist."""
    smaller = min(n, new_n)
    positive, negative = (smaller + 1) // 2, (smaller - 1) // 2
    return [
        (slice(0, positive), slice(0, positive)),
        (slice(n - negative, n), slice(new_n - negative, new_n)),
    ]


def _resize_rows(spectrum: Array, n: int, new_n: int) -> Array:
    """Crop or pad axis 0 of a spectrum; always a new array."""
    if n == new_n:
        return spectrum.copy()
    smaller = min(n, new_n)
    resized: Array = device_of(spectrum).xp.zeros((new_n, spectrum.shape[1]), dtype=spectrum.dtype)
    for rows, new_rows in shared_rows(n, new_n):
        resized[new_rows] = spectrum[rows]
    half = smaller // 2
    if smaller % 2 == 0 and new_n < n:
        resized[half] = spectrum[half] + spectrum[n - half]
    elif smaller % 2 == 0:
        resized[half] = 0.5 * spectrum[half]
        resized[new_n - half] = resized[half]
    return resized


def _resize_columns(spectrum: Array, n: int, new_n: int) -> Array:
    """Crop, in place, or pad axis 1, the half axis, of a spectrum that has at least the common columns."""
    smaller = min(n, new_n)
    common = smaller // 2 + 1
    if n == new_n:
        return spectrum[:, :common]
    xp = device_of(spectrum).xp
    if new_n < n:
        if new_n % 2 == 0:
            column = spectrum[:, common - 1]
            # The component at −Nyquist in x is the conjugate of the one at +Nyquist and −y.
            spectrum[:, common - 1] = column + xp.roll(column[::-1], 1).conj()
        return spectrum[:, :common]
    resized: Array = xp.zeros((spectrum.shape[0], new_n // 2 + 1), dtype=spectrum.dtype)
    resized[:, :common] = spectrum[:, :common]
    if n % 2 == 0:
        resized[:, common - 1] *= 0.5
    return resized


def partial_rfft2(image: Array, mean: float, columns: int) -> Array:
    """Return the first `columns` columns of rfft2(image − mean): (ny, columns) complex64.

    The transform along y, half of the work, is done for these columns only. Taking the mean away first keeps
    float32's rounding error relative to the contrast, not to the grey level.
    """
    device = device_of(image)
    offset = numpy.float32(mean)

    def transform(rows: slice) -> Any:
        return device.rfft_rows(image[rows] - offset)[:, :columns]

    spectrum = device.from_rows(transform, (image.shape[0], columns), device.xp.complex64, width=image.shape[1])
    return device.fft_columns(spectrum)


def partial_irfft2(spectrum: Array, shape: tuple[int, int], mean: float) -> Array:
    """Return irfft2(spectrum) + mean for a spectrum whose last columns are missing: (ny, nx) float32.

    Args:
        spectrum: (ny, columns) complex64 with columns ≤ nx//2+1, the missing ones zero. It is used up.
        shape: (ny, nx), the real-space shape.
        mean: grey level to add.
    """
    device = device_of(spectrum)
    spectrum = device.ifft_columns(spectrum)
    offset = numpy.float32(mean)

    def transform(rows: slice) -> Array:
        image = device.irfft_rows(spectrum[rows], shape[1])
        image += offset
        return image

    return device.from_rows(transform, shape, device.xp.float32)


def resize_occupied(spectrum: Array, shape: tuple[int, int], new_shape: tuple[int, int]) -> Array:
    """Resize as `resize_spectrum` does, without the columns that would be zero: for `partial_irfft2`."""
    narrow = resize_spectrum(spectrum, shape, (new_shape[0], min(shape[1], new_shape[1])))
    if shape[1] < new_shape[1]:
        if shape[1] % 2 == 0:
            narrow[:, -1] *= 0.5
        narrow *= numpy.float32(new_shape[1] / shape[1])
    return narrow
