"""The halves of one micrograph before and after denoising, in one space, and refusals of halves that prove nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph

Image = NDArray[np.float32]

IDENTICAL = 0.98
"""Correlation of two halves from which on they are the same image; noise alone keeps real ones far below."""

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
    even_path, odd_path = _half(micrograph, "even"), _half(micrograph, "odd")
    even_shape, even_raw, even = _denoise(even_path, micrograph, denoiser)
    odd_shape, odd_raw, odd = _denoise(odd_path, micrograph, denoiser)
    if even_shape != odd_shape:
        raise DataError(
            f"{even_path}: the even half has {even_shape[0]}×{even_shape[1]} pixels and the odd half {odd_path.name} "
            f"{odd_shape[0]}×{odd_shape[1]}; halves of one micrograph have one shape"
        )
    correlation = float((even.network_input * odd.network_input).mean(dtype=np.float64))
    if correlation > IDENTICAL:
        raise DataError(
            f"{even_path}: identical to the odd half {odd_path.name} (correlation {correlation:.3f}), so that no "
            "noise can be told from signal; make the halves from the even and from the odd frames"
        )
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


def _half(micrograph: Micrograph, which: str) -> Path:
    path = micrograph.even if which == "even" else micrograph.odd
    if path is None:
        raise DataError(f"{micrograph.name}: the table names no {which} half; see --suffixes, --even and --odd")
    if not path.is_file():
        raise DataError(f"{path}: the {which} half is not there; see --suffixes, --even, --odd and --project")
    if micrograph.path.exists() and path.samefile(micrograph.path):
        raise DataError(f"{path}: the {which} half is the whole sum itself; name the sums of the two sets of frames")
    return path


def _denoise(path: Path, micrograph: Micrograph, denoiser: Denoiser) -> tuple[tuple[int, int], Image, Denoised]:
    """Denoise one half; all but the middle of its raw pixels are let go before the next is read."""
    pixels = read_mrc(path).data
    try:
        result = denoiser.denoise(pixels, micrograph.optics, micrograph.ctf)
    except DataError as error:
        raise error if path.name in str(error) else DataError(f"{path}: {error}") from error
    middle = tuple(slice((n - min(n, _RAW)) // 2, (n + min(n, _RAW)) // 2) for n in pixels.shape)
    return (pixels.shape[0], pixels.shape[1]), to_host(repair_pixels(pixels[middle])[0]), result
