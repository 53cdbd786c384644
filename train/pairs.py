"""Even and odd halves that noise2noise can learn from, and clear refusals of those it cannot."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError, names_file
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.io.halves import half_files, refuse_identical
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.halves import coarse_correlation

Image = NDArray[np.float32]


def prepare_pair(
    micrograph: Micrograph, recipe: Recipe, *, allow_denoised: bool = False
) -> tuple[Image, Image, NDArray[np.bool_]]:
    """Read a micrograph's halves and make them network input.

    Args:
        micrograph: with `even` and `odd`.
        recipe: crop, band-pass and phase flip.
        allow_denoised: take halves that this program denoised.

    Returns:
        Two images (h, w) of the same shape, mean 0 and standard deviation 1, sides multiples of 8; and where one of
        them shows no specimen, (h, w).

    Raises:
        DataError: a half is missing, unreadable or without signal; their shapes differ; they are the same
            image, one of them is the whole sum, or they have no signal in common.
    """
    files = half_files(micrograph, allow_denoised=allow_denoised)
    halves = [np.asarray(read_mrc(path).data) for path in files]
    prepared: list[Prepared] = []
    for path, half in zip(files, halves, strict=True):
        with names_file(path):
            prepared.append(preprocess(half, micrograph.optics, micrograph.ctf, recipe))
    even, odd = (to_host(half.image) for half in prepared)
    refuse_identical(even, odd, files)
    _refuse_unrelated(even, odd, files, micrograph.optics.pixel_size * halves[0].shape[1] / even.shape[1])
    return even, odd, prepared[0].missing() | prepared[1].missing()


def _refuse_unrelated(even: Image, odd: Image, files: tuple[Path, Path], spacing: float) -> None:
    """Refuse halves without a common signal, whose images are `spacing` Å per pixel."""
    common, error = coarse_correlation(even, odd, spacing)
    if common < max(0.01, 4 * error):
        raise DataError(
            f"{files[0]}: has no signal in common with {files[1].name} (correlation {common:.3f} beyond 40 "
            "Å); are they halves of different micrographs, or is the micrograph empty?"
        )
