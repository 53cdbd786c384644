"""The halves of one micrograph before and after denoising, in one space, and refusals of halves that prove nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import names_file
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.io.halves import half_files, refuse_identical
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph

Image = NDArray[np.float32]

_RAW = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Both halves as the network saw them and what it made of them, (h, w) float32 each.

    Attributes:
        even: band-passed, phase-flipped where the model does that, mean 0 and standard deviation 1.
        odd: the same of the other half.
        denoised_even: the network's output for `even`.
        denoised_odd: the network's output for `odd`.
        spacing: Å per pixel along (y, x).
        raw: the middle of the raw even and of the raw odd half, repaired.
        grey_levels: mean of the raw half, and the standard deviation that 1 stands for, of even and odd.
        notes: what was repaired.
        tiles: how many tiles the network saw.
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

    @property
    def images(self) -> tuple[Image, Image, Image, Image]:
        """M1, M2, D1 and D2, as the estimators take them."""
        return self.even, self.odd, self.denoised_even, self.denoised_odd


def denoise_halves(micrograph: Micrograph, denoiser: Denoiser) -> Halves:
    """Read both halves of a micrograph and denoise each on its own.

    Raises:
        DataError: a half is not named, missing, unreadable or without signal; their shapes differ; or they are one
            image, or one of them is the whole sum.
        HostError: the memory does not suffice.
    """
    files = half_files(micrograph)
    (even_raw, even), (odd_raw, odd) = (_denoise(path, micrograph, denoiser) for path in files)
    refuse_identical(even.network_input, odd.network_input, files)
    return Halves(
        even.network_input,
        odd.network_input,
        even.network_output,
        odd.network_output,
        even.spacing,
        (even_raw, odd_raw),
        (even.grey_levels, odd.grey_levels),
        tuple(f"{name} half: {note}" for name, half in (("even", even), ("odd", odd)) for note in half.notes),
        even.tiles + odd.tiles,
    )


def _denoise(path: Path, micrograph: Micrograph, denoiser: Denoiser) -> tuple[Image, Denoised]:
    """Denoise one half; all but the middle of its raw pixels are let go before the next is read."""
    pixels = read_mrc(path).data
    with names_file(path):
        result = denoiser.denoise(pixels, micrograph.optics, micrograph.ctf)
    middle = tuple(slice((n - min(n, _RAW)) // 2, (n + min(n, _RAW)) // 2) for n in pixels.shape)
    return repair_pixels(pixels[middle])[0], result
