"""Grey-level statistics of an image, of its lines and of its tiles, in one pass over row blocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.device.arrays import Array, array_module, map_row_blocks, to_numpy

TILE = 16
"""Pixels; side of a tile. The last tiles of an axis overlap those before where its length is no multiple."""

Values = NDArray[numpy.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LineStatistics:
    """Mean and standard deviation of each row, or of each column, on the host.

    Attributes:
        mean: (lines,), relative to the image's mean.
        std: (lines,).
        length: pixels per line.
    """

    mean: Values
    std: Values
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class PixelStatistics:
    """What one pass over an image tells, in float64.

    Attributes:
        mean: of all pixels; not finite if any pixel is not.
        std: of all pixels.
        low: smallest value.
        high: largest value.
        rows: of the rows, (ny,).
        columns: of the columns, (nx,).
        tile_mean: (tiles_y, tiles_x), relative to the image's mean, on the host.
        tile_std: (tiles_y, tiles_x), on the host.
        constant_tiles: (tiles_y, tiles_x) bool, on the host: tiles that hold one value.
    """

    mean: float
    std: float
    low: float
    high: float
    rows: LineStatistics
    columns: LineStatistics
    tile_mean: Values
    tile_std: Values
    constant_tiles: NDArray[numpy.bool_]

    @property
    def constant(self) -> float:
        """Share of tiles that hold one value: black margins, dead quadrants; not sparse electron counts."""
        return float(self.constant_tiles.mean())


def pixel_statistics(image: Array) -> PixelStatistics:
    """Measure a float32 image, (ny, nx), whose pixels need not be finite."""
    xp = array_module(image)
    step = [max(1, n // 64) for n in image.shape]
    # Near the mean, so that the squares do not lose the contrast of an image with a large grey level.
    origin = float(image[:: step[0], :: step[1]].mean(dtype=xp.float64))

    def part(rows: slice) -> tuple[Array, ...]:
        # NumPy keeps these settings per thread. Whatever is not finite shows in the mean.
        with numpy.errstate(all="ignore"):
            low, high = tile_rows(image[rows], xp.min), tile_rows(image[rows], xp.max)
            # Cast, then subtract: NumPy crashes the process where a ufunc that casts gets no memory for its buffers.
            values = image[rows].astype(xp.float64)
            values -= origin
            first = _sums(values)
            values *= values
            return low, high, *first, *_sums(values)

    parts = zip(*map_row_blocks(part, image.shape, xp, multiple=TILE), strict=True)
    lows, highs, row_sums, column_sums, bands, row_squares, column_squares, band_squares = map(list, parts)
    with numpy.errstate(all="ignore"):
        low, high = _tiles(lows, xp.min), _tiles(highs, xp.max)
        extremes = float(low.min()), float(high.max())
        constant = to_numpy(low == high)
        tile_mean, tile_square = (to_numpy(_tiles(means, xp.mean)) for means in (bands, band_squares))
        rows = [to_numpy(xp.concatenate(sums)) for sums in (row_sums, row_squares)]
        columns = [to_numpy(sum(sums)) for sums in (column_sums, column_squares)]
        offset, square = (float(sums.sum()) / image.size for sums in rows)
        return PixelStatistics(
            mean=origin + offset,
            std=math.sqrt(max(0.0, square - offset**2)) if math.isfinite(square) else math.nan,
            low=extremes[0],
            high=extremes[1],
            rows=_line_statistics(rows, image.shape[1], offset),
            columns=_line_statistics(columns, image.shape[0], offset),
            tile_mean=tile_mean - offset,
            tile_std=numpy.sqrt(numpy.maximum(tile_square - tile_mean**2, 0.0)),
            constant_tiles=constant,
        )


def tile_rows(image: Array, reduce: Callable[..., Array]) -> Array:
    """Reduce every 16 rows to one; the last 16 overlap those before where the height is no multiple."""
    xp = array_module(image)
    whole = image.shape[0] // TILE
    tiles = reduce(image[: whole * TILE].reshape(whole, TILE, image.shape[1]), axis=1)
    if image.shape[0] % TILE == 0:
        return tiles
    return xp.concatenate([tiles, reduce(image[-TILE:], axis=0)[None]])


def runs(flags: NDArray[numpy.bool_]) -> list[tuple[int, int]]:
    """Return where each run of set flags, (n,), begins and ends (last + 1)."""
    edges = numpy.flatnonzero(numpy.diff(numpy.concatenate([[False], flags, [False]]).astype(numpy.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _sums(values: Array) -> tuple[Array, Array, Array]:
    """Return the sums of the rows, (rows,), those of the columns, (nx,), and the means of bands of 16 rows."""
    bands = tile_rows(values, array_module(values).mean)
    whole = values.shape[0] // TILE
    columns = TILE * bands[:whole].sum(axis=0) + values[whole * TILE :].sum(axis=0)
    return values.sum(axis=1), columns, bands


def _tiles(bands: list[Array], reduce: Callable[..., Array]) -> Array:
    """Reduce bands, (tiles_y, nx), to tiles, (tiles_y, tiles_x)."""
    xp = array_module(bands[0])
    return tile_rows(xp.ascontiguousarray(xp.concatenate(bands).T), reduce).T


def _line_statistics(sums: list[NDArray[Any]], length: int, offset: float) -> LineStatistics:
    mean, square = (each / length for each in sums)
    return LineStatistics(mean - offset, numpy.sqrt(numpy.maximum(square - mean**2, 0.0)), length)
