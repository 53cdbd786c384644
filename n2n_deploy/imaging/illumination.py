"""Uneven illumination: the edge of the beam, carbon, thick ice; and how far its halos reach.

Across such an edge the local mean makes a step, which the high-pass turns into halos beside it. What is on the dark
side cannot be made bright again, but its local mean, which the high-pass takes away anyway, can be taken away before:
then there is no step. Details finer than the blocks stay as they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.imaging.fill import complete, upsampler
from n2n_deploy.imaging.pixel_statistics import TILE, PixelStatistics

LEAST_FRACTION = 0.01
"""Of the frame; smaller areas are part of the specimen."""

_DARK = 0.5
_UNEVEN = 0.12
_LEAST_SIGMAS = 0.5
_SIGMAS_WITHOUT_LEVEL = 2.0
_POSITIVE = 3.0
_SIZE = 2.0
"""Side of the square that must fit into such an area, in units of the high-pass."""

_BLOCKS = 3
"""Per length of the high-pass."""

Map = NDArray[numpy.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Illumination:
    """An area that is much darker or brighter than the rest of the frame.

    Attributes:
        kind: "beam edge" where less than half of the electrons arrive, "uneven illumination" elsewhere.
        fraction: of the frame, without its fading edge.
        level: its grey level over that of the rest; None where the grey scale has no zero.
        area: (blocks_y, blocks_x) bool, on the host: where it is, with its edge.
        block: pixels; side of a block.
    """

    kind: Literal["beam edge", "uneven illumination"]
    fraction: float
    level: float | None
    area: NDArray[numpy.bool_]
    block: int

    def __str__(self) -> str:
        """Return a sentence about it."""
        grey = "far less" if self.level is None else f"{self.level:.0%}"
        cause = "no specimen is seen there" if self.kind == "beam edge" else "carbon, thick ice, or a crystal"
        return f"{self.fraction:.0%} of the area has {grey} of the intensity of the rest: {cause}"


def level(image: Array, statistics: PixelStatistics, highpass: float) -> tuple[Array, Illumination | None]:
    """Find areas that are much darker or brighter than the rest, and take their local mean away.

    Where the grey scale is one of counts, an eighth more or less is much; where it has no zero, two standard deviations
    of a pixel are, where there is less noise, too. A plane, which an ice gradient is, does not count, nor what is
    narrower than twice the high-pass.

    Args:
        image: (ny, nx) float32; it is not changed.
        statistics: of the image.
        highpass: pixels; the longest period that is kept.

    Returns:
        The image, a new one where there is something to level; and what was found.
    """
    tiles = max(1, round(highpass / _BLOCKS / TILE))
    size = max(2, round(_SIZE * highpass / (tiles * TILE)))
    if min(statistics.tile_mean.shape) < tiles * (size + 1):
        return image, None
    means, spread = _blocks(statistics.tile_mean, tiles), float(numpy.median(statistics.tile_std))
    normal = float(numpy.median(means))
    grey = statistics.mean + normal
    positive = grey > _POSITIVE * spread
    limit = max(_UNEVEN * grey, _LEAST_SIGMAS * spread) if positive else _SIGMAS_WITHOUT_LEVEL * spread
    if numpy.ptp(means) < limit:
        return image, None
    far = _large_areas(means - _plane(means, limit), limit, size)
    fraction = float(far.mean())
    if not LEAST_FRACTION <= fraction <= 0.5:
        return image, None
    share = (statistics.mean + float(means[far].mean())) / grey if positive else None
    noise = float(_blocks(statistics.tile_std, tiles)[far].mean()) / spread
    # Counts of fewer electrons vary less, whatever has been done to their grey scale.
    dark = share < _DARK if share is not None else noise**2 < _DARK
    if not positive and not dark:
        return image, None
    # The edge itself, too, as far as a beam's edge fades.
    affected = ndimage.binary_dilation(far, numpy.ones((3, 3), dtype=bool))
    correction = numpy.where(affected, complete(means, ~affected) - means, 0.0).astype(numpy.float32)
    xp = device_of(image).xp
    rows_of = upsampler(correction, image.shape, tiles * TILE, xp)
    levelled = device_of(image).from_rows(lambda rows: image[rows] + rows_of(rows), image.shape, xp.float32)
    kind: Literal["beam edge", "uneven illumination"] = "beam edge" if dark else "uneven illumination"
    return levelled, Illumination(kind, fraction, share, affected, tiles * TILE)


def _blocks(tiles: Map, size: int) -> Map:
    """Average a map of tiles over blocks of `size`² of them."""
    height, width = (-(-n // size) for n in tiles.shape)
    padded = numpy.pad(tiles, [(0, height * size - tiles.shape[0]), (0, width * size - tiles.shape[1])], mode="edge")
    blocks: Map = padded.reshape(height, size, width, size).mean(axis=(1, 3))
    return blocks


def _plane(means: Map, limit: float) -> Map:
    """Return the plane that fits most of a map, leaving out what is further than `limit` from it."""
    y, x = numpy.indices(means.shape)
    terms = numpy.stack([numpy.ones(means.size), y.ravel(), x.ravel()], axis=1)
    fit = numpy.full(means.size, numpy.median(means))
    for _ in range(5):
        near = abs(means.ravel() - fit) < limit
        fit = terms @ numpy.linalg.lstsq(terms[near], means.ravel()[near], rcond=None)[0]
    plane: Map = fit.reshape(means.shape)
    return plane


def _large_areas(away: Map, limit: float, size: int) -> NDArray[numpy.bool_]:
    """Return where a map is beyond the limit on one side, in areas that a square of `size` fits into, or the border."""
    large = numpy.zeros(away.shape, dtype=bool)
    for beyond in (away > limit, away < -limit):
        padded = numpy.pad(beyond, size, mode="edge").astype(numpy.uint8)
        fits = ndimage.grey_opening(padded, size=(size, size))[size:-size, size:-size] > 0
        labels, _ = ndimage.label(beyond)
        large |= numpy.isin(labels, numpy.unique(labels[fits & beyond]))
    return large & (abs(away) > limit)
