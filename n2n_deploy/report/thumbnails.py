"""Small pictures of a micrograph before and after denoising, bounded in bytes."""

import io
from collections.abc import Mapping

import numpy as np

from n2n_deploy.device.arrays import irfft2
from n2n_deploy.imaging.fourier import resize_spectrum

_BYTES_PER_PIXEL = 0.4
"""What JPEG of quality 60 takes for noise, the hardest of pictures."""

_QUALITIES = (70, 50, 30, 10)
_DETAILS_FROM = 40_000
_LARGEST_SIDE = 512


def picture_limit(micrographs: int, total: int = 60_000_000) -> int:
    """Return how many bytes the pictures of one micrograph may take, so that all take about `total`."""
    return int(np.clip(total / max(micrographs, 1), 12_000, 160_000))


def pictures(
    noisy: np.ndarray, denoised: np.ndarray, spectra: tuple[np.ndarray, np.ndarray], limit: int
) -> Mapping[str, bytes]:
    """Draw the whole field before and after and what was taken away, and where there is room a detail.

    The grey scales of the pictures are their own (from the 0.5th to the 99.5th percentile); the residual's is
    symmetric about zero. Shrinking hides the noise of high frequencies and lets structure be seen.

    Args:
        noisy: (h, w), what the network was given.
        denoised: (h, w), what it returned.
        spectra: `rfft2` of these two.
        limit: bytes that the pictures together may take.

    Returns:
        JPEG files: "noisy", "denoised", "residual" and, from 40 kB on, "noisy detail" and "denoised detail"
        (the middle, one network pixel a pixel).
    """
    detailed = limit >= _DETAILS_FROM
    share = limit // (5 if detailed else 3)
    side = min(_LARGEST_SIDE, int(np.sqrt(share / _BYTES_PER_PIXEL)))
    before, after = (_shrink(spectrum, noisy.shape, side) for spectrum in spectra)
    reach = 3.5 * float((before - after).std()) or 1.0
    drawn = {
        "noisy": _jpeg(_stretch(before), share),
        "denoised": _jpeg(_stretch(after), share),
        "residual": _jpeg(_grey(before - after, -reach, reach), share),
    }
    if detailed:
        middle = tuple(slice((n - min(n, side)) // 2, (n - min(n, side)) // 2 + min(n, side)) for n in noisy.shape)
        drawn["noisy detail"] = _jpeg(_stretch(noisy[middle]), share)
        drawn["denoised detail"] = _jpeg(_stretch(denoised[middle]), share)
    return drawn


def _shrink(spectrum: np.ndarray, shape: tuple[int, ...], side: int) -> np.ndarray:
    scale = min(1.0, side / max(shape))
    small = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    image: np.ndarray = irfft2(resize_spectrum(spectrum, (shape[0], shape[1]), small), small)
    return image


def _stretch(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (0.5, 99.5))
    return _grey(image, float(low), float(high))


def _grey(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)


def _jpeg(grey: np.ndarray, limit: int) -> bytes:
    """Encode at the best quality that fits the limit; at the lowest if none does."""
    from PIL import Image

    for quality in _QUALITIES:
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "JPEG", quality=quality)
        if stream.tell() <= limit:
            break
    return stream.getvalue()
