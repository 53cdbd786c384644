"""Even and odd halves read and preprocessed for training; unsuitable ones are refused with the reason."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph

COARSE = 20.0
"""Å per pixel at which halves are compared; beyond 40 Å nearly all micrographs have a strong signal."""

_SAMPLE = 1 << 16  # bytes compared to recognise copies of one image


def prepare_pair(micrograph: Micrograph, recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read a micrograph's halves and preprocess them into network input.

    Args:
        micrograph: with `even` and `odd`.
        recipe: crop, band-pass and phase flip.

    Returns:
        Two images (h, w) of the same shape, mean 0 and standard deviation 1, sides multiples of 8.

    Raises:
        DataError: a half is missing, unreadable or without signal; the shapes differ; both are the same image, one
            of them is the whole sum, or they have no signal in common.
    """
    even_path = _half(micrograph.even, "even")
    odd_path = _half(micrograph.odd, "odd")
    for path in (even_path, odd_path):
        if same_image(path, micrograph.path):
            raise DataError(
                f"{path}: is the same image as the sum {micrograph.path.name}; "
                "give the sums of the even and of the odd frames"
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
    images = []
    for path, half in ((even_path, even), (odd_path, odd)):
        try:
            images.append(preprocess(half, micrograph.optics, micrograph.ctf, recipe).image)
        except DataError as error:
            raise _named(error, path) from error
    _refuse_unrelated(images[0], images[1], even_path, odd_path, micrograph.optics.pixel_size, even.shape)
    return images[0], images[1]


def same_image(a: Path, b: Path) -> bool:
    """Whether two paths are one file, or two files of the same size with the same bytes in the middle."""
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
        return False  # training does not need the sum; a missing half is reported elsewhere
    return samples[0] == samples[1]


def coarse_correlation(even: NDArray[np.float32], odd: NDArray[np.float32], spacing: float) -> tuple[float, float]:
    """Return the correlation of two images averaged over blocks of about 20 Å, and its standard error about zero.

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
    """Refuse halves with the same noise, which train the identity, and halves without a common signal."""
    correlation = float(np.vdot(even, odd)) / even.size
    if correlation > 0.98:
        raise DataError(
            f"{even_path}: identical to the odd half {odd_path.name} (correlation {correlation:.3f}), from which a "
            "network learns to change nothing; make the halves from the even and the odd frames"
        )
    common, error = coarse_correlation(even, odd, pixel_size * shape[1] / even.shape[1])
    if common < max(0.01, 4 * error):
        raise DataError(
            f"{even_path}: has no signal in common with {odd_path.name} (correlation {common:.3f} beyond 40 Å); "
            "check that they are halves of one micrograph and that it is not empty"
        )


def _half(path: Path | None, which: str) -> Path:
    if path is None:
        raise DataError(f"the table names no {which} half; use --suffixes, or --even and --odd")
    if not path.is_file():
        raise DataError(f"{path}: the {which} half is not there; check --suffixes, --even, --odd and --project")
    return path


def _named(error: DataError, path: Path) -> DataError:
    """Put the file's name in front of an error that does not contain it."""
    return error if path.name in str(error) else DataError(f"{path}: {error}")


def _size(image: NDArray[np.generic]) -> str:
    return "×".join(map(str, reversed(image.shape)))
