"""The ice gradient: removing from a spectrum the step that a slope makes at the edges of a frame.

Ice gets thicker across a frame. To a Fourier transform, which is periodic, that is a step from one edge to the opposite
one, and a high-pass lets steps through: they ring, and look like particles, for some 20 nm along the edges. A
plane's spectrum lies on the axes of Fourier space alone and is known in closed form. So its slope is fitted to the
components below the high-pass, which no result shows anyway, and the whole plane is subtracted. An image without
components there is not changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy

from n2n_deploy.device.array_types import Array, ArrayModule
from n2n_deploy.device.arrays import device_of


@contextmanager
def subtract_ramp(spectrum: Array, shape: tuple[int, int], pixel_size: float, highpass: float) -> Iterator[None]:
    """Subtract from a spectrum the plane that fits its slow components best, while the context lasts.

    Args:
        spectrum: (ny, columns) complex64, the first columns of an image's rfft2; changed in place, restored at the end.
        shape: (ny, nx) of the image.
        pixel_size: Å.
        highpass: Å; the slope is fitted to components of longer periods along the axes.
    """
    ny, nx = shape
    row, column = spectrum[0].copy(), spectrum[:, 0].copy()
    spectrum[0] -= _ramp(row, nx, pixel_size, highpass)
    spectrum[:, 0] -= _ramp(column, ny, pixel_size, highpass)
    try:
        yield
    finally:
        spectrum[0], spectrum[:, 0] = row, column


def _ramp(components: Array, n: int, pixel_size: float, highpass: float) -> Array:
    """Return the multiple of a ramp's spectrum that is nearest to an image's profile, by the slow components.

    Args:
        components: those of the profile's DFT from frequency 0 on, (n,) or less.
        n: samples of the profile.
        pixel_size: Å.
        highpass: Å.
    """
    xp = device_of(components).xp
    unit = _unit_ramp(n, components.size, xp)
    slow = slice(1, max(1, min(int(numpy.ceil(n * pixel_size / highpass)), n // 2)))
    power = xp.maximum((xp.abs(unit[slow]) ** 2).sum(), 1.0)
    slope = (unit[slow].conj() * components[slow]).real.sum() / power
    ramp: Array = (slope * unit).astype(components.dtype)
    return ramp


def _unit_ramp(n: int, count: int, xp: ArrayModule) -> Array:
    """Return the first components of the DFT of 0, 1, … n − 1 less its mean: n/2 · (i cot(πk/n) − 1), but 0 first."""
    ramp: Array = xp.zeros(count, dtype=xp.complex128)
    ramp[1:] = n / 2 * (1j / xp.tan(numpy.pi / n * xp.arange(1, count)) - 1)
    return ramp
