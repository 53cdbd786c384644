"""Estimates from even and odd halves in a micrograph's entry: SNR, SBR, recovered signal fraction, SSNR, flags."""

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.records import Micrograph
from n2n_deploy.report.entries import Curves, MicrographEntry
from n2n_deploy.report.flags import NO_SIGNAL, identical_halves_flag, no_signal_flag, shared_noise_flag
from n2n_deploy.statistics.estimates import Covariances, covariances, from_covariances, ring_covariances
from n2n_deploy.statistics.frequency_bins import binned_estimates
from n2n_deploy.statistics.shared_noise import at_ctf_zeros

CURVE_POINTS = 60
"""Points of a curve over frequency; single rings scatter too much to read."""

Image = NDArray[np.float32]


def with_halves(
    entry: MicrographEntry,
    halves: tuple[Image, Image, Image, Image],
    spacing: tuple[float, float],
    micrograph: Micrograph,
) -> MicrographEntry:
    """Measure the halves of a micrograph as `evaluate` does and add the estimates to its entry.

    Identical halves are flagged, and nothing is estimated from them.

    Args:
        entry: the micrograph's entry.
        halves: network input of the even and the odd half, and both denoised, (h, w) each.
        spacing: Å per pixel along (y, x).
        micrograph: with its optics and CTF.
    """
    even, odd, *_ = halves
    image = covariances(*halves)
    if flag := identical_halves_flag(image):
        return replace(entry, flags=(*entry.flags, flag))
    flags = [no_signal_flag(image, even.size)]
    with suppress(DataError):  # without voltage or Cs the zeros of the CTF are unknown
        noise = micrograph.ctf and at_ctf_zeros(even, odd, spacing, micrograph.optics, micrograph.ctf)
        flags.append(shared_noise_flag(noise) if noise else None)
    entry = replace(entry, flags=(*entry.flags, *(flag for flag in flags if flag)))
    return with_estimates(entry, image, ring_covariances(*halves, spacing))


def with_estimates(entry: MicrographEntry, image: Covariances, rings: Covariances) -> MicrographEntry:
    """Add estimates to an entry: SNR, SBR and recovered signal fraction, and the SSNR by frequency.

    Args:
        entry: the micrograph's entry. If it is flagged as without signal, ratios to the signal are left out.
        image: covariances of the halves over the pixels.
        rings: covariances of the halves over the Fourier rings.
    """
    found, curves = from_covariances(image), binned_estimates(rings, CURVE_POINTS)
    snr, fraction = (found.snr_noisy, found.snr_denoised), found.recovered_signal_fraction
    # With almost no signal the ratios are arbitrary, and sorting would put them first or last.
    known = NO_SIGNAL not in (flag.kind for flag in entry.flags)
    zeros = entry.views.spectra.zeros if entry.views else ()
    return replace(
        entry,
        snr=snr if known and all(map(math.isfinite, snr)) else None,
        sbr=found.sbr if known and math.isfinite(found.sbr) else None,
        recovered=fraction if known and math.isfinite(fraction) else None,
        ssnr=Curves(curves.frequency, curves.snr_noisy, curves.snr_denoised, zeros),
    )
