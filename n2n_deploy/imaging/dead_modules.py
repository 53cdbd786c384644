"""Dead parts of a detector: bands between modules, whole modules, and areas of other shapes that hold one value."""

import math

import numpy
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.constant_values import RIM, ValueShares, area_of, is_natural
from n2n_deploy.imaging.dead_lines import WIDEST
from n2n_deploy.imaging.defects import Defect, Window
from n2n_deploy.imaging.pixel_statistics import TILE, PixelStatistics, runs

_REACH = 4 * TILE
_LARGEST_OPENING = 2 * TILE
_FEWEST_TILES = 4
_OPENING = 5
_RARE = 0.05

Mask = NDArray[numpy.bool_]


def find_bands(image: Array, window: Window, statistics: PixelStatistics, shares: ValueShares) -> list[Defect]:
    """Find constant lines side by side that cross the window: a gap between modules of a detector."""
    found = []
    for axis, lines in enumerate((statistics.rows, statistics.columns)):
        first, last = ((window.top, window.bottom), (window.left, window.right))[axis]
        quiet = lines.std[first:last] <= 1e-6 * numpy.median(lines.std)
        for start, stop in runs(quiet):
            span = first + start, first + stop
            rows, columns = (span, (window.left, window.right)) if axis == 0 else ((window.top, window.bottom), span)
            values = image[slice(*rows), slice(*columns)]
            low, high = float(values.min()), float(values.max())
            if stop - start <= WIDEST or low != high or lines.length < shares.fewest(low):
                continue
            beside = [
                n for n in range(span[0] - RIM, span[1] + RIM) if first <= n < last and not span[0] <= n < span[1]
            ]
            near = numpy.concatenate([to_host((image[n] if axis == 0 else image[:, n]).copy()) for n in beside])
            if not is_natural(near == low, shares(low)):
                found.append(Defect("area", rows, columns, value=low))
    return found


def find_areas(image: Array, window: Window, tiles: Mask, shares: ValueShares, known: list[Defect]) -> list[Defect]:
    """Find larger areas of any place and shape from the tiles that hold one value; what is `known` is left out."""
    found: list[Defect] = []
    labels, _ = ndimage.label(tiles)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[box] == number
        first = numpy.argwhere(component)[0] + [part.start for part in box]
        # The last tile of an axis ends with the image.
        y, x = (int(min(tile * TILE, n - TILE)) for tile, n in zip(first, image.shape, strict=True))
        rows, columns = (
            (max(part.start * TILE - _REACH, start), min(part.stop * TILE + _REACH, stop))
            for part, start, stop in zip(box, (window.top, window.left), (window.bottom, window.right), strict=True)
        )
        in_margin = not (rows[0] <= y < rows[1] and columns[0] <= x < columns[1])
        if component.sum() < _FEWEST_TILES or in_margin or any(_holds(defect, y, x) for defect in (*known, *found)):
            continue
        value = float(to_host(image[y : y + 1, x : x + 1].copy())[0, 0])
        equal = to_host(image[slice(*rows), slice(*columns)] == numpy.float32(value))
        regions, _ = ndimage.label(_opened(equal, shares.fewest(value)))
        mask = regions == (regions[y - rows[0], x - columns[0]] or -1)
        if shares(value) < _RARE:
            # The tips that no square fits in.
            mask = ndimage.binary_propagation(mask, mask=equal)
        found += area_of(mask, equal, (rows[0], columns[0]), value, shares, window)
    return found


def _holds(defect: Defect, y: int, x: int) -> bool:
    (top, bottom), (left, right) = defect.rows, defect.columns
    return top <= y < bottom and left <= x < right and bool(defect.mask()[y - top, x - left])


def _opened(equal: Mask, fewest: float) -> Mask:
    """Keep what a square of so many pixels fits in."""
    side = int(min(max(_OPENING, math.ceil(math.sqrt(fewest))), _LARGEST_OPENING))
    padded = numpy.pad(equal, side, mode="edge").astype(numpy.uint8)
    opened: Mask = ndimage.grey_opening(padded, size=(side, side))[side:-side, side:-side] > 0
    return opened
