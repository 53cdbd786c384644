"""Movies with known truth: a micrograph that drifts, counted electron by electron."""

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt

PIXEL_SIZE, FRAMES, SIDE = 3.0, 8, 256
Image = npt.NDArray[np.floating]


@dataclass
class Simulated:
    """A movie and what it was made of.

    Attributes:
        path: the movie, int8 MRC.
        truth: expected electrons of all frames together, before drift.
        drift: (frames, 2) x, y: where the content of each frame lies, in pixels.
    """

    path: Path
    truth: Image
    drift: npt.NDArray[np.float64]


def moved(image: Image, x: float, y: float) -> Image:
    """The image with its content moved, by a matrix of Fourier sums along each axis."""

    def along(n: int, shift: float) -> Image:
        k = np.arange(-(n // 2), n - n // 2)
        wave = np.exp(2j * np.pi * np.outer(np.arange(n) - shift, k) / n)
        return (wave @ np.exp(-2j * np.pi * np.outer(k, np.arange(n)) / n)).real / n

    moved_image: Image = along(image.shape[0], y) @ image @ along(image.shape[1], x).T
    return moved_image


def save_movie(path: Path, frames: npt.NDArray[np.generic], pixel_size: float = PIXEL_SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(frames)
        mrc.voxel_size = pixel_size
    return path
