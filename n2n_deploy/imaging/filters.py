"""Radial Fourier filters: the band-pass of S2.1 and soft low-passes."""

import math
from types import ModuleType

import numpy

from n2n_deploy.imaging.arrays import Array, grid_cache
from n2n_deploy.imaging.fourier import frequencies, nyquist
from n2n_deploy.recipe import Recipe

HIGHPASS_ORDER = 4
LOWPASS_ORDER = 16
"""Steep enough that amplitudes change by less than 2 % between 1.6 and 0.9 of the two cut-offs."""


def bandpass(
    shape: tuple[int, int], spacing: tuple[float, float], recipe: Recipe, xp: ModuleType = numpy
) -> Array:
    """Return the band-pass of S2.1 on the rfft grid: a Butterworth high-pass times a Butterworth low-pass.

    1/√(1 + (f_h/s)^(2·4)) · 1/√(1 + (s/f_l)^(2·16)) with f_h = 1/highpass and f_l = 1/max_resolution, or the
    grid's Nyquist frequency where that is lower. It is 0 at s = 0, 1/√2 at the two cut-offs, and flat between.

    Args:
        shape: (ny, nx) in real space.
        spacing: Å per pixel along (y, x).
        recipe: gives `highpass` and `max_resolution`, in Å.
        xp: numpy or cupy.

    Returns:
        (ny, nx//2+1) float32, read-only and cached.
    """

    def make() -> Array:
        s = frequencies(shape, spacing, xp).astype(xp.float64)
        high = (s * recipe.highpass) ** HIGHPASS_ORDER
        values = high / xp.sqrt(1.0 + high * high)
        low = (s / min(1.0 / recipe.max_resolution, nyquist(spacing))) ** (2 * LOWPASS_ORDER)
        values /= xp.sqrt(1.0 + low)
        return values.astype(xp.float32)

    return grid_cache.get(("bandpass", shape, spacing, recipe.highpass, recipe.max_resolution), xp, make)


def soft_lowpass(
    shape: tuple[int, int],
    spacing: tuple[float, float],
    start: float,
    end: float,
    xp: ModuleType = numpy,
) -> Array:
    """Return a radial low-pass on the rfft grid: 1 up to `start`, a cosine edge, 0 from `end` on.

    Args:
        shape: (ny, nx) in real space.
        spacing: Å per pixel along (y, x).
        start: 1/Å, where the edge begins.
        end: 1/Å, where it ends; at least `start`.
        xp: numpy or cupy.

    Returns:
        (ny, nx//2+1) float32, read-only and cached.
    """

    def make() -> Array:
        edge = (frequencies(shape, spacing, xp) - numpy.float32(start)) / numpy.float32(
            max(end - start, 1e-12)
        )
        return 0.5 + 0.5 * xp.cos(math.pi * xp.clip(edge, 0.0, 1.0))

    return grid_cache.get(("lowpass", shape, spacing, start, end), xp, make)
