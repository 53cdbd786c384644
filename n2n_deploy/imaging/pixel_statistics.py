"""Grey-level statistics of an image, of its lines and of its tiles, in one pass over row blocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of, to_host

TILE = 16
"""Pixels; side of a tile."""

_ROUNDING = 1e-6

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
        tile_mean: (ny//16, nx//16), relative to the image's mean, on the host.
        tile_std: (ny//16, nx//16), on the host.
        constant_tiles: bool, on the host: tiles that hold one value. Where the length of an axis is no multiple of 16,
            there is one tile more than above, and it ends with the image.
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
    xp = device_of(image).xp
    step = [max(1, n // 64) for n in image.shape]
    # Near the mean, so that the squares do not lose the contrast of an image with a large grey level.
    origin = float(image[:: step[0], :: step[1]].mean(dtype=xp.float64))

    def part(rows: slice) -> tuple[Array, ...]:
        # NumPy keeps these settings per thread. Whatever is not finite shows in the mean.
        with numpy.errstate(all="ignore"):
            low, high = image[rows].min(), image[rows].max()
            # Cast, then subtract: NumPy crashes the process where a ufunc that casts gets no memory for its buffers.
            values = image[rows].astype(xp.float64)
            values -= origin
            first = _sums(values)
            values *= values
            return low, high, *first, *_sums(values)

    parts = zip(*device_of(image).map_rows(part, image.shape, multiple=TILE), strict=True)
    lows, highs, row_sums, column_sums, tile_sums, row_squares, column_squares, tile_squares = map(list, parts)
    with numpy.errstate(all="ignore"):
        low, high = min(map(float, lows)), max(map(float, highs))
        rows, columns, tiles = (
            [to_host(each) for each in (combine(sums), combine(squares))]
            for combine, sums, squares in (
                (xp.concatenate, row_sums, row_squares),
                (sum, column_sums, column_squares),
                (xp.concatenate, tile_sums, tile_squares),
            )
        )
        offset, square = (float(sums.sum()) / image.size for sums in rows)
        tile_mean, tile_square = (sums / TILE**2 for sums in tiles)
        tile_std = numpy.sqrt(numpy.maximum(tile_square - tile_mean**2, 0.0))
        # Rounding leaves a constant tile a little of its own deviation.
        constant = (tile_std <= _ROUNDING * abs(tile_mean)).any() or not tile_std.size
        return PixelStatistics(
            mean=origin + offset,
            std=math.sqrt(max(0.0, square - offset**2)) if math.isfinite(square) else math.nan,
            low=low,
            high=high,
            rows=_line_statistics(rows, image.shape[1], offset),
            columns=_line_statistics(columns, image.shape[0], offset),
            tile_mean=tile_mean - offset,
            tile_std=tile_std,
            constant_tiles=_constant_tiles(image)
            if constant
            else numpy.zeros([-(-n // TILE) for n in image.shape], bool),
        )


def _tile_rows(image: Array, reduce: Callable[..., Array]) -> Array:
    """Reduce every 16 rows to one; the last 16 overlap those before where the height is no multiple."""
    xp = device_of(image).xp
    whole = image.shape[0] // TILE
    tiles = reduce(image[: whole * TILE].reshape(whole, TILE, image.shape[1]), axis=1)
    if image.shape[0] % TILE == 0:
        return tiles
    every: Array = xp.concatenate([tiles, reduce(image[-TILE:], axis=0)[None]])
    return every


def _constant_tiles(image: Array) -> NDArray[numpy.bool_]:
    """Return which tiles hold one value, exactly."""
    xp = device_of(image).xp

    def extremes(rows: slice) -> tuple[Array, Array]:
        with numpy.errstate(all="ignore"):
            return _tile_rows(image[rows], xp.min), _tile_rows(image[rows], xp.max)

    low, high = (
        _tile_rows(xp.ascontiguousarray(xp.concatenate(bands).T), reduce).T
        for bands, reduce in zip(
            zip(*device_of(image).map_rows(extremes, image.shape, multiple=TILE), strict=True),
            (xp.min, xp.max),
            strict=True,
        )
    )
    constant: NDArray[numpy.bool_] = to_host(low == high)
    return constant


def _sums(values: Array) -> tuple[Array, Array, Array]:
    """Return the sums of the rows, (rows,), of the columns, (nx,), and of whole tiles, (tiles, tiles_x)."""
    height, width = (n // TILE for n in values.shape)
    bands = values[: height * TILE].reshape(height, TILE, values.shape[1]).sum(axis=1)
    columns = bands.sum(axis=0)
    if values.shape[0] % TILE:
        columns += values[height * TILE :].sum(axis=0)
    tiles = bands[:, : width * TILE].reshape(height, width, TILE).sum(axis=2)
    return values.sum(axis=1), columns, tiles


def runs(flags: NDArray[numpy.bool_]) -> list[tuple[int, int]]:
    """Return where each run of set flags, (n,), begins and ends (last + 1)."""
    edges = numpy.flatnonzero(numpy.diff(numpy.concatenate([[False], flags, [False]]).astype(numpy.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _line_statistics(sums: list[NDArray[Any]], length: int, offset: float) -> LineStatistics:
    mean, square = (each / length for each in sums)
    return LineStatistics(mean - offset, numpy.sqrt(numpy.maximum(square - mean**2, 0.0)), length)
