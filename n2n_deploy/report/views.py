"""Pictures, power spectra and flags of one micrograph, from the network's input and output."""

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.arrays import rfft2, standard_deviation
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.rings import ring_frequencies
from n2n_deploy.report.entries import Curves, Views
from n2n_deploy.report.flags import image_flags
from n2n_deploy.report.thumbnails import pictures
from n2n_deploy.statistics.spectra import ctf_zeros, fit_thon_rings, power

_POINTS = 160
"""Points of a curve, as many as a screen can show."""


def view(
    noisy: NDArray[np.float32],
    denoised: NDArray[np.float32],
    spacing: tuple[float, float],
    optics: Optics,
    ctf: CTFParameters | None,
    limit: int = 100_000,
) -> Views:
    """Draw and measure one micrograph.

    Args:
        noisy: (h, w) float32, the network's input: band-passed, mean 0, standard deviation 1.
        denoised: (h, w) float32, the network's output for it.
        spacing: Å per pixel of both along (y, x).
        optics: of the micrograph.
        ctf: its CTF; None if unknown.
        limit: bytes for the pictures; see `picture_limit`.
    """
    shape = (noisy.shape[0], noisy.shape[1])
    spectra = rfft2(noisy), rfft2(denoised)
    frequency = ring_frequencies(shape, spacing)
    before, after = (power(spectrum, shape, spacing) for spectrum in spectra)
    power_kept = standard_deviation(denoised) ** 2 / max(standard_deviation(noisy) ** 2, 1e-12)
    zeros: tuple[float, ...] = ()
    thon = None
    if ctf is not None:
        try:
            zeros = ctf_zeros(optics, ctf, float(frequency[-1]))
            thon = fit_thon_rings(frequency, before, optics, ctf)
        except DataError:
            # Without voltage or Cs the spectra are shown without zeros of the CTF.
            zeros, thon = (), None
    return Views(
        pictures(noisy, denoised, spectra, limit),
        Curves(_thinned(frequency), _thinned(before), _thinned(after), zeros),
        power_kept,
        image_flags(noisy, frequency, before, power_kept, thon),
    )


def _thinned(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average neighbouring rings, without the zero frequency."""
    bins = np.array_split(curve[1:], min(_POINTS, len(curve) - 1))
    return np.array([part.mean() for part in bins])
