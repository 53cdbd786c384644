"""Even and odd halves that noise2noise can learn from, and clear refusals of those it cannot."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph

COARSE = 20.0
"""Å per pixel at which halves are compared: beyond 40 Å nearly all micrographs have a strong signal."""

_SAMPLE = 1 << 16  # bytes compared to tell whether two files are the same image


def prepare_pair(
    micrograph: Micrograph, recipe: Recipe
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Read a micrograph's halves and make them network input.

    Args:
        micrograph: with `even` and `odd`.
        recipe: crop, band-pass and phase flip.

    Returns:
        Two images (h, w) of the same shape, mean 0 and standard deviation 1, sides multiples of 8; and where one
        of them shows no specimen, (h, w).

    Raises:
        DataError: a half is missing, unreadable or without signal; their shapes differ; they are the same
            image, one of them is the whole sum, or they have no signal in common.
    """
    even_path = _half(micrograph.even, "even")
    odd_path = _half(micrograph.odd, "odd")
    for path in (even_path, odd_path):
        if same_image(path, micrograph.path):
            raise DataError(
                f"{path}: is the same image as the sum {micrograph.path.name}; "
                "noise2noise needs the sums of the even and of the odd frames"
            )
    halves = []
    for path in (even_path, odd_path):
        try:
            halves.append(np.asarray(read_mrc(path).data))
        except DataError as error:
            raise _named(error, path) from error
    even, odd = halves
    if even.shape != odd.shape:
        raise DataError(
            f"{even_path}: the even half is {_size(even)} and the odd half {odd_path.name} {_size(odd)}; "
            "halves of one micrograph have one shape"
        )
    prepared = []
    for path, half in ((even_path, even), (odd_path, odd)):
        try:
            prepared.append(preprocess(half, micrograph.optics, micrograph.ctf, recipe))
        except DataError as error:
            raise _named(error, path) from error
    images = prepared[0].image, prepared[1].image
    _refuse_unrelated(*images, even_path, odd_path, micrograph.optics.pixel_size, even.shape)
    return *images, prepared[0].missing() | prepared[1].missing()


def same_image(a: Path, b: Path) -> bool:
    """Whether two files are one file, or have the same size and the same bytes in the middle."""
    try:
        if a.samefile(b):
            return True
        size = a.stat().st_size
        if size != b.stat().st_size:
            return False
        samples = []
        for path in (a, b):
            with path.open("rb") as stream:
                stream.seek(max(0, size // 2 - _SAMPLE // 2))
                samples.append(stream.read(_SAMPLE))
    except OSError:
        return False  # a missing sum is no obstacle to training, a missing half is reported elsewhere
    return samples[0] == samples[1]


def coarse_correlation(even: NDArray[np.float32], odd: NDArray[np.float32], spacing: float) -> tuple[float, float]:
    """Correlation of two images averaged over blocks of about 20 Å, and the standard error of a zero one.

    Args:
        even: (h, w).
        odd: (h, w).
        spacing: Å per pixel.
    """
    block = max(1, round(COARSE / spacing))
    h, w = (side // block * block for side in even.shape)
    coarse = [
        image[:h, :w].reshape(h // block, block, w // block, block).mean(axis=(1, 3), dtype=np.float64).ravel()
        for image in (even, odd)
    ]
    return float(np.corrcoef(coarse)[0, 1]), coarse[0].size ** -0.5


def _refuse_unrelated(
    even: NDArray[np.float32],
    odd: NDArray[np.float32],
    even_path: Path,
    odd_path: Path,
    pixel_size: float,
    shape: tuple[int, ...],
) -> None:
    """Refuse halves with the same noise, which teach the identity, and those without a common signal."""
    correlation = float(np.vdot(even, odd)) / even.size
    if correlation > 0.98:
        raise DataError(
            f"{even_path}: identical to the odd half {odd_path.name} (correlation {correlation:.3f}); "
            "noise2noise would learn to change nothing: make the halves from the even and the odd frames"
        )
    common, error = coarse_correlation(even, odd, pixel_size * shape[1] / even.shape[1])
    if common < max(0.01, 4 * error):
        raise DataError(
            f"{even_path}: has no signal in common with {odd_path.name} (correlation {common:.3f} beyond 40 "
            "Å); are they halves of different micrographs, or is the micrograph empty?"
        )


def _half(path: Path | None, which: str) -> Path:
    if path is None:
        raise DataError(f"the table names no {which} half; see --suffixes, --even and --odd")
    if not path.is_file():
        raise DataError(f"{path}: the {which} half is not there; see --suffixes, --even, --odd and --project")
    return path


def _named(error: DataError, path: Path) -> DataError:
    """The error with the file's name in front, where it does not say it yet."""
    return error if path.name in str(error) else DataError(f"{path}: {error}")


def _size(image: NDArray[np.generic]) -> str:
    return "×".join(map(str, reversed(image.shape)))
