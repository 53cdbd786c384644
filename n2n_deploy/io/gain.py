"""Gain references: read, turned as RELION and MotionCor turn them, and made a factor for a movie's pixels.

Orientation follows RELION's `--gain_rot` and `--gain_flip`, which are MotionCor's `-RotGain` and `-FlipGain`: first the
rotation by so many times 90° (counter-clockwise where the first row is drawn at the bottom, as IMOD's 3dmod does), then
the flip of rows (1) or columns (2).

Gains multiply, with one exception, RELION's: an MRC or TIFF gain for an EER movie is the detector's response, so counts
are divided by it (times its mean); a `.gain` file of the EER acquisition software multiplies. A pixel whose gain is 0
is defective.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.movie_files import Movie
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.tiff_movies import open_tiff, read_page

_MOST_ZEROS = 0.5
_TIFF, _EER_GAIN = (".tif", ".tiff"), ".gain"
_DIGITAL_MICROGRAPH = (".dm3", ".dm4")


@dataclass(frozen=True, slots=True)
class Gain:
    """A gain reference in the orientation of the frames.

    Attributes:
        path: the file.
        values: (ny, nx) float32, as in the file.
    """

    path: Path
    values: npt.NDArray[np.float32]

    def factor(self, movie: Movie) -> npt.NDArray[np.float32]:
        """Return what the pixels of a movie's frames are multiplied by; 0 marks defective pixels.

        Raises:
            DataError: the gain does not have the shape of the frames.
        """
        if not movie.is_eer:
            self._check_shape(movie, self.values.shape)
            return self.values
        values = self.values
        ny, nx = values.shape
        if (2 * ny, 2 * nx) == movie.shape:
            values = values.repeat(2, axis=0).repeat(2, axis=1)
        elif (ny, nx) == (2 * movie.shape[0], 2 * movie.shape[1]):
            # The mean of the four half pixels; one that is defective makes the whole pixel defective.
            blocks = values.reshape(ny // 2, 2, nx // 2, 2)
            values = np.where((blocks == 0).any(axis=(1, 3)), np.float32(0), blocks.mean(axis=(1, 3)))
        self._check_shape(movie, values.shape)
        if self.path.suffix == _EER_GAIN:
            return values
        factor = np.zeros_like(values)
        np.divide(np.float32(values.mean(dtype=np.float64)), values, out=factor, where=values != 0)
        return factor

    def _check_shape(self, movie: Movie, shape: tuple[int, ...]) -> None:
        if shape == movie.shape:
            return
        what = f"{self.path}: the gain reference has {shape[1]} × {shape[0]} pixels"
        frames = f"the frames of {movie.path} have {movie.shape[1]} × {movie.shape[0]}"
        if shape == movie.shape[::-1]:
            raise DataError(f"{what}, {frames}: it is transposed; give --gain-rotation 1 or 3")
        raise DataError(f"{what}, {frames}; give the gain reference of these movies, binned as they are")


def read_gain(path: Path, *, rotation: int = 0, flip: int = 0) -> Gain:
    """Read a gain reference and turn it.

    Args:
        path: MRC, TIFF (whose rows are flipped, like those of TIFF movies) or .gain.
        rotation: 0 to 3, times 90°.
        flip: 0 for none, 1 to flip rows (upside down), 2 to flip columns (left to right).

    Raises:
        DataError: the file cannot be read, is mostly zeros, or has values that are negative or not finite.
        UsageError: there is no such rotation or flip.
    """
    if rotation not in range(4):
        raise UsageError(f"gain rotation {rotation} does not exist; choose 0, 1, 2 or 3 times 90°")
    if flip not in range(3):
        raise UsageError(f"gain flip {flip} does not exist; choose 0 (none), 1 (rows) or 2 (columns)")
    values = _read(path).astype(np.float32)
    if values.ndim != 2:
        raise DataError(f"{path}: a gain reference is one image, this one has the shape {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError(f"{path}: the gain reference has values that are negative or not finite; make it again")
    zeros = float(np.mean(values == 0))
    if zeros > _MOST_ZEROS:
        raise DataError(
            f"{path}: {zeros:.0%} of the gain reference is zero, which would mark these pixels as defective; "
            "give the reference itself, not an empty, dark or defect map"
        )
    values = np.rot90(values, -rotation)
    if flip:
        values = np.flip(values, axis=flip - 1)
    return Gain(path, np.ascontiguousarray(values))


def _read(path: Path) -> npt.NDArray[np.generic]:
    ending = path.suffix.lower()
    if ending in _DIGITAL_MICROGRAPH:
        raise DataError(f"{path}: gain references in DigitalMicrograph format are not read; convert it with dm2mrc")
    if ending not in (*_TIFF, _EER_GAIN):
        return read_mrc(path).data
    with open_tiff(path) as file:
        pixels = read_page(path, file.pages[0], "its image")
    return pixels if ending == _EER_GAIN else pixels[::-1]
