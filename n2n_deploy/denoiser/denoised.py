"""What denoising one micrograph returns: the image, what was done to it, the average of halves, notes for users."""

from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.core.recipe import RecipeRange
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.device import Statistics
from n2n_deploy.imaging.defects import describe
from n2n_deploy.imaging.illumination import Illumination
from n2n_deploy.imaging.preprocess import Prepared


@dataclass(frozen=True)
class Denoised:
    """One denoised micrograph.

    Attributes:
        image: (ny, nx) float32, the input's grey scale and, unless it was cropped to coarser pixels, its size; CTF
            phases stay flipped unless flipped back. From a GPU it comes in pinned memory, which is scarce: copy what
            is to be kept for long.
        network_input: (h, w) float32, the preprocessed image, mean 0 and standard deviation 1; empty if not asked for.
        network_output: (h, w) float32, the network's output for it, on the same scale; empty if not asked for.
        spacing: Å per pixel of these two along (y, x).
        pixel_size: Å per pixel of `image`.
        notes: what the user should know: pixels that were repaired, a resolution the pixels do not reach.
        tiles: how many tiles the network saw; 1 is the whole image.
        seconds: wall time of "preprocess", "network" and "restore".
        grey_levels: mean of the raw image, and the standard deviation that 1 stands for in the network's input.
        halves: the network's inputs for the even and the odd half, then its outputs; empty where they were not
            denoised, or not asked for.
        statistics: of `image`, where a GPU found them.
        illumination: what is much darker or brighter than the rest of the micrograph.
    """

    image: NDArray[Any]
    network_input: NDArray[Any]
    network_output: NDArray[Any]
    spacing: tuple[float, float]
    pixel_size: float
    notes: tuple[str, ...]
    tiles: int
    seconds: dict[str, float] = field(default_factory=dict)
    grey_levels: tuple[float, float] = (0.0, 1.0)
    halves: tuple[NDArray[Any], ...] = ()
    statistics: Statistics | None = None
    illumination: Illumination | None = None


def averaged(outputs: list[Array], halves: list[Prepared], whole: Prepared) -> Array:
    """Return the mean of the denoised halves on the scale of the whole image's network input.

    Sums and means of frames, and sums with other dose weights, have other grey scales than their halves; what
    the halves have to be multiplied by to fit the whole image best follows from the noisy images.
    """
    even, odd = (half.image * numpy.float32(half.std) for half in halves)
    noisy = even + odd
    fit = float((noisy * whole.image).mean(dtype=numpy.float64) / (noisy * noisy).mean(dtype=numpy.float64))
    even, odd = (output * numpy.float32(half.std) for output, half in zip(outputs, halves, strict=True))
    total = even + odd
    total *= numpy.float32(fit)
    return total


def notes(prepared: Prepared, accepts: RecipeRange | None = None) -> tuple[str, ...]:
    """Tell what the user should know: pixels that were repaired, and a resolution that the pixels do not reach.

    Args:
        prepared: the micrograph.
        accepts: the recipes that the network was trained for, where that is more than the one followed.
    """
    said = []
    if prepared.pixels.bad:
        said.append(f"{prepared.pixels.bad} NaN or infinite pixels were replaced by their neighbours' mean")
    if prepared.pixels.clipped:
        said.append(f"{prepared.pixels.clipped} outlier pixels were replaced by their neighbours' mean")
    repaired, kept = describe(prepared.pixels.defects)
    if repaired:
        said.append(f"{' and '.join(repaired)} replaced by local means")
    if kept:
        said.append(f"{' and '.join(kept)}: not denoised, the output keeps the input's values there")
    if prepared.pixels.illumination is not None:
        said.append(f"{prepared.pixels.illumination.kind}: {prepared.pixels.illumination}")
    coarsest = accepts.max_resolution[1] if accepts else prepared.recipe.max_resolution
    if prepared.resolution > coarsest:
        said.append(
            f"pixels of {prepared.pixel_size:g} Å end at {prepared.resolution:.3g} Å, short of the model's "
            f"{coarsest:g} Å; trained on finer pixels, it sees this image at another scale"
        )
    return tuple(said)
