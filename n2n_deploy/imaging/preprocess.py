"""From a micrograph to network input (S2.1): repair, Fourier crop, level, band-pass, phase flip, normalise."""

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import irfft2, standard_deviation, to_host
from n2n_deploy.imaging import operations
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.defects import mask_of, nearest_pixels
from n2n_deploy.imaging.fourier import (
    common_columns,
    effective_resolution,
    grid_spacing,
    network_shape,
    partial_rfft2,
)
from n2n_deploy.imaging.gradient import subtract_ramp
from n2n_deploy.imaging.pixels import PixelReport, repair_pixels
from n2n_deploy.imaging.steps import CropStep


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A micrograph as the network sees it, and what is needed to make its output a micrograph again.

    Attributes:
        image: (height, width) float32, mean 0 and, outside of what was filled, standard deviation 1; sides multiples
            of 8.
        mean: grey level of the raw image.
        std: standard deviation of the Fourier-cropped, band-passed image, in raw grey levels.
        shape: (ny, nx) of the raw image.
        pixel_size: Å per pixel of the raw image.
        spacing: Å per pixel of `image` along (y, x).
        resolution: Å; the recipe's max_resolution, or the raw image's Nyquist where that is coarser.
        recipe: the recipe followed.
        optics: the optics given.
        ctf: the CTF parameters given.
        pixels: what was repaired.
        spectrum: the raw image's whole spectrum, (ny, nx//2+1) complex64 without its mean, or None.
    """

    image: Array
    mean: float
    std: float
    shape: tuple[int, int]
    pixel_size: float
    spacing: tuple[float, float]
    resolution: float
    recipe: Recipe
    optics: Optics
    ctf: CTFParameters | None
    pixels: PixelReport
    spectrum: Array | None = None

    def missing(self) -> NDArray[numpy.bool_]:
        """Return where the network's image shows no specimen: constant areas and the dark beyond a beam's edge.

        Returns:
            (height, width) bool, on the host.
        """
        kept = tuple(defect for defect in self.pixels.defects if defect.kept)
        raw = to_host(mask_of(kept, self.shape, numpy.empty(0)))
        y, x = (nearest_pixels(n, raw_n) for n, raw_n in zip(self.image.shape, self.shape, strict=True))
        missing: NDArray[numpy.bool_] = raw[numpy.ix_(y, x)]
        dark = self.pixels.illumination
        if dark is not None and dark.kind == "beam edge":
            missing |= dark.area[numpy.ix_(y // dark.block, x // dark.block)]
        return missing


def preprocess(
    image: Array, optics: Optics, ctf: CTFParameters | None, recipe: Recipe, *, keep_spectrum: bool = False
) -> Prepared:
    """Make a micrograph network input (S2.1).

    Args:
        image: (ny, nx), any real type, NumPy or CuPy; it is not changed.
        optics: its pixel size, and what the CTF needs where the recipe flips phases.
        ctf: its CTF parameters; None is allowed where the recipe does not flip phases.
        recipe: the model's recipe.
        keep_spectrum: keep the raw spectrum, which `restore` needs for merging.

    Raises:
        DataError: no signal, too many defective pixels, a pixel size that is not positive, an image too
            small, or phase flipping without CTF.
    """
    shape = (int(image.shape[0]), int(image.shape[1])) if image.ndim == 2 else (0, 0)
    if recipe.phase_flip and ctf is None:
        raise DataError(
            "the model flips phases and the table gives no CTF for this micrograph: "
            "estimate it first, or use a model with phase_flip off"
        )
    pixel_size = optics.pixel_size
    # network_shape rejects a pixel size that is not positive, once the image is known to be one.
    image, pixels = repair_pixels(image, recipe.highpass / pixel_size if pixel_size > 0 else None)
    size = network_shape(shape, pixel_size, recipe.max_resolution)
    spacing = grid_spacing(shape, pixel_size, size)
    columns = shape[1] // 2 + 1 if keep_spectrum else common_columns(shape, size)
    raw = partial_rfft2(image, pixels.mean, columns)
    flip = (optics, ctf) if recipe.phase_flip and ctf is not None else None
    with subtract_ramp(raw, shape, pixel_size, recipe.highpass):
        cropped = operations.crop(raw, CropStep(shape, pixel_size, size, recipe, flip))
    spectrum = raw if keep_spectrum else None
    del raw  # its memory is wanted for the inverse transform
    small = irfft2(cropped, size)
    # Filled areas have no contrast; the standard deviation is that of the rest.
    std = standard_deviation(small) / math.sqrt(1.0 - pixels.filled)
    if not std > 1e-6 * pixels.std:
        raise DataError(
            f"no signal between {recipe.highpass:g} and {recipe.max_resolution:g} Å: the standard deviation "
            f"there is {std:g}, that of the image {pixels.std:g}"
        )
    small *= numpy.float32(1.0 / std)
    return Prepared(
        image=small,
        mean=pixels.mean,
        std=std,
        shape=shape,
        pixel_size=pixel_size,
        spacing=spacing,
        resolution=effective_resolution(pixel_size, recipe.max_resolution),
        recipe=recipe,
        optics=optics,
        ctf=ctf,
        pixels=pixels,
        spectrum=spectrum,
    )
