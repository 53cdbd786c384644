"""A simulated micrograph with its truth, and how much a defect changes what becomes of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import restore

Image = NDArray[Any]
Mask = NDArray[np.bool_]

GUARD = 40.0
"""Å from a defect: where its change is measured. Nearer, the pixels that are missing are missing in the result, too."""

ALLOWED = 0.02
"""Of the signal's standard deviation."""

PLAIN, FLIPPED = Recipe(phase_flip=False), Recipe()


@dataclass(frozen=True)
class Micrograph:
    """A simulated micrograph, its noiseless truth and how it was taken."""

    image: Image
    truth: Image
    optics: Optics
    ctf: CTFParameters

    def prepare(self, image: Image, recipe: Recipe = PLAIN, *, merge: bool = False) -> Prepared:
        return preprocess(image, self.optics, self.ctf, recipe, keep_spectrum=merge)

    def denoise(self, image: Image, recipe: Recipe = PLAIN) -> Image:
        """Through all of the pipeline; the network is a narrow Gaussian, so that what rings is not hidden."""
        prepared = self.prepare(image, recipe)
        result: Image = restore(ndimage.gaussian_filter(prepared.image, 0.4), prepared)
        return result

    def change(self, image: Image, defect: Mask, recipe: Recipe = PLAIN, guard: float = GUARD) -> float:
        """RMS change at some distance from a defect, relative to the signal's standard deviation.

        Distances are those of the periodic image that a Fourier transform sees.
        """
        difference = self.denoise(image, recipe) - self.denoise(self.image, recipe)
        ny, nx = defect.shape
        distance = ndimage.distance_transform_edt(np.tile(~defect, (3, 3)))[ny : 2 * ny, nx : 2 * nx]
        elsewhere = difference[distance * self.optics.pixel_size > guard]
        return float(np.sqrt(np.mean(elsewhere**2)) / self.denoise(self.truth, recipe).std())
