"""The defocus of a micrograph that nobody has fitted, from its Thon rings, to find the gaps between them.

It need not be good enough for phase flipping: where the optics are unknown usual ones are assumed, and the defocus
found makes up for that. In s² Thon rings are nearly periodic, so a smooth background does not look like them.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.optimize import minimize

from n2n_deploy.imaging.ctf import CTFParameters, Optics, aberration_terms
from n2n_deploy.imaging.fourier import frequencies

_COARSEST, _FINEST = 30.0, 5.0
"""Å; where Thon rings are looked for."""

_SECTORS, _POINTS = 12, 512
"""Of the half-plane, by direction; and of each sector, in equal steps of s²."""

_BACKGROUND = 5
"""The background is a moving average over the spectrum's length divided by this, so as many rings must be seen."""

_LARGEST = 60000.0
_STEP = 80.0
"""Å of defocus."""

_ASTIGMATISM = np.arange(-1200.0, 1201.0, 160.0)
"""Å; half the difference of the two defocus values, along and at 45° to the axes."""

_SURE, _DISTINCT, _APART = 7.0, 1.5, 0.2
"""A defocus is found whose score is 7 times its standard deviation in noise, where chance gives 4, and 1.5 times that
of any other defocus, by a fifth or more: what is no Thon ring resembles several."""

Values = NDArray[np.float64]


def assumed(optics: Optics) -> Optics:
    """The optics with usual values in place of unknown ones."""
    return replace(
        optics,
        voltage=optics.voltage or 300.0,
        spherical_aberration=2.7 if optics.spherical_aberration is None else optics.spherical_aberration,
        amplitude_contrast=0.1 if optics.amplitude_contrast is None else optics.amplitude_contrast,
    )


def find_defocus(squared: NDArray[np.floating], shape: tuple[int, int], optics: Optics) -> CTFParameters | None:
    """Find the defocus whose CTF² the power spectrum resembles most.

    Args:
        squared: (ny, nx//2+1), |F|² of a micrograph.
        shape: (ny, nx) of the micrograph.
        optics: its optics; what is unknown is `assumed`.

    Returns:
        Defocus and astigmatism, or None where there are no rings, or fewer than five.
    """
    optics = assumed(optics)
    end = min(1 / _FINEST, 0.45 / optics.pixel_size) ** 2
    start = 1 / _COARSEST**2
    if end < 4 * start:
        return None
    sectors, chance = _modulation(squared, shape, optics.pixel_size, start, end)
    squares = start + (np.arange(_POINTS) + 0.5) * (end - start) / _POINTS
    terms = aberration_terms(optics, CTFParameters(1.0, 1.0))
    rest = terms.fourth * squares**2 + terms.constant

    def score(defocus: Values) -> Values:
        """Correlation of each sector with Thon rings: (sectors, …) defocus in Å → the same shape."""
        phase = 2 * np.pi * (terms.mean * defocus[..., None] * squares + rest)
        values = sectors.reshape(len(sectors), *[1] * (defocus.ndim - 1), _POINTS)
        return np.asarray(-(values * np.cos(phase)).sum(axis=-1))

    smallest = _BACKGROUND / (terms.mean * (end - start))
    grid = np.arange(smallest, _LARGEST, _STEP)
    table = score(np.broadcast_to(grid, (len(sectors), len(grid))))
    angles = 2 * np.pi * (np.arange(_SECTORS) + 0.5) / _SECTORS
    rows = np.arange(len(sectors))[:, None]
    best, highest = (-np.inf, 0.0, 0.0, 0.0), np.full(len(grid), -np.inf)
    for along in _ASTIGMATISM:
        for across in _ASTIGMATISM:
            shift = np.rint((along * np.cos(angles) + across * np.sin(angles)) / _STEP).astype(np.intp)
            columns = np.clip(np.arange(len(grid)) + shift[:, None], 0, len(grid) - 1)
            sums = table[rows, columns].sum(axis=0)
            highest = np.maximum(highest, sums)
            at = int(sums.argmax())
            best = max(best, (float(sums[at]), float(grid[at]), along, across))
    other = float(highest[np.abs(np.log(grid / best[1])) > _APART].max())

    if best[0] < max(_SURE * chance, _DISTINCT * other):
        return None

    def loss(p: Values) -> float:
        return -float(score(p[0] + p[1] * np.cos(angles) + p[2] * np.sin(angles)).sum())

    simplex = np.array(best[1:]) + np.vstack([np.zeros(3), 60 * np.eye(3)])
    mean, along, across = minimize(
        loss, best[1:], method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1, "fatol": 1e-9}
    ).x
    half = math.hypot(along, across)
    return CTFParameters(mean + half, mean - half, math.degrees(math.atan2(across, along)) / 2)


def _modulation(
    squared: NDArray[np.floating], shape: tuple[int, int], pixel_size: float, start: float, end: float
) -> tuple[Values, float]:
    """Power in each sector over its background, minus 1, times the number of components, which tells how sure it is.

    Returns:
        (sectors, points), in equal steps of s², and the standard deviation of a score from noise alone.
    """
    s = frequencies(shape, (pixel_size, pixel_size))
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    point = ((s.astype(np.float64) ** 2 - start) / (end - start) * _POINTS).astype(np.intp)
    inside = (s**2 > start) & (s**2 < end) & (np.abs(y) * shape[0] > 2.5) & (x * shape[1] > 2.5)
    sector = ((np.arctan2(y, x) % np.pi) / np.pi * _SECTORS).astype(np.intp) % _SECTORS
    index = (sector * _POINTS + np.clip(point, 0, _POINTS - 1))[inside]
    size = _SECTORS * _POINTS
    count = np.bincount(index, minlength=size).astype(np.float64)
    sums = np.bincount(index, squared[inside], minlength=size).reshape(_SECTORS, _POINTS)
    count = count.reshape(_SECTORS, _POINTS)
    width = _POINTS // _BACKGROUND
    background = uniform_filter1d(sums, width, mode="nearest") / np.maximum(uniform_filter1d(count, width), 1e-9)
    ratio = sums / np.maximum(background * count, 1e-30)
    return np.asarray(count * np.clip(ratio - 1, -1, 1)), math.sqrt(float(count.sum()) / 2)
