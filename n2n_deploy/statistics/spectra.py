"""Power spectra of a micrograph, where its CTF is zero, and whether its Thon rings agree with its CTF."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from n2n_deploy.imaging.ctf import CTFParameters, Optics, aberration_terms
from n2n_deploy.imaging.rings import ring_frequencies, ring_means

_RINGS = 12
"""Thon rings looked at: those beyond are too weak, and too close, to tell one pixel size from another."""

_SAMPLES = 64
"""Points of a profile from one ring to the next; an average over so many has no ring left in it."""

_SCALES = np.arange(0.70, 1.4301, 0.005)


@dataclass(frozen=True, slots=True)
class ThonFit:
    """How well the modulation of a power spectrum follows the CTF.

    Attributes:
        given: correlation with the CTF as given, -1 to 1.
        best: correlation with it after frequencies were scaled by `scale`.
        scale: true over assumed frequency, so true pixel size is the assumed one divided by it.
    """

    given: float
    best: float
    scale: float


def power(spectrum: np.ndarray, shape: tuple[int, int], spacing: tuple[float, float]) -> np.ndarray:
    """Return the rotational average of |F|²/pixels of an image's `rfft2`: 1 for white noise of variance 1."""
    squared = spectrum.real**2 + spectrum.imag**2
    average: np.ndarray = ring_means(squared, shape, spacing) / (shape[0] * shape[1])
    return average


def frequencies(shape: tuple[int, int], spacing: tuple[float, float]) -> np.ndarray:
    """Return the frequency axis that goes with `power`, (rings,) 1/Å."""
    return ring_frequencies(shape, spacing)


def ctf_zeros(optics: Optics, ctf: CTFParameters, limit: float) -> tuple[float, ...]:
    """Return the frequencies up to `limit` (1/Å) where the CTF of the mean defocus is zero, rising.

    γ/π = fourth·s⁴ + mean·s² + constant is a whole number there; each gives a quadratic equation in s².

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


def fit_thon_rings(frequency: np.ndarray, spectrum: np.ndarray, optics: Optics, ctf: CTFParameters) -> ThonFit | None:
    """Compare the modulation of a micrograph's power with its CTF, and with the CTF at other scales.

    Pixel size and defocus cannot be told apart by this: a scale of f is also a defocus of 1/f² of that given.

    Args:
        frequency: (rings,) 1/Å.
        spectrum: (rings,) power.
        optics: with what the CTF needs.
        ctf: the micrograph's fit.

    Returns:
        the fit, or None where fewer than three rings fall within the spectrum, or astigmatism blurs them.

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
    # In s² the rings are nearly periodic, so a moving average over one of them is the background.
    squares = np.linspace(start, end, _SAMPLES * int(np.ceil((end - start) * abs(terms.mean))))
    profile = np.interp(np.sqrt(squares), frequency[1:], np.log(spectrum[1:]))
    scaled = squares * _SCALES[:, None] ** 2
    model = -np.cos(2 * np.pi * (terms.fourth * scaled**2 + terms.mean * scaled + terms.constant))
    correlations = _correlations(_without_background(model), _without_background(profile))
    best = int(np.argmax(correlations))
    given = int(np.argmin(np.abs(_SCALES - 1)))
    return ThonFit(float(correlations[given]), float(correlations[best]), float(_SCALES[best]))


def _without_background(profile: np.ndarray) -> np.ndarray:
    trend = uniform_filter1d(profile, _SAMPLES, mode="nearest")
    return np.asarray(profile - trend)[..., _SAMPLES // 2 : -_SAMPLES // 2]


def _correlations(models: np.ndarray, profile: np.ndarray) -> np.ndarray:
    models, profile = models - models.mean(axis=1, keepdims=True), profile - profile.mean()
    norms = np.sqrt((models**2).sum(axis=1) * (profile @ profile))
    return np.asarray(models @ profile / np.maximum(norms, 1e-30))
