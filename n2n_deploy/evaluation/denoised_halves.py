"""The two halves of a micrograph before and after denoising, in the same space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import names_file
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.arrays import to_host
from n2n_deploy.evaluation.recorrupted_exposure import recorrupt_exposure
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.io.halves import half_files, refuse_identical
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph

Image = NDArray[np.float32]

_RAW_SIDE = 2048
"""Pixels of the raw halves that are kept, along each side; enough to measure shared noise, and cheap."""


@dataclass(frozen=True, slots=True, eq=False)
class DenoisedHalves:
    """Network input and output of both halves, (h, w) float32 each.

    Attributes:
        even: band-passed, phase-flipped if the model's recipe says so, mean 0 and standard deviation 1.
        odd: likewise.
        denoised_even: the network's output for `even`.
        denoised_odd: the network's output for `odd`.
        spacing: Å per pixel along (y, x).
        raw: the middle of the even and of the odd half as read, with bad pixels repaired.
        grey_levels: mean and standard deviation of the even and of the odd half, in grey levels of the input.
        notes: what was repaired, and where there are no halves, what the noise was taken for.
        tiles: number of tiles that the network processed.
        recorrupted: the halves were made of the full exposure.
    """

    even: Image
    odd: Image
    denoised_even: Image
    denoised_odd: Image
    spacing: tuple[float, float]
    raw: tuple[Image, Image]
    grey_levels: tuple[tuple[float, float], tuple[float, float]]
    notes: tuple[str, ...] = ()
    tiles: int = 0
    recorrupted: bool = False

    @property
    def images(self) -> tuple[Image, Image, Image, Image]:
        """M1, M2, D1 and D2, in the order that `statistics.estimates` takes them."""
        return self.even, self.odd, self.denoised_even, self.denoised_odd


def denoise_halves(micrograph: Micrograph, denoiser: Denoiser, *, recorrupted: bool = False) -> DenoisedHalves:
    """Read both halves of a micrograph, or make them, and denoise each on its own.

    Args:
        micrograph: with `even` and `odd`, unless `recorrupted`.
        denoiser: the model.
        recorrupted: make two halves of the full exposure; see `recorrupt_exposure`.

    Raises:
        DataError: a half is not named, missing, unreadable or without signal; their shapes differ;
            the halves are identical, or one is a copy of the sum. The noise of a full exposure cannot be told from
            its signal.
        HostError: there is not enough memory.
    """
    notes: tuple[str, ...] = ()
    if recorrupted:
        made = recorrupt_exposure(micrograph, denoiser.recipe)
        with names_file(micrograph.path):
            (even_raw, even), (odd_raw, odd) = (_denoise(half, micrograph, denoiser) for half in made.halves)
        notes = (made.note,)
    else:
        files = half_files(micrograph)
        (even_raw, even), (odd_raw, odd) = (_read(path, micrograph, denoiser) for path in files)
        refuse_identical(even.network_input, odd.network_input, files)
    return DenoisedHalves(
        even.network_input,
        odd.network_input,
        even.network_output,
        odd.network_output,
        even.spacing,
        (even_raw, odd_raw),
        (even.grey_levels, odd.grey_levels),
        notes + tuple(f"{name} half: {note}" for name, half in (("even", even), ("odd", odd)) for note in half.notes),
        even.tiles + odd.tiles,
        recorrupted,
    )


def _read(path: Path, micrograph: Micrograph, denoiser: Denoiser) -> tuple[Image, Denoised]:
    """Read and denoise one half. Only the middle of its raw pixels is kept: never two whole halves in memory."""
    pixels = read_mrc(path).data
    with names_file(path):
        return _denoise(pixels, micrograph, denoiser)


def _denoise(pixels: NDArray[Any], micrograph: Micrograph, denoiser: Denoiser) -> tuple[Image, Denoised]:
    result = denoiser.denoise(pixels, micrograph.optics, micrograph.ctf)
    middle = tuple(slice((n - min(n, _RAW_SIDE)) // 2, (n + min(n, _RAW_SIDE)) // 2) for n in pixels.shape)
    return to_host(repair_pixels(pixels[middle])[0]), result
