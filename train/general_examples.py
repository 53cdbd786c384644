"""Training examples of the general model: simulated micrographs, exposed anew at many doses, made on the fly.

A micrograph is simulated on the grid that the network sees, whose pixel is half the resolution, and passes through the
same Fourier steps as a real one. The target is the expected image: noise2noise with a target of unlimited dose. It
has the same minimiser as a noisy target, and its gradients lack the target's noise.
"""

from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.data.structures import NAMES
from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.device.host import HOST
from n2n_deploy.imaging import operations
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.imaging.gradient import subtract_ramp
from n2n_deploy.imaging.steps import CropStep, Flip
from n2n_deploy.simulate import draw_micrograph
from n2n_deploy.simulate.conditions import log_uniform

RESOLUTIONS = (4.0, 12.0)
"""Å, finest and coarsest resolution that the general model is trained for; drawn log-uniformly."""

THINNING = (0.08, 1.0)
"""Part of a micrograph's dose that an example gets, drawn log-uniformly: halves, frames and low-dose images."""

TILTS = (-0.2, 0.4)
"""Range of the exponents β of a power law (s · 100 Å)^β on the contrast between 100 and 12 Å. Specimens differ in how
their power falls with frequency, by more than thirteen structures show: networks trained without it gave the package's
real micrograph half of the amplitudes that it has around 20 Å."""

ENVELOPES = (100.0, 2000.0)
"""Å²; range of the B factor of a further envelope exp(−B s²/4) in two of three micrographs, drawn log-uniformly:
damage, motion, thick ice and rough CTFs. Without it networks draw detail beyond 15 Å where there is none."""

LEFT_OUT = ("proteasome", "p97", "hsp90")
"""Structures that are not trained on: `benchmarks.general` measures on them."""

SIDE = 512
"""Pixels of a simulated micrograph."""

PATCH = 128
"""Pixels of an example."""

EXPOSURES = 4
"""Exposures of each micrograph: two with phases flipped and two without."""

PER_MICROGRAPH = EXPOSURES * (SIDE // PATCH) ** 2
"""Examples that one simulated micrograph gives."""

COLOURED = 0.15
"""Part of the exposures whose noise is not white: its power falls by up to a third towards the network's Nyquist
frequency, as interpolation and charge sharing between pixels make it. Steeper falls made networks timid in trials."""

WEAKEST = 0.02
"""Signal variance below which an example counts no more than others. Errors count by the reciprocal of the square root
of the signal's variance. By its reciprocal, so that all examples count alike, networks came out timid: what cannot be
told from a patch is then taken for the weaker of two signals."""


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of one simulated micrograph.

    Attributes:
        images: (n, 2, side, side) float16: the noisy image, in units of its exposure's standard deviation, and the
            expected image in the same units.
        weights: (n,) float32 of their squared errors; see `WEAKEST`.
        resolution: Å of the network's Nyquist frequency.
        thinning: (n,) part of the dose.
        flipped: (n,) whether phases are flipped.
    """

    images: NDArray[np.float16]
    weights: NDArray[np.float32]
    resolution: float
    thinning: NDArray[np.float32]
    flipped: NDArray[np.bool_]


def make_examples(seed: int, number: int) -> Examples:
    """Simulate the micrograph of this number, expose it and cut it, as a function of seed and number alone."""
    rng = np.random.default_rng((seed, number))
    resolution = log_uniform(rng, *RESOLUTIONS)
    names = [name for name in NAMES if name not in LEFT_OUT]
    micrograph = draw_micrograph(rng, (SIDE, SIDE), resolution / 2, names)
    envelope = 0.0 if rng.random() < 1 / 3 else log_uniform(rng, *ENVELOPES)
    whole = _reshaped(micrograph.expected, resolution / 2, rng.uniform(*TILTS), envelope)
    images, weights, thinning, flips = [], [], [], []
    for exposure in range(EXPOSURES):
        flip = exposure % 2 == 0
        part = log_uniform(rng, *THINNING)
        expected = whole * np.float32(part)
        noisy = _expose(rng, expected)
        recipe = Recipe(max_resolution=resolution, phase_flip=flip)
        how = (micrograph.optics, micrograph.ctf) if flip else None
        shown, clean = (filtered(image, resolution / 2, recipe, how) for image in (noisy, expected))
        std = max(float(shown.std()), 1e-6)
        pair = np.stack([shown, clean]) / np.float32(std)
        count = PER_MICROGRAPH // EXPOSURES
        images.append(_windows(pair))
        weights += [(float(pair[1].var()) + WEAKEST) ** -0.5] * count
        thinning += [part] * count
        flips += [flip] * count
    return Examples(
        images=np.concatenate(images).astype(np.float16),
        weights=np.array(weights, np.float32),
        resolution=resolution,
        thinning=np.array(thinning, np.float32),
        flipped=np.array(flips),
    )


def filtered(image: NDArray[np.float32], pixel_size: float, recipe: Recipe, flip: Flip) -> NDArray[np.float32]:
    """Take an image through the Fourier steps of `preprocess`, without repair and normalisation."""
    shape = (image.shape[0], image.shape[1])
    spectrum = rfft2(image - image.mean(dtype=np.float64).astype(np.float32))
    with subtract_ramp(spectrum, shape, pixel_size, recipe.highpass):
        cropped = operations.crop(spectrum, CropStep(shape, pixel_size, shape, recipe, flip))
    return HOST.to_host(irfft2(cropped, shape))


def stream(seed: int, first: int, workers: int) -> Generator[Examples, None, None]:
    """Yield the examples of micrographs `first`, `first` + 1, … in order, made ahead in processes."""
    with ProcessPoolExecutor(workers) as pool:
        ahead = [pool.submit(make_examples, seed, first + number) for number in range(2 * workers)]
        number = first + len(ahead)
        try:
            while True:
                yield ahead.pop(0).result()
                ahead.append(pool.submit(make_examples, seed, number))
                number += 1
        finally:
            pool.shutdown(cancel_futures=True)


def _reshaped(
    expected: NDArray[np.float32], pixel_size: float, exponent: float, envelope: float
) -> NDArray[np.float32]:
    """Change how the contrast of a micrograph falls with frequency; see `TILTS` and `ENVELOPES`."""
    s = frequencies((SIDE, SIDE), (pixel_size, pixel_size))
    gain = (np.clip(s, 1 / 100, 1 / 12) * 100) ** exponent * np.exp(-envelope / 4 * s**2)
    changed: NDArray[np.float32] = HOST.to_host(irfft2(rfft2(expected) * gain.astype(np.float32), (SIDE, SIDE)))
    return np.maximum(changed, 0, out=changed)


def _expose(rng: np.random.Generator, expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Count electrons; in some of the exposures their noise is filtered, and pixels are no longer whole numbers."""
    noisy = rng.poisson(expected).astype(np.float32)
    if rng.random() >= COLOURED:
        return noisy
    s = frequencies((SIDE, SIDE), (1.0, 1.0)) / 0.5  # of Nyquist
    noise = rfft2(noisy - expected) * np.exp(-rng.uniform(0.0, 0.2) * s**2).astype(np.float32)
    coloured: NDArray[np.float32] = expected + HOST.to_host(irfft2(noise, (SIDE, SIDE)))
    return coloured


def _windows(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut images (k, side, side) into patches (n, k, patch, patch)."""
    k, side, _ = images.shape
    count = side // PATCH
    blocks = images.reshape(k, count, PATCH, count, PATCH)
    return np.ascontiguousarray(blocks.transpose(1, 3, 0, 2, 4)).reshape(-1, k, PATCH, PATCH)
