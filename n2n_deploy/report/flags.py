"""What looks wrong with a micrograph, from its arrays; and which micrographs stand out from the others."""

from collections.abc import Sequence

import numpy as np

from n2n_deploy.report.entries import Flag
from n2n_deploy.statistics.estimates import Covariances
from n2n_deploy.statistics.halves import IDENTICAL_CORRELATION
from n2n_deploy.statistics.shared_noise import CommonNoise
from n2n_deploy.statistics.spectra import ThonFit

FLAT, NOTHING, EMPTY, RINGS, OUTLIER, NO_SIGNAL, IDENTICAL_HALVES, COMMON_NOISE = (
    "flat power",
    "nothing found",
    "empty area",
    "wrong pixel size or defocus",
    "outlier SNR",
    "no signal in common",
    "identical halves",
    "noise common to the halves",
)
"""The kinds of flags raised here."""

_BLOCKS = 16
_EMPTY_CONTRAST = 0.25
_EMPTY_AREA = 0.1
_FLAT = 1.1
_NOTHING = 1e-3
_RINGS_SEEN = 0.4
_RINGS_MISSED = 0.2
_FAR = 5.0
_FEWEST = 8
_COMMON_SHARE, _COMMON_SIGMAS = 0.01, 5.0


def empty_area(image: np.ndarray) -> float:
    """Return the share of a band-passed image, (h, w), that has next to no contrast: black halves, bars.

    Of 16×16 blocks, those whose standard deviation is below a quarter of what the best quarter reaches: phase
    flipping smears the rest of the image into a black part, so it is not quite empty.
    """
    height, width = (n // _BLOCKS for n in image.shape)
    blocks = image[: height * _BLOCKS, : width * _BLOCKS].reshape(_BLOCKS, height, _BLOCKS, width)
    contrast = blocks.std(axis=(1, 3))
    return float(np.mean(contrast < _EMPTY_CONTRAST * np.percentile(contrast, 75)))


def flags_of(
    noisy: np.ndarray, frequency: np.ndarray, power: np.ndarray, power_kept: float, thon: ThonFit | None
) -> tuple[Flag, ...]:
    """Look at one micrograph.

    Args:
        noisy: (h, w), band-passed network input.
        frequency: (rings,) 1/Å.
        power: (rings,) rotationally averaged power of `noisy`.
        power_kept: variance of the denoised over that of the noisy image.
        thon: how its Thon rings fit its CTF, where that could be said.
    """
    found = []
    empty = empty_area(noisy)
    if empty > _EMPTY_AREA:
        found.append(Flag(EMPTY, f"{empty:.0%} of the area has no contrast: a black part, a grid bar or an edge"))
    # The recipe's high-pass bends the lowest frequencies, its low-pass the highest.
    last = float(frequency[-1])
    low = power[(frequency > 0.1 * last) & (frequency < 0.3 * last)].mean()
    high = power[(frequency > 0.6 * last) & (frequency < 0.8 * last)].mean()
    if low < _FLAT * high:
        found.append(
            Flag(
                FLAT,
                f"the power spectrum is flat ({low / high:.2f} from low to high frequency): noise alone?",
            )
        )
    if power_kept < _NOTHING:
        found.append(Flag(NOTHING, f"the network kept {power_kept:.2%} of the power: it found nothing in here"))
    if thon and thon.best > _RINGS_SEEN and thon.given < _RINGS_MISSED:
        found.append(
            Flag(
                RINGS,
                f"Thon rings do not follow the CTF (correlation {thon.given:.2f}); with frequencies times"
                f" {thon.scale:.3f} they would ({thon.best:.2f}): the true pixel size may be"
                f" {1 / thon.scale:.3f} times that given, or the true defocus {thon.scale**2:.3f} times",
            )
        )
    return tuple(found)


def no_signal(image: Covariances, pixels: int) -> Flag | None:
    """Flag halves that have no more in common than chance gives them, so that no ratio to their signal means anything.

    Args:
        image: covariances over the pixels of the halves.
        pixels: how many there are.
    """
    correlation, error = image.noisy_correlation, pixels**-0.5
    if correlation >= 4 * error:
        return None
    return Flag(
        NO_SIGNAL,
        f"the halves have no signal in common (correlation {correlation:.4f} ± {error:.4f}): halves of "
        "different micrographs, or an empty one?",
    )


def identical_halves(image: Covariances) -> Flag | None:
    """Flag halves that are one image, of which no noise can be told from signal.

    Args:
        image: covariances over the pixels of the halves.
    """
    if image.noisy_correlation <= IDENTICAL_CORRELATION:
        return None
    text = f"the halves are one image (correlation {image.noisy_correlation:.3f}): no noise can be told from signal"
    return Flag(IDENTICAL_HALVES, text)


def common_noise(found: CommonNoise) -> Flag | None:
    """Flag noise that both halves share, where it is beyond doubt and large enough to matter."""
    if found.share < _COMMON_SHARE or found.share < _COMMON_SIGMAS * found.error:
        return None
    return Flag(
        COMMON_NOISE,
        f"{found.share:.1%} (± {found.error:.1%}) of the power {found.where} is common to both halves, where there "
        "is no signal: a detector artefact (gain reference, hot or interpolated pixels)? It counts as signal "
        "in the estimates and teaches a network to keep it",
    )


def outlier_flags(snr: Sequence[float | None], power_kept: Sequence[float | None]) -> dict[int, Flag]:
    """Flag the micrographs whose SNR, or share of power kept, lies far from the others'.

    Far is more than five robust standard deviations (1.4826 × the median absolute deviation) of the logarithm
    from the median, of eight micrographs or more.

    Args:
        snr: of each micrograph before denoising, None where unknown.
        power_kept: percent, of each micrograph, None where unknown.

    Returns:
        A flag by the index of each outlier; of one in both, that of its SNR.
    """
    return {**_far("power kept (%)", power_kept), **_far("SNR", snr)}


def _far(what: str, measured: Sequence[float | None]) -> dict[int, Flag]:
    values = np.array([value if value and value > 0 else np.nan for value in measured])
    known = np.log(values[np.isfinite(values)])
    if len(known) < _FEWEST:
        return {}
    median = float(np.median(known))
    spread = max(1.4826 * float(np.median(np.abs(known - median))), 1e-3)
    far = np.flatnonzero(np.abs(np.log(values) - median) > _FAR * spread)
    return {
        int(index): Flag(OUTLIER, f"{what} is {values[index]:.3g}; the others' median is {np.exp(median):.3g}")
        for index in far
    }
