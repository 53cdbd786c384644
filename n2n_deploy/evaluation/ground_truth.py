"""The true signal, noise and bias on simulated micrographs, which the estimates from halves must agree with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import rfft2, to_host
from n2n_deploy.evaluation.denoised_halves import DenoisedHalves
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
    """Moments of noisy and denoised halves about the known signal S.

    Attributes:
        signal: var(S).
        noise_noisy: mean of var(M_i − S).
        noise_denoised: var(D1 − D2) / 2; the bias cancels.
        bias: cov(D1 − S, D2 − S); the noise cancels.
        frequency: 1/Å of each ring; None for an image.
    """

    signal: Values
    noise_noisy: Values
    noise_denoised: Values
    bias: Values
    frequency: Values = None


def read_truth(folder: Path, micrograph: Micrograph, halves: DenoisedHalves, recipe: Recipe) -> tuple[Image, Image]:
    """Read the noiseless image of a simulated micrograph and transform it into the space of the two halves.

    It is phase-flipped, cropped and band-passed like the halves, and scaled by the ratio of the means: all images
    count electrons, and a half has half of the electrons expected in the sum.

    Args:
        folder: holds an image named like the micrograph, or like the micrograph up to its last "_" (`mic_1.mrc`
            for `mic_1_DW.mrc`).
        micrograph: the record.
        halves: its halves.
        recipe: the recipe that the halves were preprocessed with.

    Returns:
        (h, w), the signal S in the even and in the odd half.

    Raises:
        DataError: there is no such image, its shape differs, or it does not count electrons.
    """
    stem = micrograph.path.stem
    paths = [folder / f"{name}.mrc" for name in (stem, stem.rpartition("_")[0]) if name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"{micrograph.name}: no noiseless image found at {' or '.join(map(str, paths))}")
    pixels = read_mrc(path).data
    if not pixels.mean(dtype=np.float64) > pixels.std(dtype=np.float64):
        raise DataError(
            f"{path}: not an image of electron counts; expected one that n2n-deploy simulate wrote to truth/"
        )
    truth = preprocess(pixels, micrograph.optics, micrograph.ctf, recipe)
    if truth.image.shape != halves.even.shape:
        raise DataError(f"{path}: has {pixels.shape[1]}×{pixels.shape[0]} pixels; expected the shape of the halves")
    scales = (mean / truth.mean * truth.std / std for mean, std in halves.grey_levels)
    even, odd = (to_host(truth.image) * np.float32(scale) for scale in scales)
    return even, odd


def true_moments(halves: DenoisedHalves, truth: tuple[Image, Image]) -> TrueMoments:
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


def true_ring_moments(halves: DenoisedHalves, truth: tuple[Image, Image]) -> TrueMoments:
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
    """Average over the images of a set, like `mean_covariances`."""
    names = ("signal", "noise_noisy", "noise_denoised", "bias")
    means = [sum(getattr(image, name) for image in images) / len(images) for name in names]
    return TrueMoments(*[*means, images[0].frequency])


def from_moments(m: TrueMoments) -> Estimates:
    """Turn moments into the true values of the estimates. The error E|D − S|² is the remaining noise plus the bias."""
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
