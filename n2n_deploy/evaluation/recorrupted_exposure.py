"""Two images with independent noise from a full exposure, for micrographs without even and odd halves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError, names_file
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.data import thin
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.defects import put_back
from n2n_deploy.imaging.fourier import effective_resolution
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.io.denoised_images import refuse_denoised
from n2n_deploy.io.mrc import read_image_header, read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.noise import count_level, estimate_noise
from n2n_deploy.statistics.recorruption import recorrupted_halves

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RecorruptedExposure:
    """Half the signal of an exposure twice, with independent noise of a half's strength.

    Attributes:
        halves: (ny, nx) each.
        note: what the noise was taken for.
    """

    halves: tuple[Image, Image]
    note: str


def recorrupt_exposure(micrograph: Micrograph, recipe: Recipe) -> RecorruptedExposure:
    """Read a full exposure and make two halves of it; the same micrograph gives the same halves.

    An image of electron counts is divided at random, which is exact. Of another one the noise spectrum is estimated,
    and noise z that has it makes (y + z)/2 and (y − z)/2.

    Raises:
        DataError: the file is missing, unreadable or denoised already, or its noise cannot be told from signal.
    """
    if not micrograph.path.is_file():
        raise DataError(f"{micrograph.path}: the micrograph is missing; see --project")
    refuse_denoised(read_image_header(micrograph.path))
    raw = read_mrc(micrograph.path).data
    with names_file(micrograph.path):
        repaired, report = repair_pixels(raw)
        image: Image = to_host(repaired)
        halves: tuple[Image, Image]
        if count_level(image) is not None:
            even, odd = thin(np.rint(image).astype(np.uint32), micrograph.row)
            halves, note = (even.astype(np.float32), odd.astype(np.float32)), "electron counts, divided at random"
        else:
            resolution = effective_resolution(micrograph.optics.pixel_size, recipe.max_resolution)
            model = estimate_noise(
                image, micrograph.optics, micrograph.ctf, highpass=recipe.highpass, resolution=resolution
            )
            middle = np.array([0.5 * micrograph.optics.pixel_size / resolution])
            error = float(model.error(np.zeros(1), middle)[0])
            halves = recorrupted_halves(image, model, np.random.default_rng((micrograph.row, 1)))
            note = f"noise ({model.family}) estimated from the exposure, with a standard error of {error:.1%}"
        for half in halves:
            put_back(half, report.defects, (image.shape[0], image.shape[1]))
    return RecorruptedExposure(halves, note)
