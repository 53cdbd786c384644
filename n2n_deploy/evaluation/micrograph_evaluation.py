"""One micrograph: both halves denoised, and the covariances from which signal, noise and bias are estimated (S3)."""

import time
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.evaluation.denoised_halves import DenoisedHalves, denoise_halves
from n2n_deploy.evaluation.ground_truth import TrueMoments, read_truth, true_moments, true_ring_moments
from n2n_deploy.io.records import Micrograph
from n2n_deploy.report.entries import Flag
from n2n_deploy.report.flags import no_signal_flag, noise_model_flag, shared_noise_flag
from n2n_deploy.statistics.estimates import Covariances, covariances, ring_covariances
from n2n_deploy.statistics.shared_noise import SharedNoise, at_ctf_zeros, beyond_signal


@dataclass(frozen=True, slots=True, eq=False)
class MicrographEvaluation:
    """Measurements on one micrograph; variances are fractions of a noisy half's variance within the recipe's band.

    Attributes:
        micrograph: its record.
        image: covariances over the pixels.
        rings: covariances over the Fourier rings.
        truth: true moments over the pixels, if the ground truth is known.
        true_rings: true moments over the Fourier rings, if the ground truth is known.
        shared_noise: noise that both halves share, one measurement for each method that applies.
        grey_levels: standard deviation of the even and the odd half, in grey levels of the input.
        flags: what looks wrong with the halves.
        notes: what was repaired.
        seconds: wall time.
        recorrupted: the halves were made of the full exposure.
    """

    micrograph: Micrograph
    image: Covariances
    rings: Covariances
    truth: TrueMoments | None
    true_rings: TrueMoments | None
    shared_noise: tuple[SharedNoise, ...]
    grey_levels: tuple[float, float]
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    seconds: float
    recorrupted: bool = False

    def has(self, kind: str) -> bool:
        """Whether there is a flag of this kind."""
        return kind in (flag.kind for flag in self.flags)


def evaluate_micrograph(
    micrograph: Micrograph, denoiser: Denoiser, truth: Path | None = None, *, recorrupted: bool = False
) -> tuple[MicrographEvaluation, DenoisedHalves]:
    """Denoise both halves of one micrograph and measure.

    Args:
        micrograph: with `even` and `odd`, unless `recorrupted`.
        denoiser: the model. Its merging and low-pass have no effect, because the network's output is measured.
        truth: folder of noiseless images, for simulated micrographs; see `read_truth`.
        recorrupted: make the halves of the full exposure.

    Raises:
        DataError: the halves or the truth cannot be used.
        HostError: there is not enough memory.
    """
    start = time.perf_counter()
    halves = denoise_halves(micrograph, denoiser, recorrupted=recorrupted)
    image = covariances(*halves.images)
    measured = [beyond_signal(*halves.raw, micrograph.optics.pixel_size)]
    if micrograph.ctf is not None and denoiser.recipe.phase_flip:
        measured.append(at_ctf_zeros(halves.even, halves.odd, halves.spacing, micrograph.optics, micrograph.ctf))
    shared_noise = tuple(noise for noise in measured if noise is not None)
    flags = [
        no_signal_flag(image, halves.even.size),
        *map(noise_model_flag if recorrupted else shared_noise_flag, shared_noise),
    ]
    signal = read_truth(truth, micrograph, halves, denoiser.recipe) if truth is not None else None
    evaluation = MicrographEvaluation(
        micrograph,
        image,
        ring_covariances(*halves.images, halves.spacing),
        true_moments(halves, signal) if signal else None,
        true_ring_moments(halves, signal) if signal else None,
        shared_noise,
        (halves.grey_levels[0][1], halves.grey_levels[1][1]),
        tuple(flag for flag in flags if flag is not None),
        halves.notes,
        time.perf_counter() - start,
        recorrupted,
    )
    return evaluation, halves
