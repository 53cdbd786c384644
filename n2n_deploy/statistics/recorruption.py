"""Noise of a known spectrum, and the two images with independent noise that it makes of one exposure.

For Gaussian noise n of an exposure y and noise z of the same spectrum, Cov(n + z, n − z) = 0 (Pang et al.,
Recorrupted-to-Recorrupted, CVPR 2021): (y + z)/2 and (y − z)/2 have the signal and the noise of a half of the exposure.
"""

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.statistics.noise_models import NoiseModel

Image = NDArray[np.float32]


def noise_image(model: NoiseModel, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Draw Gaussian noise of this power spectrum, (ny, nx)."""
    spectrum = rfft2(rng.standard_normal(shape, np.float32))
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    spectrum *= np.sqrt(model.power(y, x)).astype(np.float32)
    noise: Image = irfft2(spectrum, shape)
    return noise


def recorrupted_halves(image: Image, model: NoiseModel, rng: np.random.Generator) -> tuple[Image, Image]:
    """Make two halves of an exposure: images of half its signal, with independent noise.

    Args:
        image: (ny, nx), the exposure.
        model: its noise.
        rng: draws z.
    """
    z = noise_image(model, (image.shape[0], image.shape[1]), rng)
    half = np.float32(0.5)
    return half * (image + z), half * (image - z)
