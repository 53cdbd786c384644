"""Radial Fourier filters: the band-pass of S2.1 and soft low-passes."""

import math
from collections.abc import Callable
from typing import Any

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST
from n2n_deploy.imaging.fourier import nyquist

HIGHPASS_ORDER = 4
LOWPASS_ORDER = 16
"""Steep enough that amplitudes change by less than 2 % between 1.6 and 0.9 of the two cut-offs."""


def bandpass(shape: tuple[int, int], spacing: tuple[float, float], recipe: Recipe, device: Device = HOST) -> Array:
    """Return the band-pass of S2.1 on the rfft grid: a Butterworth high-pass times a Butterworth low-pass.

    1/√(1 + (f_h/s)^(2·4)) · 1/√(1 + (s/f_l)^(2·16)) with f_h = 1/highpass and f_l = 1/max_resolution, or the
    grid's Nyquist frequency where that is lower. It is 0 at s = 0, 1/√2 at the cut-offs, and flat between.

    Args:
        shape: (ny, nx) in real space.
        spacing: Å per pixel along (y, x).
        recipe: gives `highpass` and `max_resolution`, in Å.
        device: where the filter is wanted.

    Returns:
        (ny, nx//2+1) float32, read-only and cached.
    """
    xp = device.xp
    low_cutoff = min(1.0 / recipe.max_resolution, nyquist(spacing))

    def profile(s: Array) -> Any:
        high = (s * recipe.highpass) ** HIGHPASS_ORDER
        return high / xp.sqrt((1.0 + high * high) * (1.0 + (s / low_cutoff) ** (2 * LOWPASS_ORDER)))

    key = ("bandpass", shape, spacing, recipe.highpass, recipe.max_resolution)
    return device.grid(key, lambda: _radial(profile, shape, spacing, device))


def soft_lowpass(
    shape: tuple[int, int],
    spacing: tuple[float, float],
    start: float,
    end: float,
    device: Device = HOST,
) -> Array:
    """Return a radial low-pass on the rfft grid: 1 up to `start`, a cosine edge, 0 from `end` on.

    Args:
        shape: (ny, nx) in real space.
        spacing: Å per pixel along (y, x).
        start: 1/Å, where the edge begins.
        end: 1/Å, where it ends, beyond `start`.
        device: where the filter is wanted.

    Returns:
        (ny, nx//2+1) float32, read-only and cached.
    """
    xp = device.xp

    def profile(s: Array) -> Any:
        # Rounding leaves cos a hair above or below its ends, and 0 and 1 are meant exactly there.
        edge = xp.clip((s - start) / (end - start), 0.0, 1.0)
        return xp.where(edge < 1.0, 0.5 + 0.5 * xp.cos(math.pi * edge), 0.0)

    key = ("lowpass", shape, spacing, start, end)
    return device.grid(key, lambda: _radial(profile, shape, spacing, device))


def apply_filter(spectrum: Array, factors: Array) -> None:
    """Multiply a complex64 spectrum in place by real factors of its shape."""
    device = device_of(spectrum)

    def multiply(rows: slice) -> None:
        # The cast is written out because NumPy crashes the process where its own gets no memory for its buffers.
        spectrum[rows] *= factors[rows].astype(device.xp.complex64)

    device.map_rows(multiply, spectrum.shape)


def _radial(
    profile: Callable[[Array], Array], shape: tuple[int, int], spacing: tuple[float, float], device: Device
) -> Array:
    """Evaluate a function of |s| on the rfft grid, in float64 but block by block."""
    xp = device.xp
    y = xp.fft.fftfreq(shape[0], spacing[0])[:, None]
    x = xp.fft.rfftfreq(shape[1], spacing[1])[None, :]
    size = (shape[0], x.shape[1])
    return device.from_rows(lambda rows: profile(xp.hypot(y[rows], x)), size, xp.float32)
