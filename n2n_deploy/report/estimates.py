"""What even and odd halves add to a micrograph's entry: SNR, SBR, recovered signal fraction, SSNR and flags."""

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.records import Micrograph
from n2n_deploy.report.entries import Curves, MicrographEntry
from n2n_deploy.report.flags import NO_SIGNAL, common_noise, identical_halves, no_signal
from n2n_deploy.statistics.estimates import Covariances, covariances, from_covariances, ring_covariances
from n2n_deploy.statistics.frequency_bins import binned_estimates
from n2n_deploy.statistics.shared_noise import at_ctf_zeros

CURVE_POINTS = 60
"""Points of a curve over frequency; single rings scatter too much to be looked at."""

Image = NDArray[np.float32]


def with_halves(
    entry: MicrographEntry,
    halves: tuple[Image, Image, Image, Image],
    spacing: tuple[float, float],
    micrograph: Micrograph,
) -> MicrographEntry:
    """Measure the halves of a micrograph and add what they say, as `evaluate` measures it.

    Identical halves are flagged, and nothing is estimated from them.

    Args:
        entry: of the micrograph.
        halves: the even and odd half as the network saw them, and both denoised, (h, w) each.
        spacing: Å per pixel along (y, x).
        micrograph: with its optics and CTF.
    """
    even, odd, *_ = halves
    image = covariances(*halves)
    if flag := identical_halves(image):
        return replace(entry, flags=(*entry.flags, flag))
    found = [no_signal(image, even.size)]
    with suppress(DataError):  # the optics lack what a CTF needs, so there are no zeros to look at
        look = micrograph.ctf and at_ctf_zeros(even, odd, spacing, micrograph.optics, micrograph.ctf)
        found.append(common_noise(look) if look else None)
    entry = replace(entry, flags=(*entry.flags, *(flag for flag in found if flag)))
    return with_estimates(entry, image, ring_covariances(*halves, spacing))


def with_estimates(entry: MicrographEntry, image: Covariances, rings: Covariances) -> MicrographEntry:
    """Add to an entry what its halves say: SNR, SBR and recovered signal fraction, and SSNR by frequency.

    Args:
        entry: of the micrograph; flagged for having no signal, it gets no ratios to it.
        image: covariances of its halves over the pixels.
        rings: the same over the Fourier rings.
    """
    found, curves = from_covariances(image), binned_estimates(rings, CURVE_POINTS)
    snr, fraction = (found.snr_noisy, found.snr_denoised), found.recovered_signal_fraction
    # Where there is next to no signal, a fraction of it may be anything, and would be sorted as the best or the worst.
    known = NO_SIGNAL not in (flag.kind for flag in entry.flags)
    zeros = entry.views.spectra.zeros if entry.views else ()
    return replace(
        entry,
        snr=snr if known and all(map(math.isfinite, snr)) else None,
        sbr=found.sbr if known and math.isfinite(found.sbr) else None,
        recovered=fraction if known and math.isfinite(fraction) else None,
        ssnr=Curves(curves.frequency, curves.snr_noisy, curves.snr_denoised, zeros),
    )
