"""Detector defects: text files of rectangles and maps, read into masks of bad pixels.

A text file has MotionCor's lines `x y w h`, in pixels of the frame from its first pixel, (0, 0); RELION reads the same.
A map (MRC or TIFF) is non-zero where a pixel is bad.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.tiff_movies import open_tiff, read_page

_TEXT_ENDINGS = (".txt", ".text", ".dat")
_SERIAL_EM = "CameraSizeX"


def read_defects(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read defects into a mask.

    Args:
        path: .txt of rectangles, or a map.
        shape: (ny, nx) of the frames.

    Returns:
        (ny, nx), true where a pixel is bad.

    Raises:
        DataError: the file cannot be read, is not in this format, or does not fit the frames.
    """
    if path.suffix.lower() in _TEXT_ENDINGS:
        return _from_text(path, shape)
    if path.suffix.lower() in (".tif", ".tiff"):
        with open_tiff(path) as file:
            values = read_page(path, file.pages[0], "its image")[::-1]
    else:
        values = read_mrc(path).data
    if values.shape != shape:
        raise DataError(
            f"{path}: the defect map has {values.shape[1]} × {values.shape[0]} pixels, the frames have "
            f"{shape[1]} × {shape[0]}; give the map of these movies"
        )
    mask: npt.NDArray[np.bool_] = values != 0
    if mask.mean() > 0.5:
        raise DataError(
            f"{path}: the defect map marks {mask.mean():.0%} of the pixels as bad; 1 means bad, 0 means good"
        )
    return mask


def _from_text(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file of defects ({error})") from error
    if _SERIAL_EM in text:
        raise DataError(
            f"{path}: is SerialEM's defect list; make a map of it with IMOD's clip defect -D {path.name}, or write "
            "lines of x y w h"
        )
    mask = np.zeros(shape, np.bool_)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            x, y, width, height = map(int, words)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is {line.strip()!r}, expected four integers x y w h") from error
        if x < 0 or y < 0 or width < 0 or height < 0 or x + width > shape[1] or y + height > shape[0]:
            raise DataError(
                f"{path}: line {number} marks x {x} to {x + width} and y {y} to {y + height}, outside the frames of "
                f"{shape[1]} × {shape[0]} pixels; give the defects of these movies"
            )
        mask[y : y + height, x : x + width] = True
    return mask
