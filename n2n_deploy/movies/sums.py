"""`HalfSums`: the even and odd sums of a movie, built up frame by frame in place."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.fourier import common_columns, partial_irfft2, partial_rfft2, resize_occupied
from n2n_deploy.movies.dose import DoseWeights
from n2n_deploy.movies.shifting import shift_spectrum, undo_local_motion

Image = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_ANISOTROPY = 1e-3
_SMALLEST = 2


def binned_shape(shape: tuple[int, int], binning: float) -> tuple[int, int]:
    """Return the (ny, nx) of sums that are Fourier-cropped by a factor of 1 or more: whole, and even where it crops.

    Raises:
        UsageError: the factor is below 1, or the pixels would not be square.
    """
    if not (math.isfinite(binning) and binning >= 1):
        raise UsageError(f"binning {binning:g}: expected 1 or more")
    if binning == 1:
        return shape
    ny, nx = (max(_SMALLEST, 2 * round(n / binning / 2)) for n in shape)
    if abs(shape[0] / ny / (shape[1] / nx) - 1) > _ANISOTROPY:
        raise UsageError(
            f"binning {binning:g} of {shape[1]} × {shape[0]} pixels gives {nx} × {ny}, whose pixels are not square; "
            "choose a factor that divides both"
        )
    return ny, nx


class HalfSums:
    """Sums of even and odd frames.

    Frames that need neither shift nor weight are added as they are; the others are transformed, cropped to the
    sums' size, moved and weighted there. Only frames with local motion come back to real space one by one.

    Args:
        shape: (ny, nx) of the frames.
        out_shape: (ny, nx) of the sums.
        weights: of the frames that are summed; None for 1.
    """

    def __init__(self, shape: tuple[int, int], out_shape: tuple[int, int], weights: DoseWeights | None = None) -> None:
        self._shape, self._out_shape, self._weights = shape, out_shape, weights
        self._plain: list[Image | None] = [None, None]
        self._spectra: list[npt.NDArray[np.complex64] | None] = [None, None]
        self._local: list[Image | None] = [None, None]
        self._levels = [0.0, 0.0]

    def add(
        self,
        image: Image,
        index: int,
        half: int,
        shift: tuple[float, float] = (0.0, 0.0),
        local: tuple[Floats, float] | None = None,
    ) -> None:
        """Add a frame.

        Args:
            image: (ny, nx); it is used up.
            index: of the frame among those that are summed, for its weight.
            half: 0 or 1.
            shift: (x, y) in pixels of the frame.
            local: coefficients (2, 18) in pixels of the sums, and the model's time.

        Raises:
            DataError: the frame has another shape.
        """
        if image.shape != self._shape:
            raise DataError(f"frame {index + 1} has the shape {image.shape}, expected {self._shape}")
        if self._weights is None and local is None and shift == (0.0, 0.0):
            self._plain[half] = _added(self._plain[half], image)
            return
        mean = float(image.mean(dtype=np.float64))
        whole = partial_rfft2(image, mean, common_columns(self._shape, self._out_shape))
        del image
        if self._out_shape != self._shape:
            whole = resize_occupied(whole, self._shape, self._out_shape)
        spectrum = to_host(whole)
        del whole
        scale = self._out_shape[1] / self._shape[1], self._out_shape[0] / self._shape[0]
        shift_spectrum(spectrum, self._out_shape, shift[0] * scale[0], shift[1] * scale[1])
        if self._weights is not None:
            weight = self._weights[index]
            mean *= float(weight[0, 0])
            spectrum *= weight
        self._levels[half] += mean
        if local is None:
            self._spectra[half] = _added(self._spectra[half], spectrum)
            return
        if (total := self._local[half]) is None:
            total = self._local[half] = np.zeros(self._out_shape, np.float32)
        undo_local_motion(to_host(partial_irfft2(spectrum, self._out_shape, 0.0)), *local, total)

    def result(self, half: int) -> Image:
        """Return a sum, (ny, nx) float32 of the sums' size; it is given away."""
        total = self._local[half]
        self._local[half] = None
        if (spectrum := self._spectra[half]) is not None:
            self._spectra[half] = None
            total = _added(total, partial_irfft2(spectrum, self._out_shape, 0.0))
        if total is not None:
            total += np.float32(self._levels[half])
        if (plain := self._plain[half]) is not None:
            self._plain[half] = None
            if self._out_shape != self._shape:
                mean = float(plain.mean(dtype=np.float64))
                whole = partial_rfft2(plain, mean, common_columns(self._shape, self._out_shape))
                cropped = resize_occupied(whole, self._shape, self._out_shape)
                plain = to_host(partial_irfft2(cropped, self._out_shape, mean))
            total = _added(total, plain)
        return np.zeros(self._out_shape, np.float32) if total is None else total


def _added(total: Any, part: Any) -> Any:
    """The sum, in place; a first part becomes the sum."""
    if total is None:
        return part
    total += part
    return total
