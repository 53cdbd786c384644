"""Everything the report shows of one micrograph, made in one pass over the network's input and output."""

import numpy as np

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.arrays import rfft2, standard_deviation
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.report.entries import Curves, Views
from n2n_deploy.report.flags import image_flags
from n2n_deploy.report.thumbnails import pictures
from n2n_deploy.statistics.spectra import ctf_zeros, fit_thon_rings, frequencies, power

_POINTS = 160
"""Of a curve, as many as a screen can show."""


def view(
    noisy: np.ndarray,
    denoised: np.ndarray,
    spacing: tuple[float, float],
    optics: Optics,
    ctf: CTFParameters | None,
    limit: int = 100_000,
) -> Views:
    """Draw and measure one micrograph.

    Args:
        noisy: (h, w) float32, the network's input: band-passed, mean 0, standard deviation 1.
        denoised: (h, w) float32, the network's output for it.
        spacing: Å per pixel of these two along (y, x).
        optics: of the micrograph.
        ctf: its CTF; None where unknown.
        limit: bytes that the pictures may take; see `picture_limit`.
    """
    shape = (noisy.shape[0], noisy.shape[1])
    spectra = rfft2(noisy), rfft2(denoised)
    frequency = frequencies(shape, spacing)
    before, after = (power(spectrum, shape, spacing) for spectrum in spectra)
    power_kept = standard_deviation(denoised) ** 2 / max(standard_deviation(noisy) ** 2, 1e-12)
    zeros: tuple[float, ...] = ()
    thon = None
    if ctf is not None:
        try:
            zeros = ctf_zeros(optics, ctf, float(frequency[-1]))
            thon = fit_thon_rings(frequency, before, optics, ctf)
        except DataError:
            # Without voltage or Cs there are no zeros to show; the spectra stand without them.
            zeros, thon = (), None
    return Views(
        pictures(noisy, denoised, spectra, limit),
        Curves(_thinned(frequency), _thinned(before), _thinned(after), zeros),
        power_kept,
        image_flags(noisy, frequency, before, power_kept, thon),
    )


def _thinned(curve: np.ndarray) -> np.ndarray:
    """Average neighbours down to the points of a screen, the zero frequency left out."""
    bins = np.array_split(curve[1:], min(_POINTS, len(curve) - 1))
    return np.array([part.mean() for part in bins])
