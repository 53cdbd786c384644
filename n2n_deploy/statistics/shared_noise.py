"""Noise that both halves share, such as detector artefacts, which estimates from halves mistake for signal.

Errors of the gain reference, hot pixels and the interpolation of dead pixels are the same in even and odd frames.
They can be measured where there is no signal: at the highest frequencies of the detector, and at the zeros of the CTF.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.arrays import rfft2
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies

FINEST_SIGNAL = 3.0
"""Å; beyond the ring of vitreous ice at 3.7 Å, a single micrograph has almost no signal."""

_COARSEST = 20.0
"""Å; at lower frequencies the signal varies too much within a band."""

_BANDS = 12
_INDEPENDENT = (128 / 35) * (3 / 8) ** 2
"""Fraction of Fourier components that are independent under a Hann window, along one axis: ⟨w²⟩² / ⟨w⁴⟩."""

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SharedNoise:
    """The fraction of the halves' power that both share where there is no signal.

    Attributes:
        fraction: of a half's power there, up to 1; it scatters about 0 if there is no shared noise.
        error: its standard error.
        where: the frequencies of the measurement, as text.
    """

    fraction: float
    error: float
    where: str


def beyond_signal(even: Image, odd: Image, pixel_size: float) -> SharedNoise | None:
    """Measure between 3 Å and nine tenths of Nyquist.

    Args:
        even: (h, w), a part of the even half as read.
        odd: (h, w), the same part of the odd half.
        pixel_size: Å.

    Returns:
        None if the pixels are too large to resolve 3 Å.
    """
    start, end = 1 / FINEST_SIGNAL, 0.9 * 0.5 / pixel_size
    if start > 0.9 * end:
        return None
    # Without a window the edges of the part would spread low-frequency signal over all frequencies.
    window = np.outer(np.hanning(even.shape[0]), np.hanning(even.shape[1])).astype(np.float32)
    halves = [(half - half.mean(dtype=np.float64)).astype(np.float32) * window for half in (even, odd)]
    s = frequencies((even.shape[0], even.shape[1]), (pixel_size, pixel_size))
    cross, powers = _products(halves[0], halves[1], (s > start) & (s < end))
    fraction, error = _fit(cross, np.zeros_like(cross), powers, np.zeros(cross.size, np.intp), 1)
    return SharedNoise(fraction, error / _INDEPENDENT, f"beyond {FINEST_SIGNAL:g} Å")


def at_ctf_zeros(
    even: Image, odd: Image, spacing: tuple[float, float], optics: Optics, parameters: CTFParameters
) -> SharedNoise | None:
    """Measure at the zeros of the CTF.

    In narrow bands of the upper half of the spectrum, n + s·CTF² is fitted to the cross-power of the halves. The
    signal is in s, whatever its spectrum; n is the shared noise.

    Args:
        even: (h, w), the even half, as read or as network input.
        odd: (h, w), the odd half in the same space.
        spacing: Å per pixel along (y, x).
        optics: of the micrograph.
        parameters: its CTF.

    Returns:
        None if the pixels are so large that the signal is strong at all frequencies.

    Raises:
        DataError: the optics lack what the CTF needs.
    """
    shape = (even.shape[0], even.shape[1])
    end = 0.9 * 0.5 / max(spacing)
    start = max(end / 2, 1 / _COARSEST)
    if start > 0.9 * end:
        return None
    s = frequencies(shape, spacing)
    inside = (s > start) & (s < end)
    cross, powers = _products(even, odd, inside)
    squared = ctf(shape, spacing, optics, parameters)[inside].astype(np.float64) ** 2
    band = ((s[inside].astype(np.float64) ** 2 - start**2) / (end**2 - start**2) * _BANDS).astype(np.intp)
    fraction, error = _fit(cross, squared, powers, band, _BANDS)
    return SharedNoise(fraction, error, f"at the CTF's zeros between {1 / start:.3g} and {1 / end:.3g} Å")


def _products(
    even: Image, odd: Image, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return the cross-power and both powers of the components inside."""
    first, second = (rfft2(half)[inside] for half in (even, odd))
    powers = [half.real.astype(np.float64) ** 2 + half.imag.astype(np.float64) ** 2 for half in (first, second)]
    return (first * second.conj()).real.astype(np.float64), powers


def _fit(
    cross: NDArray[np.float64],
    squared: NDArray[np.float64],
    powers: list[NDArray[np.float64]],
    band: NDArray[np.intp],
    bands: int,
) -> tuple[float, float]:
    """Return the sum of the intercepts over the bands and its standard error, as fractions of the halves' power."""

    def sums(values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return np.bincount(band, weights=values, minlength=bands).astype(np.float64)

    count, c, cc = sums(), sums(squared), sums(squared**2)
    x, cx = sums(cross), sums(squared * cross)
    determinant = count * cc - c * c
    # Without a CTF, or where it is constant within a band, the intercept is the mean cross-power.
    fitted = determinant > 1e-6 * count * count
    safe = np.where(fitted, determinant, 1.0)
    present = np.maximum(count, 1.0)
    intercept = np.where(fitted, (cc * x - c * cx) / safe, x / present)
    leverage = np.where(fitted, cc / safe, 1 / present)
    power = np.sqrt(sums(powers[0]) * sums(powers[1]))
    # The cross-power of independent complex noise has a variance of half the product of the powers.
    variance = sums(powers[0] * powers[1]) / present / 2 * leverage
    total = float(power.sum())
    if total <= 0:
        return 0.0, 1.0
    return float((count * intercept).sum()) / total, float(np.sqrt((count**2 * variance).sum())) / total
