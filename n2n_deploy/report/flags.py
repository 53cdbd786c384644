"""Flags: what looks wrong with a micrograph, from numbers of its images; and which micrographs are outliers.

Every threshold and every sentence of a flag is here; `statistics` only measures.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.report.entries import Flag
from n2n_deploy.statistics.estimates import Covariances
from n2n_deploy.statistics.halves import IDENTICAL_CORRELATION
from n2n_deploy.statistics.shared_noise import SharedNoise
from n2n_deploy.statistics.spectra import ThonFit

FLAT_SPECTRUM = "flat power spectrum"
BLANK_OUTPUT = "blank output"
NO_CONTRAST = "area without contrast"
CTF_MISMATCH = "CTF mismatch"
NO_SIGNAL = "no signal in common"
IDENTICAL_HALVES = "identical halves"
SHARED_NOISE = "shared noise"
NOISE_MODEL = "noise model"
SNR_OUTLIER = "SNR outlier"
POWER_OUTLIER = "power kept outlier"

_BLOCKS = 16
_LOW_CONTRAST = 0.25
_LARGEST_EMPTY_AREA = 0.1
_SMALLEST_SLOPE = 1.1
_SMALLEST_POWER = 1e-3
_RINGS_SEEN = 0.4
_RINGS_MISSED = 0.2
_NOISE_FRACTION, _NOISE_SIGMAS = 0.01, 5.0
_CHANCE_SIGMAS = 4.0
_OUTLIER_SIGMAS = 5.0
_FEWEST_MICROGRAPHS = 8


def area_without_contrast(image: NDArray[np.float32]) -> float:
    """Return the fraction of a band-passed image, (h, w), that has almost no contrast: black areas, grid bars.

    The image is divided into 16×16 blocks. A block counts if its standard deviation is below a quarter of the
    blocks' 75th percentile: phase flipping smears the rest of the image into a black area, so it is not quite empty.
    """
    height, width = (n // _BLOCKS for n in image.shape)
    blocks = image[: height * _BLOCKS, : width * _BLOCKS].reshape(_BLOCKS, height, _BLOCKS, width)
    contrast = blocks.std(axis=(1, 3))
    return float(np.mean(contrast < _LOW_CONTRAST * np.percentile(contrast, 75)))


def image_flags(
    noisy: NDArray[np.float32],
    frequency: NDArray[np.float64],
    power: NDArray[np.float64],
    power_kept: float,
    thon: ThonFit | None,
) -> tuple[Flag, ...]:
    """Check one micrograph.

    Args:
        noisy: (h, w), band-passed network input.
        frequency: (rings,) 1/Å.
        power: (rings,) rotationally averaged power of `noisy`.
        power_kept: variance of the denoised image over that of the noisy one.
        thon: fit of its Thon rings; None if there is none.
    """
    flags = []
    empty = area_without_contrast(noisy)
    if empty > _LARGEST_EMPTY_AREA:
        flags.append(Flag(NO_CONTRAST, f"{empty:.0%} of the image: a black area, a grid bar or an edge?"))
    # The recipe's high-pass shapes the lowest frequencies, its low-pass the highest.
    nyquist = float(frequency[-1])
    low = power[(frequency > 0.1 * nyquist) & (frequency < 0.3 * nyquist)].mean()
    high = power[(frequency > 0.6 * nyquist) & (frequency < 0.8 * nyquist)].mean()
    if low < _SMALLEST_SLOPE * high:
        flags.append(
            Flag(FLAT_SPECTRUM, f"low frequencies have only {low / high:.2f} times the power of high ones: pure noise?")
        )
    if power_kept < _SMALLEST_POWER:
        flags.append(Flag(BLANK_OUTPUT, f"the denoised image has only {power_kept:.2%} of the noisy image's power"))
    if thon and thon.best > _RINGS_SEEN and thon.given < _RINGS_MISSED:
        flags.append(
            Flag(
                CTF_MISMATCH,
                f"the Thon rings do not match the CTF (correlation {thon.given:.2f}); they match it "
                f"({thon.best:.2f}) if the true pixel size is {1 / thon.scale:.3f} times the given one, or the true "
                f"defocus {thon.scale**2:.3f} times the given one",
            )
        )
    return tuple(flags)


def no_signal_flag(image: Covariances, pixels: int) -> Flag | None:
    """Flag halves that correlate no more than by chance; ratios to their signal are meaningless.

    Args:
        image: covariances over the pixels of the halves.
        pixels: number of pixels.
    """
    correlation, error = image.noisy_correlation, pixels**-0.5
    if correlation >= _CHANCE_SIGMAS * error:
        return None
    return Flag(
        NO_SIGNAL,
        f"the halves correlate by {correlation:.4f} ± {error:.4f}, no more than by chance: halves of different "
        "micrographs, or an empty micrograph?",
    )


def identical_halves_flag(image: Covariances) -> Flag | None:
    """Flag halves that are the same image: noise cannot be told from signal.

    Args:
        image: covariances over the pixels of the halves.
    """
    if image.noisy_correlation <= IDENTICAL_CORRELATION:
        return None
    return Flag(
        IDENTICAL_HALVES,
        f"the halves correlate by {image.noisy_correlation:.3f}, so noise cannot be told from signal; expected the "
        "sums of the even and of the odd frames",
    )


def shared_noise_flag(noise: SharedNoise) -> Flag | None:
    """Flag noise that both halves share, if it is significant and large enough to matter."""
    if noise.fraction < _NOISE_FRACTION or noise.fraction < _NOISE_SIGMAS * noise.error:
        return None
    return Flag(
        SHARED_NOISE,
        f"the halves share {noise.fraction:.1%} (± {noise.error:.1%}) of their power {noise.where}, where there is no "
        "signal: a detector artefact (gain reference, hot or interpolated pixels)? The estimates count it as signal, "
        "and a network trained on these halves learns to keep it",
    )


def noise_model_flag(noise: SharedNoise) -> Flag | None:
    """Flag recorrupted halves whose noise has a part in common, of either sign: the estimate of the noise is off."""
    if abs(noise.fraction) < max(_NOISE_FRACTION, _NOISE_SIGMAS * noise.error):
        return None
    size, what = ("small", "noise counts as signal") if noise.fraction > 0 else ("large", "signal counts as noise")
    return Flag(
        NOISE_MODEL,
        f"the halves made of the exposure share {noise.fraction:+.1%} (± {noise.error:.1%}) of their power "
        f"{noise.where}, where there is no signal: the noise was estimated too {size}, so that {what}; is the image "
        "filtered, or does the CTF not fit?",
    )


def outlier_flags(snr: Sequence[float | None], power_kept: Sequence[float | None]) -> dict[int, tuple[Flag, ...]]:
    """Flag the micrographs whose SNR, or fraction of power kept, is far from that of the others.

    Far means more than five robust standard deviations (1.4826 × the median absolute deviation) of the logarithm
    from the median, of eight micrographs or more.

    Args:
        snr: of each micrograph before denoising; None if unknown.
        power_kept: of each micrograph, in percent; None if unknown.

    Returns:
        The flags of each outlier, by its index.
    """
    flags: dict[int, tuple[Flag, ...]] = defaultdict(tuple)
    for kind, name, values in ((SNR_OUTLIER, "SNR", snr), (POWER_OUTLIER, "power kept (%)", power_kept)):
        for index, text in _outliers(name, values).items():
            flags[index] += (Flag(kind, text),)
    return dict(flags)


def _outliers(name: str, measured: Sequence[float | None]) -> dict[int, str]:
    values = np.array([value if value and value > 0 else np.nan for value in measured])
    known = np.log(values[np.isfinite(values)])
    if len(known) < _FEWEST_MICROGRAPHS:
        return {}
    median = float(np.median(known))
    spread = max(1.4826 * float(np.median(np.abs(known - median))), 1e-3)
    far = np.flatnonzero(np.abs(np.log(values) - median) > _OUTLIER_SIGMAS * spread)
    return {int(index): f"{name} is {values[index]:.3g}; the median is {np.exp(median):.3g}" for index in far}
