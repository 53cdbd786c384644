"""Whether pixels that hold one value are a defect: sparse counts and saturated areas hold one value, too."""

import math
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.defects import Defect, Window
from n2n_deploy.imaging.pixel_statistics import TILE

_CHANCE = math.log(1e-9)
"""Logarithm of the chance that is taken for impossible."""

RIM = 8
"""Pixels; how far around an area its value is looked for."""

_NATURAL = 0.02
_DENSER = 1.3

Mask = NDArray[numpy.bool_]


class ValueShares:
    """How common a value is among the pixels that are in no margin and no constant tile.

    Some 65 000 pixels are looked at, once, and only where it matters: few images need it.
    """

    def __init__(self, image: Array, window: Window, constant_tiles: Mask) -> None:
        self._image, self._window, self._constant = image, window, constant_tiles
        self._sample: NDArray[Any] | None = None

    def __call__(self, value: float) -> float:
        """Return the share of the pixels that have the value."""
        if self._sample is None:
            inner = self._image[self._window.box]
            step = max(1, int((inner.size / (1 << 16)) ** 0.5))
            sample = numpy.asarray(to_host(inner[::step, ::step].copy()))
            rows, columns = (
                numpy.minimum((first + step * numpy.arange(n)) // TILE, tiles - 1)
                for first, n, tiles in zip(
                    (self._window.top, self._window.left), sample.shape, self._constant.shape, strict=True
                )
            )
            varied = ~self._constant[numpy.ix_(rows, columns)]
            self._sample = sample[varied] if varied.any() else sample
        return float(numpy.mean(self._sample == value))

    def fewest(self, value: float) -> float:
        """Return how many pixels in a row do not all have the value by chance.

        Counts that were interpolated are not independent, so it is twice what independent pixels would need.
        """
        return 2 * _CHANCE / math.log(min(max(self(value), 1e-5), 0.999))


def area_of(
    mask: Mask,
    equal: Mask,
    corner: tuple[int, int],
    value: float,
    shares: ValueShares,
    window: Window,
) -> list[Defect]:
    """Return the area as a defect, unless its edge shows that it is natural, or its shape."""
    if not mask.any():
        return []
    rim = ndimage.binary_dilation(mask, iterations=RIM) & ~ndimage.binary_dilation(mask)
    if is_natural(equal[rim], shares(value)):
        return []
    (top, bottom), (left, right) = (_extent(numpy.any(mask, axis=1)), _extent(numpy.any(mask, axis=0)))
    mask = mask[top:bottom, left:right]
    rows, columns = (top + corner[0], bottom + corner[0]), (left + corner[1], right + corner[1])
    if mask.all():
        return [Defect("area", rows, columns, value=value)]
    at_border = (
        rows[0] == window.top or rows[1] == window.bottom or columns[0] == window.left or columns[1] == window.right
    )
    return [Defect("area", rows, columns, value=value, packed=numpy.packbits(mask, axis=1))] if at_border else []


def is_natural(equal: NDArray[Any], share: float) -> bool:
    """Tell by the pixels around an area whether it fades out: more of them have its value than elsewhere."""
    return bool(equal.size) and float(equal.mean()) > _NATURAL + _DENSER * share


def _extent(hits: NDArray[Any]) -> tuple[int, int]:
    where = numpy.flatnonzero(hits)
    return int(where[0]), int(where[-1]) + 1
