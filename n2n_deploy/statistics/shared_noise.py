"""Noise that both halves share, which no estimate from halves can tell from signal: detector artefacts.

A gain reference's errors, hot pixels and the interpolation of dead ones are in the even frames and in the odd ones
alike. Two things give them away: they go on where no signal is left, at the detector's finest frequencies, and they
do not mind the zeros of the CTF, which let no signal through.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.arrays import rfft2
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies

FINEST_SIGNAL = 3.0
"""Å; beyond the ring of vitreous ice at 3.7 Å, one micrograph has next to no signal."""

_COARSEST = 20.0
_BANDS = 12
_WINDOW = (128 / 35) * (3 / 8) ** 2
"""Independent components under a Hann window over all of them, for each axis: ⟨w²⟩² / ⟨w⁴⟩."""

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CommonNoise:
    """How much of the halves' power is the same in both where there is no signal.

    Attributes:
        share: of a half's power there, 0 to 1; it scatters about 0 where there is no such noise.
        error: its standard error.
        where: what was looked at, for people.
    """

    share: float
    error: float
    where: str


def beyond_signal(even: Image, odd: Image, pixel_size: float) -> CommonNoise | None:
    """Look beyond 3 Å, up to nine tenths of Nyquist.

    Args:
        even: (h, w), a part of the raw half.
        odd: the same part of the other half.
        pixel_size: Å.

    Returns:
        None where pixels are too large to reach there.
    """
    start, end = 1 / FINEST_SIGNAL, 0.9 * 0.5 / pixel_size
    if start > 0.9 * end:
        return None
    # Without a window the part's edges would spread the signal of low frequencies over all others.
    window = np.outer(np.hanning(even.shape[0]), np.hanning(even.shape[1])).astype(np.float32)
    halves = [(half - half.mean(dtype=np.float64)).astype(np.float32) * window for half in (even, odd)]
    s = frequencies((even.shape[0], even.shape[1]), (pixel_size, pixel_size))
    cross, powers = _products(halves[0], halves[1], (s > start) & (s < end))
    share, error = _fit(cross, np.zeros_like(cross), powers, np.zeros(cross.size, np.intp), 1)
    return CommonNoise(share, error / _WINDOW, f"beyond {FINEST_SIGNAL:g} Å")


def at_ctf_zeros(
    even: Image, odd: Image, spacing: tuple[float, float], optics: Optics, parameters: CTFParameters
) -> CommonNoise | None:
    """Look where the CTF is zero.

    In narrow bands of the finer half of the spectrum the halves' cross-power is fitted by n + s·CTF². Signal is
    in s, whatever its spectrum; n is noise common to both.

    Args:
        even: (h, w), a half, raw or as the network sees it.
        odd: (h, w), the other half in the same space.
        spacing: Å per pixel along (y, x).
        optics: of the micrograph.
        parameters: its CTF.

    Returns:
        None where pixels are so large that signal is strong everywhere.

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
    share, error = _fit(cross, squared, powers, band, _BANDS)
    return CommonNoise(share, error, f"at the CTF's zeros between {1 / start:.3g} and {1 / end:.3g} Å")


def _products(
    even: Image, odd: Image, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return cross-power and powers of the components looked at."""
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
    """Return the intercepts' sum over the bands, and its standard error, as shares of the halves' power."""

    def sums(values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return np.bincount(band, weights=values, minlength=bands).astype(np.float64)

    count, c, cc = sums(), sums(squared), sums(squared**2)
    x, cx = sums(cross), sums(squared * cross)
    determinant = count * cc - c * c
    # A CTF that does not vary within a band, or none at all, leaves the mean of the cross-power.
    fitted = determinant > 1e-6 * count * count
    safe = np.where(fitted, determinant, 1.0)
    present = np.maximum(count, 1.0)
    intercept = np.where(fitted, (cc * x - c * cx) / safe, x / present)
    leverage = np.where(fitted, cc / safe, 1 / present)
    power = np.sqrt(sums(powers[0]) * sums(powers[1]))
    # The cross-power of independent complex noise scatters by the product of the powers over two.
    variance = sums(powers[0] * powers[1]) / present / 2 * leverage
    total = float(power.sum())
    if total <= 0:
        return 0.0, 1.0
    return float((count * intercept).sum()) / total, float(np.sqrt((count**2 * variance).sum())) / total
