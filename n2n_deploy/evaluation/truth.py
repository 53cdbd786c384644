"""The true error of a denoiser on simulated micrographs, by the same names as the estimates that it must agree with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import rfft2, to_host
from n2n_deploy.evaluation.halves import Halves
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.imaging.rings import ring_frequencies, ring_sums
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.estimates import Estimates

Image = NDArray[np.float32]
Values = Any
"""A float for an image, a (rings,) float64 NumPy array for Fourier rings."""


@dataclass(frozen=True, slots=True)
class TrueMoments:
    """What can be said of halves whose signal S is known.

    Attributes:
        signal: var(S).
        noise_noisy: mean of var(M_i − S).
        noise_denoised: var(D1 − D2) / 2, in which the bias cancels.
        bias: cov(D1 − S, D2 − S), in which the noise does.
        frequency: of each ring in 1/Å; None for an image.
    """

    signal: Values
    noise_noisy: Values
    noise_denoised: Values
    bias: Values
    frequency: Values = None


def read_truth(folder: Path, micrograph: Micrograph, halves: Halves, recipe: Recipe) -> tuple[Image, Image]:
    """Read the noiseless image of a simulated micrograph and bring it into the space of its two halves.

    It is phase-flipped, cropped and band-passed as they were. Its grey scale is brought to theirs by the means, since
    all of them count electrons: a half has half of those expected in the sum.

    Args:
        folder: with an image named as the micrograph is, or without its last "_" and what follows (`mic_1.mrc` of
            `mic_1_DW.mrc`).
        micrograph: whose truth is wanted.
        halves: of it.
        recipe: that the halves were prepared by.

    Returns:
        (h, w), the signal S in the even and in the odd half.

    Raises:
        DataError: there is no such image, it has another shape, or does not count electrons.
    """
    stem = micrograph.path.stem
    paths = [folder / f"{name}.mrc" for name in (stem, stem.rpartition("_")[0]) if name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"{micrograph.name}: no truth for it at {' or '.join(map(str, paths))}")
    pixels = read_mrc(path).data
    if not pixels.mean(dtype=np.float64) > pixels.std(dtype=np.float64):
        raise DataError(f"{path}: is no image of expected electrons; give the folder that n2n-deploy simulate wrote")
    truth = preprocess(pixels, micrograph.optics, micrograph.ctf, recipe)
    if truth.image.shape != halves.even.shape:
        raise DataError(f"{path}: has {pixels.shape[0]}×{pixels.shape[1]} pixels, another shape than the halves")
    scales = (mean / truth.mean * truth.std / std for mean, std in halves.grey_levels)
    even, odd = (to_host(truth.image) * np.float32(scale) for scale in scales)
    return even, odd


def true_moments(halves: Halves, truth: tuple[Image, Image]) -> TrueMoments:
    """Measure over the pixels of an image."""
    m1, m2, d1, d2 = (image.astype(np.float64) for image in halves.images)
    s1, s2 = (image.astype(np.float64) for image in truth)
    residual = (d1 - s1) - (d2 - s2)
    return TrueMoments(
        float(np.cov(s1.ravel(), s2.ravel())[0, 1]),
        float(((m1 - s1).var() + (m2 - s2).var()) / 2),
        float(residual.var() / 2),
        float(np.cov((d1 - s1).ravel(), (d2 - s2).ravel())[0, 1]),
    )


def true_ring_moments(halves: Halves, truth: tuple[Image, Image]) -> TrueMoments:
    """Measure over the components of each Fourier ring, on the scale of `ring_covariances`."""
    shape = (halves.even.shape[0], halves.even.shape[1])
    m1, m2, d1, d2 = halves.images
    s1, s2 = truth
    spectra = [_spectrum(image) for image in (s1, s2, m1 - s1, m2 - s2, (d1 - s1) - (d2 - s2), d1 - s1, d2 - s2)]

    def rings(a: int, b: int) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = ring_sums(spectra[a] * spectra[b].conj(), shape, halves.spacing)
        return sums

    return TrueMoments(
        rings(0, 1),
        (rings(2, 2) + rings(3, 3)) / 2,
        rings(4, 4) / 2,
        rings(5, 6),
        ring_frequencies(shape, halves.spacing),
    )


def mean_moments(images: Sequence[TrueMoments]) -> TrueMoments:
    """Average over the images of a set, as `mean_covariances` does."""
    names = ("signal", "noise_noisy", "noise_denoised", "bias")
    means = [sum(getattr(image, name) for image in images) / len(images) for name in names]
    return TrueMoments(*[*means, images[0].frequency])


def from_moments(m: TrueMoments) -> Estimates:
    """Give what the estimates should have found. The error E|D − S|² is the noise left plus the bias."""
    error = m.noise_denoised + m.bias
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [np.divide(m.signal, other) for other in (m.noise_noisy, m.noise_denoised, m.bias)]
        recovered = 1 - np.divide(error, m.signal)
    values = [m.signal, m.noise_noisy, m.noise_denoised, m.bias, *ratios, recovered]
    values = [float(value) if np.ndim(value) == 0 else value for value in values]
    return Estimates(*[*values, m.frequency])


def _spectrum(image: Image) -> NDArray[np.complex64]:
    spectrum: NDArray[np.complex64] = rfft2((image - image.mean(dtype=np.float64)).astype(np.float32)) / image.size
    spectrum[0, 0] = 0
    return spectrum
