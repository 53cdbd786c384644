"""The power spectrum of a micrograph, the zeros of its CTF, and how well its Thon rings match the CTF."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from n2n_deploy.imaging.ctf import CTFParameters, Optics, aberration_terms
from n2n_deploy.imaging.rings import ring_means

Curve = NDArray[np.float64]

_RINGS = 12
"""Thon rings that are fitted: those beyond are too weak and too close together to tell pixel sizes apart."""

_SAMPLES = 64
"""Points of the profile from one ring to the next; a moving average over as many removes the rings."""

_SCALES = np.arange(0.70, 1.4301, 0.005)


@dataclass(frozen=True, slots=True)
class ThonFit:
    """How well the modulation of a power spectrum matches the CTF.

    Attributes:
        given: correlation with the CTF as given, -1 to 1.
        best: correlation with the CTF after scaling the frequencies by `scale`.
        scale: true frequency over assumed frequency; the true pixel size is the assumed one divided by it.
    """

    given: float
    best: float
    scale: float


def power(spectrum: NDArray[np.complex64], shape: tuple[int, int], spacing: tuple[float, float]) -> Curve:
    """Return the rotational average of |F|²/pixels of an image's `rfft2`: 1 for white noise of variance 1."""
    squared = spectrum.real**2 + spectrum.imag**2
    average: Curve = ring_means(squared, shape, spacing) / (shape[0] * shape[1])
    return average


def ctf_zeros(optics: Optics, ctf: CTFParameters, limit: float) -> tuple[float, ...]:
    """Return the frequencies up to `limit` (1/Å) where the CTF at the mean defocus is zero, in rising order.

    γ/π = fourth·s⁴ + mean·s² + constant is an integer there, and each integer gives a quadratic equation in s².

    Raises:
        DataError: the optics lack what the CTF needs.
    """
    terms = aberration_terms(optics, ctf)
    squares = np.linspace(0, limit**2, 4096)
    phases = terms.fourth * squares**2 + terms.mean * squares + terms.constant
    zeros = []
    for whole in range(int(np.floor(phases.min())), int(np.ceil(phases.max())) + 1):
        roots = np.roots([terms.fourth, terms.mean, terms.constant - whole])
        zeros += [float(np.sqrt(x.real)) for x in roots if abs(x.imag) < 1e-12 and 0 < x.real <= limit**2]
    return tuple(sorted(zeros))


def fit_thon_rings(frequency: Curve, spectrum: Curve, optics: Optics, ctf: CTFParameters) -> ThonFit | None:
    """Correlate the modulation of a micrograph's power spectrum with its CTF, and with the CTF at other scales.

    An error of the pixel size cannot be told from an error of the defocus.

    Args:
        frequency: (rings,) 1/Å.
        spectrum: (rings,) power.
        optics: voltage, spherical aberration and amplitude contrast must be known.
        ctf: the micrograph's CTF parameters.

    Returns:
        The fit; None if fewer than three rings lie within the spectrum, or astigmatism blurs them.

    Raises:
        DataError: the optics lack what the CTF needs.
    """
    terms = aberration_terms(optics, ctf)
    if not terms.mean:
        return None
    astigmatism = abs(terms.difference / terms.mean)
    rings = min(_RINGS, 0.25 / astigmatism if astigmatism else _RINGS)
    start = 1.0 / abs(terms.mean)
    end = min(rings * start, float(frequency[-1]) ** 2)
    if (end - start) * abs(terms.mean) < 3 or not np.all(spectrum[1:] > 0):
        return None
    # In s² the rings are nearly periodic, so a moving average over one period is the background.
    squares = np.linspace(start, end, _SAMPLES * int(np.ceil((end - start) * abs(terms.mean))))
    profile = np.interp(np.sqrt(squares), frequency[1:], np.log(spectrum[1:]))
    scaled = squares * _SCALES[:, None] ** 2
    model = -np.cos(2 * np.pi * (terms.fourth * scaled**2 + terms.mean * scaled + terms.constant))
    correlations = _correlations(_without_background(model), _without_background(profile))
    best = int(np.argmax(correlations))
    given = int(np.argmin(np.abs(_SCALES - 1)))
    return ThonFit(float(correlations[given]), float(correlations[best]), float(_SCALES[best]))


def _without_background(profile: Curve) -> Curve:
    trend = uniform_filter1d(profile, _SAMPLES, mode="nearest")
    return np.asarray(profile - trend)[..., _SAMPLES // 2 : -_SAMPLES // 2]


def _correlations(models: Curve, profile: Curve) -> Curve:
    models, profile = models - models.mean(axis=1, keepdims=True), profile - profile.mean()
    norms = np.sqrt((models**2).sum(axis=1) * (profile @ profile))
    return np.asarray(models @ profile / np.maximum(norms, 1e-30))
