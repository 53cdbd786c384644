"""The even and the odd half of a micrograph: their files, and checks that these are two independent halves."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.denoised_images import refuse_denoised
from n2n_deploy.io.mrc import read_image_header
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.halves import IDENTICAL_CORRELATION, correlation

_SAMPLE = 4096
"""Bytes compared to tell whether two files hold the same image; noise makes chance agreement impossible."""


def half_files(
    micrograph: Micrograph, shape: tuple[int, ...] | None = None, *, allow_denoised: bool = False
) -> tuple[Path, Path]:
    """Return the files of the even and the odd half, after checking names, headers and a few bytes.

    Args:
        micrograph: a row of a table.
        shape: of the sum, (ny, nx) or of a stack (nz, ny, nx), if the halves must have it; by default they only must
            agree with each other.
        allow_denoised: accept halves that this program denoised.

    Raises:
        DataError: a half is not named, missing, unreadable, a copy of the sum or denoised already, or the shapes
            differ.
    """
    files: list[Path] = []
    for which, path in (("even", micrograph.even), ("odd", micrograph.odd)):
        if path is None:
            raise DataError(f"{micrograph.name}: the table names no {which} half; see --suffixes, --even and --odd")
        if not path.is_file():
            raise DataError(f"{path}: the {which} half is missing; see --suffixes, --even, --odd and --project")
        if same_image(path, micrograph.path):
            raise DataError(
                f"{path}: the {which} half is the same image as the sum {micrograph.path.name}; expected the sum of "
                f"the {which} frames alone"
            )
        header = read_image_header(path)
        if not allow_denoised:
            refuse_denoised(header)
        found = header.shape if header.sections == 1 else (header.sections, *header.shape)
        if shape is None:
            shape = found
        if found != shape:
            other = files[0] if files else micrograph.path
            raise DataError(
                f"{path}: the {which} half has {_size(found)} pixels, {other.name} has {_size(shape)}; the images of "
                "one micrograph must have the same shape"
            )
        files.append(path)
    return files[0], files[1]


def refuse_identical(even: NDArray[np.float32], odd: NDArray[np.float32], files: tuple[Path, Path]) -> None:
    """Refuse halves with the same noise: noise cannot be told from signal, nor can a network learn to remove it.

    Args:
        even: (h, w).
        odd: (h, w).
        files: of the two.

    Raises:
        DataError: they correlate as only one image with itself does.
    """
    found = correlation(even, odd)
    if found > IDENTICAL_CORRELATION:
        raise DataError(
            f"{files[0]}: identical to the odd half {files[1].name} (correlation {found:.3f}); expected the sum of the "
            "even frames in one file and the sum of the odd frames in the other"
        )


def same_image(a: Path, b: Path) -> bool:
    """Whether two files are one file, or have the same size and the same bytes in the middle. A missing one is not."""
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
        return False
    return samples[0] == samples[1]


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, reversed(shape)))
