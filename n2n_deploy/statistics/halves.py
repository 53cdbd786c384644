"""Whether two halves of a micrograph are independent images of one specimen, from their correlation."""

import numpy as np
from numpy.typing import NDArray

IDENTICAL_CORRELATION = 0.98
"""Halves that correlate more than this share their noise: independent noise keeps real halves far below it."""

COARSE_SPACING = 20.0
"""Å per pixel at which `coarse_correlation` compares: beyond 40 Å nearly all micrographs have a strong signal."""


def correlation(even: NDArray[np.float32], odd: NDArray[np.float32]) -> float:
    """Correlation coefficient of two images, (h, w) each, over their pixels; 0 where one is constant."""
    mean_even, mean_odd = even.mean(dtype=np.float64), odd.mean(dtype=np.float64)

    def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(np.einsum("ij,ij->", a, b, dtype=np.float64)) / a.size  # sums in float64 without a copy

    covariance = product(even, odd) - mean_even * mean_odd
    norm = np.sqrt((product(even, even) - mean_even**2) * (product(odd, odd) - mean_odd**2))
    return float(covariance / norm) if norm > 0 else 0.0


def coarse_correlation(even: NDArray[np.float32], odd: NDArray[np.float32], spacing: float) -> tuple[float, float]:
    """Correlation of two images averaged over blocks of about 20 Å, and its standard error if there is none.

    Args:
        even: (h, w).
        odd: (h, w).
        spacing: Å per pixel.
    """
    block = max(1, round(COARSE_SPACING / spacing))
    h, w = (side // block * block for side in even.shape)
    coarse = [
        image[:h, :w].reshape(h // block, block, w // block, block).mean(axis=(1, 3), dtype=np.float64)
        for image in (even, odd)
    ]
    return correlation(*coarse), coarse[0].size ** -0.5
