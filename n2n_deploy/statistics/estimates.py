"""Signal, noise and bias of denoised images, estimated from even and odd halves without the truth (S3).

The model: noisy halves M_i = S + N_i and denoised halves D_i = S + R_i + B (eqs. 1 and 9), where D_i was computed
from M_i alone. The noise N_i and R_i of one half is independent of that of the other half; the bias B is common to
both, and may depend on the signal S. Every estimate follows from eight variances and covariances, over the pixels of
an image (eq. 14) or over the components of a Fourier ring (eq. 24).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of, rfft2, to_host
from n2n_deploy.imaging.rings import ring_frequencies, ring_sums

Values = Any
"""A float for an image, a (rings,) float64 NumPy array for Fourier rings."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """Signal, noise and bias, estimated from the halves.

    If there is little signal, the estimates scatter about zero, so a variance may be negative, and ratios are
    meaningless; division by zero gives inf or nan.

    Attributes:
        var_signal: var(S), eq. 15, in squared grey levels like all variances.
        var_noise_noisy: var(N) of a noisy half, eq. 16.
        var_noise_denoised: var(R) of a denoised half, eq. 17.
        var_bias: var(B), the covariance of the two halves' D − M. Not eq. 18: see `from_covariances`.
        snr_noisy: var(S) / var(N), eq. 19; over a ring it is the SSNR.
        snr_denoised: var(S) / var(R), eq. 20.
        sbr: var(S) / var(B), eq. 23.
        recovered_signal_fraction: 1 − E|D − S|² / var(S). 1 is the true signal, 0 is as good as a blank image,
            below 0 is worse. Unlike the SNR, it also counts the signal that was smoothed away as an error.
        frequency: 1/Å of each ring; None for an image.
    """

    var_signal: Values
    var_noise_noisy: Values
    var_noise_denoised: Values
    var_bias: Values
    snr_noisy: Values
    snr_denoised: Values
    sbr: Values
    recovered_signal_fraction: Values
    frequency: Values = None


QUANTITIES = tuple(each.name for each in fields(Estimates) if each.name != "frequency")
"""Names of the estimates, in order."""


@dataclass(frozen=True, slots=True)
class Covariances:
    """The variances and covariances of M1, M2, D1 and D2 that the estimates need.

    Attributes:
        m1m1: var(M1), and so on.
        frequency: 1/Å of each ring; None for an image.
    """

    m1m1: Values
    m2m2: Values
    d1d1: Values
    d2d2: Values
    m1m2: Values
    d1d2: Values
    d1m2: Values
    d2m1: Values
    frequency: Values = None

    @property
    def noisy_correlation(self) -> Values:
        """Correlation coefficient of the two noisy halves."""
        return self.m1m2 / np.sqrt(self.m1m1 * self.m2m2)


COVARIANCE_NAMES = tuple(each.name for each in fields(Covariances) if each.name != "frequency")
"""Names of the eight covariances, in order."""


def covariances(m1: Array, m2: Array, d1: Array, d2: Array) -> Covariances:
    """Covariances over the pixels of an image (eq. 14).

    Args:
        m1: (ny, nx), a noisy half.
        m2: the other noisy half.
        d1: m1 denoised.
        d2: m2 denoised. All four are in the same space: grid, filters, phase flips and grey scale.

    Raises:
        DataError: the shapes differ.
    """
    xp = device_of(m1).xp
    images = [image.astype(xp.float64) for image in _alike(m1, m2, d1, d2)]
    centred = [image - image.mean() for image in images]
    return Covariances(*(float((a * b).mean()) for a, b in _pairs(*centred)))


def ring_covariances(m1: Array, m2: Array, d1: Array, d2: Array, spacing: tuple[float, float]) -> Covariances:
    """Covariances over the components of each Fourier ring (eq. 24), scaled to sum to the image's covariance.

    The mean over a ring (eq. 24) is scaled by the ring's number of components over (number of pixels)², so that by
    Parseval the rings, and the corners beyond them, add up to the covariance over the pixels. Ratios are those of
    eq. 24. The mean of an image is removed: ring 0 is 0.

    Args:
        m1: (ny, nx), a noisy half.
        m2: the other noisy half.
        d1: m1 denoised.
        d2: m2 denoised. All four are in the same space.
        spacing: Å per pixel along (y, x).

    Raises:
        DataError: the shapes differ.
    """
    xp = device_of(m1).xp
    shape = (m1.shape[0], m1.shape[1])
    spectra = [rfft2((image - image.mean(dtype=xp.float64)).astype(xp.float32)) for image in _alike(m1, m2, d1, d2)]
    for spectrum in spectra:
        spectrum /= m1.size
        spectrum[0, 0] = 0
    products = (a * b.conj() for a, b in _pairs(*spectra))
    sums = [to_host(ring_sums(product, shape, spacing)) for product in products]
    return Covariances(*[*sums, ring_frequencies(shape, spacing)])


def mean_covariances(images: Sequence[Covariances]) -> Covariances:
    """Average the covariances of several images, or of their rings on one frequency axis.

    Ratios for a set are ratios of averages; averages of ratios would be dominated by the images with least signal.
    """
    means = [sum(getattr(image, name) for image in images) / len(images) for name in COVARIANCE_NAMES]
    return Covariances(*[*means, images[0].frequency])


def from_covariances(c: Covariances) -> Estimates:
    """Turn covariances into estimates.

    The paper's eq. 18 for var(B) does not follow from its model: cov(D1,D2) + [var(M1) var(M2)]^½ −
    2 cov(M1,M2) is var(B) + var(N), and 2 cov(S,B) more if the bias correlates with the signal. But
    D_i − M_i = B + R_i − N_i, in which only B is common to the halves, so var(B) = cov(D1 − M1, D2 − M2) =
    cov(D1,D2) + cov(M1,M2) − cov(D1,M2) − cov(D2,M1), whether or not B correlates with S.

    The recovered signal fraction comes from E|D1 − S|² = var(D1) − 2 cov(D1,S) + var(S), where cov(D1,S) =
    cov(D1,M2) because N2 is independent of D1; it is the mean over both halves.
    """
    noise_noisy = np.sqrt(c.m1m1 * c.m2m2) - c.m1m2
    noise_denoised = np.sqrt(c.d1d1 * c.d2d2) - c.d1d2
    bias = c.d1d2 + c.m1m2 - c.d1m2 - c.d2m1
    recovered = c.d1m2 + c.d2m1 - (c.d1d1 + c.d2d2) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [np.divide(c.m1m2, other) for other in (noise_noisy, noise_denoised, bias)]
        ratios.append(np.divide(recovered, c.m1m2))
    values = [c.m1m2, noise_noisy, noise_denoised, bias, *ratios]
    values = [float(value) if np.ndim(value) == 0 else value for value in values]
    return Estimates(*[*values, c.frequency])


def estimate(m1: Array, m2: Array, d1: Array, d2: Array) -> Estimates:
    """Estimate for a whole image; arguments and errors are those of `covariances`."""
    return from_covariances(covariances(m1, m2, d1, d2))


def per_ring(m1: Array, m2: Array, d1: Array, d2: Array, spacing: tuple[float, float]) -> Estimates:
    """Estimate for each Fourier ring; arguments, errors and scale are those of `ring_covariances`."""
    return from_covariances(ring_covariances(m1, m2, d1, d2, spacing))


def _pairs(m1: Array, m2: Array, d1: Array, d2: Array) -> tuple[tuple[Array, Array], ...]:
    """Pair the images in the order of `Covariances`."""
    return ((m1, m1), (m2, m2), (d1, d1), (d2, d2), (m1, m2), (d1, d2), (d1, m2), (d2, m1))


def _alike(*images: Array) -> tuple[Array, ...]:
    """Check that the images have the same shape."""
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        found = ", ".join("×".join(map(str, reversed(shape))) for shape in sorted(shapes))
        raise DataError(f"noisy and denoised halves have different shapes ({found}); expected images of one micrograph")
    return images
