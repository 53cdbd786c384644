"""Small pictures of a micrograph: for the report before and after denoising, limited in bytes; or as one PNG."""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.arrays import irfft2
from n2n_deploy.imaging.fourier import resize_spectrum

Image = NDArray[np.floating]
Spectrum = NDArray[np.complex64]
Grey = NDArray[np.uint8]

_BYTES_PER_PIXEL = 0.4
"""Size of pure noise, the worst case, as JPEG of quality 60."""

_QUALITIES = (70, 50, 30, 10)
_DETAILS_FROM = 40_000
_LARGEST_SIDE = 512
_PNG_SIDE = 1024


def picture_limit(micrographs: int, total: int = 60_000_000) -> int:
    """Return the limit in bytes for the pictures of one micrograph, so that all together take about `total`."""
    return int(np.clip(total / max(micrographs, 1), 12_000, 160_000))


def pictures(noisy: Image, denoised: Image, spectra: tuple[Spectrum, Spectrum], limit: int) -> Mapping[str, bytes]:
    """Draw the whole field before and after denoising, the residual, and a detail if the limit allows.

    Each picture has its own grey scale, from the 0.5th to the 99.5th percentile; that of the residual is symmetric
    about zero. Downsampling removes high-frequency noise, so structure in the residual shows.

    Args:
        noisy: (h, w), the network's input.
        denoised: (h, w), the network's output.
        spectra: `rfft2` of both, (h, w//2+1).
        limit: bytes for all pictures together.

    Returns:
        JPEG files: "noisy", "denoised", "residual" and, from 40 kB on, "noisy detail" and "denoised detail"
        (the middle, one pixel per network pixel).
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


def png(image: Image, side: int = _PNG_SIDE) -> bytes:
    """Draw one image as an 8-bit grey PNG, from the 0.5th to the 99.5th percentile, averaged to at most `side` pixels.

    Args:
        image: (ny, nx), the first row on top.
        side: pixels of the longer side; smaller images keep their size.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    scale = min(1.0, side / max(picture.size))
    if scale < 1.0:
        width, height = (max(1, round(n * scale)) for n in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    Image.fromarray(_stretch(np.asarray(picture))).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _shrink(spectrum: Spectrum, shape: tuple[int, ...], side: int) -> Image:
    scale = min(1.0, side / max(shape))
    small = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    image: Image = irfft2(resize_spectrum(spectrum, (shape[0], shape[1]), small), small)
    return image


def _stretch(image: Image) -> Grey:
    low, high = np.percentile(image, (0.5, 99.5))
    return _grey(image, float(low), float(high))


def _grey(image: Image, low: float, high: float) -> Grey:
    grey: Grey = (np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return grey


def _jpeg(grey: Grey, limit: int) -> bytes:
    """Encode at the best quality that stays within the limit, or else at the lowest."""
    from PIL import Image

    for quality in _QUALITIES:
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "JPEG", quality=quality)
        if stream.tell() <= limit:
            break
    return stream.getvalue()
