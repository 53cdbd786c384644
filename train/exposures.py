"""Single exposures that noise2noise can learn from: the network's view of one, and the noise to recorrupt it with.

For Gaussian noise n of a known spectrum, y + αz and y − z/α with z drawn from that spectrum carry independent noise
(Pang et al., Recorrupted-to-Recorrupted, CVPR 2021). A pixel of network input is a sum over many electrons, so its
noise is Gaussian. An image of electron counts needs no z: binomial thinning gives halves that are exactly independent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError, names_file
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.data import thin
from n2n_deploy.device.arrays import rfft2, to_host
from n2n_deploy.imaging.filters import bandpass
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.rings import ring_frequencies
from n2n_deploy.io.denoised_images import refuse_denoised
from n2n_deploy.io.mrc import read_image_header, read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.noise import count_level, estimate_noise
from n2n_deploy.statistics.noise_models import NoiseModel
from n2n_deploy.statistics.spectra import power

Image = NDArray[np.float32]

_CURVE_POINTS = 400
_DIRECTIONS = 16


@dataclass(frozen=True, slots=True, eq=False)
class NoiseCurve:
    """A micrograph's spectrum and its noise model, averaged over directions, for the picture in the run's folder.

    Attributes:
        frequency: (points,) cycles per pixel of the exposure.
        power: (points,) of the exposure.
        noise: (points,) of the model.
        family: the model's, or "counts".
        pixel_size: Å.
    """

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    noise: NDArray[np.float64]
    family: str
    pixel_size: float


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """A full exposure as training uses it.

    Attributes:
        images: one image (h, w), mean 0 and standard deviation 1, to be recorrupted; or two, independent halves.
        missing: (h, w), where there is no specimen.
        amplitude: (2·patch, patch + 1) float32, for noise on the network's grid: `irfft2(rfft2(white) · amplitude)` has
            the image's noise spectrum, in the image's units. None where there are two images.
        curve: spectrum and noise model.
    """

    images: tuple[Image, ...]
    missing: NDArray[np.bool_]
    amplitude: Image | None
    curve: NoiseCurve


def prepare_exposure(
    micrograph: Micrograph, recipe: Recipe, seed: int = 0, *, allow_denoised: bool = False
) -> Exposure:
    """Read a micrograph's full exposure, estimate its noise and make it network input.

    Args:
        micrograph: the full exposure's file, optics and CTF.
        recipe: crop, band-pass and phase flip.
        seed: of the thinning of electron counts.
        allow_denoised: take an exposure that this program denoised.

    Raises:
        DataError: the file is missing or without signal, or its noise cannot be told from signal.
    """
    if not micrograph.path.is_file():
        raise DataError(f"{micrograph.path}: the micrograph is missing; see --project")
    if not allow_denoised:
        refuse_denoised(read_image_header(micrograph.path))
    raw = np.asarray(read_mrc(micrograph.path).data)
    with names_file(micrograph.path):
        image: Image = to_host(repair_pixels(raw)[0])
        pixel_size = micrograph.optics.pixel_size
        level = count_level(image)
        if level is not None:
            counts = np.rint(image).astype(np.uint32)
            thinned = [
                preprocess(half.astype(np.float32), micrograph.optics, micrograph.ctf, recipe)
                for half in thin(counts, seed)
            ]
            halves = tuple(to_host(half.image) for half in thinned)
            missing = thinned[0].missing() | thinned[1].missing()
            return Exposure(
                halves, missing, None, _curve(image, NoiseModel("white", level), pixel_size, "electron counts")
            )
        prepared = preprocess(raw, micrograph.optics, micrograph.ctf, recipe)
        model = estimate_noise(
            image, micrograph.optics, micrograph.ctf, highpass=recipe.highpass, resolution=prepared.resolution
        )
    amplitude = noise_amplitude(model, prepared, recipe.patch_size)
    return Exposure(
        (to_host(prepared.image),), prepared.missing(), amplitude, _curve(image, model, pixel_size, model.family)
    )


def noise_amplitude(model: NoiseModel, prepared: Prepared, side: int) -> Image:
    """The square root of the noise spectrum of network input, on the rfft grid of a square of twice `side` pixels.

    The Fourier crop keeps power per raw pixel but has fewer pixels, the band-pass filters it and the input is divided
    by the standard deviation; the CTF's sign changes nothing about noise. Noise made on a square of twice the side of a
    patch and cut to it does not wrap around: a patch of periodic noise would have opposite edges alike.

    Returns:
        (2·side, side + 1) float32.
    """
    shape = (2 * side, 2 * side)
    size = prepared.image.shape
    y = np.fft.fftfreq(shape[0])[:, None] * (prepared.pixel_size / prepared.spacing[0])
    x = np.fft.rfftfreq(shape[1])[None, :] * (prepared.pixel_size / prepared.spacing[1])
    noise = model.power(y, x) * (np.abs(y) <= 0.5) * (x <= 0.5)
    shrunk = size[0] * size[1] / (prepared.shape[0] * prepared.shape[1])
    factor = np.sqrt(noise * shrunk) / prepared.std
    return np.asarray(factor * bandpass(shape, prepared.spacing, prepared.recipe), np.float32)


def _curve(image: Image, model: NoiseModel, pixel_size: float, family: str) -> NoiseCurve:
    shape = (image.shape[0], image.shape[1])
    spectrum = power(rfft2(image - np.float32(image.mean(dtype=np.float64))), shape, (1.0, 1.0))
    frequency = ring_frequencies(shape)
    chosen = np.unique(np.linspace(1, len(frequency) - 1, min(_CURVE_POINTS, len(frequency) - 1)).astype(int))
    angles = (np.arange(_DIRECTIONS) + 0.5) * (np.pi / 2 / _DIRECTIONS)
    at = frequency[chosen, None]
    noise = model.power(at * np.sin(angles), at * np.cos(angles)).mean(axis=1)
    return NoiseCurve(frequency[chosen], spectrum[chosen], noise, family, pixel_size)
