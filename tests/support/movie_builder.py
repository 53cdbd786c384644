"""Movies with known truth: a micrograph that drifts, counted electron by electron."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt

from n2n_deploy.io.movie_table import read_movies
from n2n_deploy.movies.options import HalvesOptions
from n2n_deploy.movies.run import Account, sum_movies

PIXEL_SIZE, FRAMES, SIDE = 3.0, 8, 256
SMALL = (48, 64)
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


def small_movie(path: Path, frames: int = 4) -> Path:
    """A movie of counts without a scene."""
    return save_movie(path, np.random.default_rng(1).poisson(5, (frames, *SMALL)).astype(np.int8), 1.5)


def full_log(path: Path, frames: int = 4) -> Path:
    """MotionCor's shifts of one pixel a frame."""
    lines = [f"{i + 1:4d} {i:8.2f} {-i:8.2f}\n" for i in range(frames)]
    path.write_text("# full frame alignment\n" + "".join(lines))
    return path


def run_halves(sources: Sequence[Path | str], output: Path, motion: str | None = None, **options: object) -> Account:
    """Sum movies; options of the run and of the sums alike."""
    outer = {name: options.pop(name) for name in {"jobs", "memory", "shard", "overwrite"} & options.keys()}
    movies = read_movies(sources, motion=motion)
    return sum_movies(movies, output, HalvesOptions(**options), **outer)  # type: ignore[arg-type]


def mtimes(folder: Path) -> dict[Path, int]:
    """When each MRC file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.mrc")}
