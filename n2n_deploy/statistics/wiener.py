"""A radial Wiener filter fitted to noisy halves: the linear baseline that a network has to beat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of, irfft2, rfft2
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.statistics.estimates import ring_covariances

SMOOTHING = 2.0
"""Rings; standard deviation of the Gaussian that smooths the covariances over rings."""

_PIXELS = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class WienerFilter:
    """A radial gain, for images of any shape with the pixel size of those that it was fitted to.

    Attributes:
        frequency: (rings,) cycles per pixel.
        gain: (rings,) 0 to 1.
    """

    frequency: NDArray[np.float64]
    gain: NDArray[np.float64]

    def __call__(self, image: Array) -> Array:
        """Filter an image, (ny, nx) → (ny, nx) float32, and keep its mean."""
        device = device_of(image)
        xp = device.xp
        shape = (image.shape[0], image.shape[1])
        mean = np.float32(float(image.mean(dtype=xp.float64)))
        grid = frequencies(shape, _PIXELS, device)
        gain = xp.interp(grid.ravel(), xp.asarray(self.frequency), xp.asarray(self.gain)).reshape(grid.shape)
        filtered: Array = irfft2(rfft2(image.astype(xp.float32) - mean) * gain.astype(xp.float32), shape)
        filtered += mean
        return filtered


def fit_wiener(m1: Array, m2: Array) -> WienerFilter:
    """Fit the filter with the least squared error to the signal: var(S) / var(M) at each frequency.

    That is cov(M1,M2) / var(M), the Fourier ring correlation of the halves, from covariances smoothed over
    neighbouring rings, clipped to 0 to 1.

    Args:
        m1: (ny, nx), a noisy half.
        m2: the other noisy half, with the same grey scale.

    Raises:
        DataError: the shapes differ.
    """
    c = ring_covariances(m1, m2, m1, m2, _PIXELS)
    signal, power = (gaussian_filter1d(values, SMOOTHING, mode="nearest") for values in (c.m1m2, (c.m1m1 + c.m2m2) / 2))
    gain = np.divide(signal, power, out=np.zeros_like(signal), where=power > 0)
    return WienerFilter(c.frequency, np.clip(gain, 0.0, 1.0))
