"""Fourier shell (3-D) or ring (2-D) correlation of two maps, and the resolution at a threshold.

Saxton & Baumeister 1982; the thresholds, 0.143 for two half maps and 0.5 for a map against a model, are from
Rosenthal & Henderson 2003. Figure S2 (A, B, E, F) of the paper's supplement shows these curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.processor import usable_cores
from n2n_deploy.imaging.rings import ring_frequencies, ring_index, ring_means, ring_sums

HALF_MAPS, MODEL = 0.143, 0.5
"""Thresholds on the correlation: between two half maps, and between a map and a model."""

Map = NDArray[np.floating]
Spectrum = NDArray[np.complexfloating]
Curve = NDArray[np.float64]

_MASK_ROUNDING = 1e-6

_RANDOMISE_BELOW = 0.8
"""Phases are randomised from the first shell on where the unmasked curve is below this, as in RELION."""


@dataclass(frozen=True, slots=True)
class ShellCorrelation:
    """Correlation and amplitudes of two maps, shell by shell.

    Attributes:
        frequency: (shells,) 1/Å, from 0 to Nyquist.
        correlation: (shells,) correlation of the maps, multiplied by the mask if there is one.
        amplitude_a: (shells,) rotational average of the first map's Fourier amplitudes, |F|/voxels, multiplied by
            the mask if there is one.
        amplitude_b: (shells,) likewise of the second map.
        unmasked: (shells,) correlation without the mask; None without a mask.
        randomised: (shells,) correlation with the mask after randomising the phases beyond `randomised_from`, which
            the mask alone causes; None without a mask.
        corrected: (shells,) `correlation` corrected for the effect of the mask; None without a mask.
        randomised_from: 1/Å; None without a mask, or if no shell was randomised.
    """

    frequency: Curve
    correlation: Curve
    amplitude_a: Curve
    amplitude_b: Curve
    unmasked: Curve | None = None
    randomised: Curve | None = None
    corrected: Curve | None = None
    randomised_from: float | None = None

    @property
    def best(self) -> Curve:
        """The curve that the resolution is read from: corrected for the mask if there is one."""
        return self.correlation if self.corrected is None else self.corrected

    def resolution(self, threshold: float) -> float | None:
        """Return the resolution (Å) where the best curve first falls below a threshold; None if it never does."""
        frequency = crossing(self.frequency, self.best, threshold)
        return None if frequency is None else 1 / frequency


def shell_correlation(
    a: Map,
    b: Map,
    pixel_size: float,
    mask: Map | None = None,
    seed: int = 0,
    names: Sequence[str] = ("the first map", "the second map", "the mask"),
) -> ShellCorrelation:
    """Correlate two maps of the same box, shell by shell.

    FSC(k) = Σ F_a conj(F_b) / √(Σ|F_a|² Σ|F_b|²) over shell k, the components whose frequency rounds to k/extent,
    where extent is the length of the shortest side. On a cubic box this equals RELION's curve to rounding: as in
    RELION, the sums run over the stored half of the transform.

    If there is a mask, both maps are multiplied by it. The correlation that the mask alone causes, FSC_r, is
    measured by randomising the phases (Chen et al. 2013) and corrected for: (FSC - FSC_r)/(1 - FSC_r).

    Args:
        a: (ny, nx) or (nz, ny, nx), any sizes.
        b: of the same shape.
        pixel_size: Å per pixel, the same along all axes.
        mask: of the same shape, values 0 to 1; None for no mask.
        seed: of the randomised phases.
        names: of the maps and the mask, for messages.

    Raises:
        DataError: the shapes differ or have a side of 1, a value is not finite, a map is constant (under the mask),
            the mask is empty, or a value of the mask is outside 0 to 1.
    """
    _check(a, b, mask, names)
    shape, spacing = a.shape, (pixel_size,) * a.ndim
    fa, fb = _transform(a), _transform(b)
    plain = _correlate(fa, fb, shape)
    frequency = ring_frequencies(shape, spacing)
    if mask is None:
        return ShellCorrelation(frequency, plain, _amplitude(fa, shape), _amplitude(fb, shape))
    below = np.flatnonzero(plain[1:] < _RANDOMISE_BELOW) + 1
    start = int(below[0]) if len(below) else len(plain)
    generator = np.random.default_rng(seed)
    random_a, random_b = (_transform(_randomise(f, shape, start, generator) * mask) for f in (fa, fb))
    fa, fb = _transform(a * mask), _transform(b * mask)
    correlation, randomised = _correlate(fa, fb, shape), _correlate(random_a, random_b, shape)
    corrected = correlation.copy()
    # The mask blurs phases that were kept into the first two randomised shells, which RELION skips too.
    beyond = slice(start + 2, None)
    corrected[beyond] = (correlation[beyond] - randomised[beyond]) / np.maximum(1 - randomised[beyond], 1e-6)
    return ShellCorrelation(
        frequency,
        correlation,
        _amplitude(fa, shape),
        _amplitude(fb, shape),
        unmasked=plain,
        randomised=randomised,
        corrected=corrected,
        randomised_from=float(frequency[start]) if start < len(frequency) else None,
    )


def crossing(frequency: Curve, curve: Curve, threshold: float) -> float | None:
    """Return the frequency where a curve first falls below a threshold, interpolated linearly.

    The zero frequency is ignored. A curve that starts below the threshold crosses it at its first frequency.

    Args:
        frequency: (shells,) 1/Å, rising from 0.
        curve: (shells,) values.
        threshold: the value that the curve falls below.

    Returns:
        The frequency in 1/Å; None if the curve never falls below the threshold.
    """
    below = np.flatnonzero(curve[1:] < threshold) + 1
    if not len(below):
        return None
    shell = int(below[0])
    if shell == 1:
        return float(frequency[1])
    before, after = float(curve[shell - 1]), float(curve[shell])
    part = (before - threshold) / (before - after)
    return float(frequency[shell - 1] + part * (frequency[shell] - frequency[shell - 1]))


def _check(a: Map, b: Map, mask: Map | None, names: Sequence[str]) -> None:
    """Check that the maps can be correlated."""
    if min(a.shape) < 2:
        raise DataError(f"{names[0]}: its box is {_box(a)}; expected at least 2 pixels along each side")
    given = [(name, array) for name, array in zip(names, (a, b, mask), strict=False) if array is not None]
    for name, array in given:
        if array.shape != a.shape:
            raise DataError(
                f"{name}: its box is {_box(array)} and that of {names[0]} is {_box(a)}; expected equal boxes; "
                "crop, pad or rescale one map"
            )
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise DataError(f"{name}: contains NaN or infinite values; expected finite numbers")
    if mask is not None:
        low, high = float(mask.min()), float(mask.max())
        if low < -_MASK_ROUNDING or high > 1 + _MASK_ROUNDING:
            raise DataError(f"{names[2]}: mask values range from {low:g} to {high:g}; expected 0 to 1")
        if high <= 0:
            raise DataError(f"{names[2]}: the mask is empty; expected some values above 0")
    for name, array in given[:2]:
        seen = array if mask is None else array[mask > 0]
        if seen.min() == seen.max():
            where = "everywhere" if mask is None else "under the mask"
            raise DataError(f"{name}: is constant ({seen.flat[0]:g} {where}); expected a map with signal")


def _box(array: Map) -> str:
    return "x".join(str(n) for n in reversed(array.shape))


def _transform(array: Map) -> Spectrum:
    spectrum: Spectrum = scipy.fft.rfftn(array.astype(np.float32, copy=False), workers=usable_cores())
    return spectrum


def _correlate(a: Spectrum, b: Spectrum, shape: tuple[int, ...]) -> Curve:
    cross = ring_sums(a * np.conj(b), shape, stored_half=True)
    power = ring_sums(_power(a), shape, stored_half=True) * ring_sums(_power(b), shape, stored_half=True)
    curve: Curve = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
    return curve


def _power(spectrum: Spectrum) -> Map:
    power: Map = spectrum.real**2 + spectrum.imag**2
    return power


def _amplitude(spectrum: Spectrum, shape: tuple[int, ...]) -> Curve:
    average: Curve = ring_means(np.abs(spectrum), shape) / np.prod(shape)
    return average


def _randomise(spectrum: Spectrum, shape: tuple[int, ...], start: int, generator: np.random.Generator) -> Map:
    """Return the map with the phases of shells from `start` on replaced by random ones, amplitudes kept."""
    phases = generator.uniform(0, 2 * np.pi, spectrum.shape).astype(np.float32)
    randomised = np.where(ring_index(shape) < start, spectrum, np.abs(spectrum) * np.exp(1j * phases))
    image: Map = scipy.fft.irfftn(randomised.astype(np.complex64), s=shape, workers=usable_cores())
    return image
