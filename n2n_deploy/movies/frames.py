"""Frames of a movie in electrons or counts: the gain applied and defects filled in."""

import numpy as np
import numpy.typing as npt

from n2n_deploy.io.movie_files import Movie

Image = npt.NDArray[np.float32]

_REACH, _EER_REACH = 2, 4
_FEWEST_NEIGHBOURS = 6
"""RELION's window (±2 pixels, ±4 of EER) and the number of good pixels that must be exceeded in it."""


class FrameReader:
    """Reads corrected frames of a movie.

    A defective pixel becomes the mean of the good pixels in its window, or of the whole frame where the window has few.
    RELION takes one of them at random; the mean has less noise, gives the same image every time, and is computed in
    each frame by itself, so that even and odd sums stay independent.

    Args:
        movie: open.
        factor: (ny, nx) to multiply by, 0 where a pixel is defective; None for 1.
        defects: (ny, nx), true where a pixel is bad; None for none.
    """

    def __init__(self, movie: Movie, factor: Image | None = None, defects: npt.NDArray[np.bool_] | None = None) -> None:
        self._movie, self._factor = movie, factor
        bad = np.zeros(movie.shape, np.bool_) if defects is None else defects.copy()
        if factor is not None:
            bad |= factor == 0
        self.defective = int(np.count_nonzero(bad))
        self._bad = np.nonzero(bad)
        self._good = ~bad if self.defective else None
        reach = _EER_REACH if movie.is_eer else _REACH
        steps = range(-reach, reach + 1)
        self._window = [(dy, dx) for dy in steps for dx in steps if (dy, dx) != (0, 0)]

    def read(self, frame: int) -> Image:
        """Return a frame, counted from 0: (ny, nx) float32, a new array."""
        image = self._movie.read(frame).astype(np.float32)
        if self._factor is not None:
            image *= self._factor
        if self._good is not None:
            self._fill(image, self._good)
        return image

    def _fill(self, image: Image, good: npt.NDArray[np.bool_]) -> None:
        rows, columns = self._bad
        ny, nx = image.shape
        total = np.zeros(len(rows), np.float64)
        count = np.zeros(len(rows), np.int64)
        for dy, dx in self._window:
            y, x = rows + dy, columns + dx
            inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
            y, x = y.clip(0, ny - 1), x.clip(0, nx - 1)
            use = inside & good[y, x]
            total += np.where(use, image[y, x], 0)
            count += use
        level = float(image.sum(dtype=np.float64, where=good)) / max(1, image.size - len(rows))
        image[rows, columns] = np.where(count > _FEWEST_NEIGHBOURS, total / np.maximum(count, 1), level)
