"""Pixels that no detector should deliver: NaN, infinite, hot; and images in which there is nothing to see."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of, moments

MAX_BAD_FRACTION = 0.01
"""Beyond this share of pixels to replace, an image is refused."""

OUTLIER_SIGMAS = 50.0
"""Counting 0.1 e/px reaches 25 σ somewhere in a frame; gold on ice, or a grid bar, √(counts per pixel)."""

_SUSPICIOUS_SIGMAS = 9.0
_TILE = 16
_MAX_CONSTANT = 0.42
"""Just under one half, because tiles across the border of a black half do not count."""

_NEIGHBOURHOOD = 7
_MAX_CROWD = 14


@dataclass(frozen=True, slots=True)
class PixelReport:
    """What was repaired.

    Attributes:
        bad: pixels that were NaN or infinite.
        clipped: isolated outliers, far beyond anything an electron image can hold.
        mean: grey level of the repaired image, in float64.
        std: its standard deviation.
    """

    bad: int
    clipped: int
    mean: float
    std: float


def repair_pixels(image: Array) -> tuple[Array, PixelReport]:
    """Return the image as float32 with its defective pixels replaced by the mean of good ones near them.

    Defective are NaN and infinite pixels, and *isolated outliers*: values more than 50 robust standard
    deviations from the median whose 7×7 neighbourhood holds at most 14 others half as far out (a hot pixel,
    a small cluster, a hot column or two; not a gold bead, a crystal of ice or a carbon edge). The robust
    standard deviation is that of the central 98 % of the pixels. Ordinary images cost their statistics, in
    float64, and no copy.

    Args:
        image: (ny, nx), any real type; it is not changed.

    Returns:
        The image, (ny, nx) float32 (the same array if it was float32 and needed no repair), and the report.

    Raises:
        DataError: not a 2-D real image; more than 1 % of the pixels are defective; or no signal: half of the
            image or more is constant.
    """
    xp = device_of(image).xp
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "buif":
        raise DataError(f"expected one 2-D image of real numbers, found {image.dtype} with shape {tuple(image.shape)}")
    with numpy.errstate(all="ignore"):
        image = xp.ascontiguousarray(image, dtype=xp.float32)
        found = _statistics(image)
        bad = clipped = 0
        defects = None
        if not numpy.isfinite(found.mean):
            defects = ~xp.isfinite(image)
            bad = int(defects.sum())
            _check_fraction(bad, image.size, "NaN or infinite")
            image = _replace(image, defects)
            found = _statistics(image)
        if max(found.high - found.mean, found.mean - found.low) > _SUSPICIOUS_SIGMAS * found.std:
            outliers = _isolated_outliers(image)
            clipped = int(outliers.sum())
            if clipped:
                _check_fraction(bad + clipped, image.size, "defective")
                image = _replace(image, outliers if defects is None else outliers | defects)
                found = _statistics(image)
    if not found.std > 0 or found.constant > _MAX_CONSTANT:
        raise DataError(
            f"no signal: {found.constant:.0%} of the image holds one value only (mean {found.mean:g}, "
            f"standard deviation {found.std:g}); expected a micrograph"
        )
    return image, PixelReport(bad, clipped, found.mean, found.std)


@dataclass(frozen=True, slots=True)
class _Statistics:
    mean: float
    std: float
    low: float
    high: float
    constant: float
    """Share of 16×16 tiles that hold one value: black margins, dead quadrants; not sparse electron counts."""


def _statistics(image: Array) -> _Statistics:
    """Mean and standard deviation in float64, the extremes, and how much of the image is constant."""
    device = device_of(image)
    xp = device.xp
    step = [max(1, n // 64) for n in image.shape]
    # Near the mean, so that the squares do not lose the contrast of an image with a large grey level.
    origin = float(image[:: step[0], :: step[1]].mean(dtype=xp.float64))

    def part(rows: slice) -> tuple[float, float, Array, Array]:
        # NumPy keeps these settings per thread. Whatever is not finite shows in the mean.
        with numpy.errstate(all="ignore"):
            low, high = _tile_rows(image[rows], xp.min), _tile_rows(image[rows], xp.max)
            return *moments(image[rows], origin), low, high

    totals, squares, lows, highs = zip(*device.map_rows(part, image.shape, multiple=_TILE), strict=True)
    low, high = (
        _tile_rows(xp.ascontiguousarray(xp.concatenate(tiles).T), reduce)
        for tiles, reduce in ((lows, xp.min), (highs, xp.max))
    )
    mean = sum(totals) / image.size
    return _Statistics(
        mean=origin + mean,
        std=math.sqrt(max(0.0, sum(squares) / image.size - mean**2)),
        low=float(low.min()),
        high=float(high.max()),
        constant=float((low == high).mean()),
    )


def _tile_rows(image: Array, reduce: Callable[..., Array]) -> Array:
    """Reduce every 16 rows to one; the last 16 overlap those before where the height is no multiple."""
    xp = device_of(image).xp
    whole = image.shape[0] // _TILE
    tiles = reduce(image[: whole * _TILE].reshape(whole, _TILE, image.shape[1]), axis=1)
    if image.shape[0] % _TILE == 0:
        return tiles
    every: Array = xp.concatenate([tiles, reduce(image[-_TILE:], axis=0)[None]])
    return every


def _check_fraction(count: int, size: int, kind: str) -> None:
    if count > MAX_BAD_FRACTION * size:
        raise DataError(
            f"no signal to trust: {count} of {size} pixels ({count / size:.1%}) are {kind}; "
            f"up to {MAX_BAD_FRACTION:.0%} are repaired"
        )


def _isolated_outliers(image: Array) -> Array:
    """Mask of the pixels far outside the distribution with few neighbours like them."""
    xp = device_of(image).xp
    step = max(1, int((image.size / (1 << 18)) ** 0.5))
    sample = image[::step, ::step].astype(xp.float64).ravel()
    first, centre, last = (float(value) for value in xp.percentile(sample, xp.asarray([1.0, 50.0, 99.0])))
    sigma = float(sample[(sample >= first) & (sample <= last)].std())
    if not sigma > 0:
        sigma = float(image.std(dtype=xp.float64))
    distance = xp.abs(image - numpy.float32(centre))
    outliers: Array = distance > OUTLIER_SIGMAS * sigma
    if bool(outliers.any()):
        crowd = _box_sum(distance > 0.5 * OUTLIER_SIGMAS * sigma)
        outliers &= crowd <= _MAX_CROWD + 1
    return outliers


def _box_sum(mask: Array) -> Array:
    """Count of the set pixels in the neighbourhood of each pixel."""
    xp = device_of(mask).xp
    half = _NEIGHBOURHOOD // 2
    ny, nx = mask.shape
    padded: Array = xp.pad(mask.astype(xp.uint8), half)
    rows = sum(padded[shift : shift + ny] for shift in range(1, _NEIGHBOURHOOD)) + padded[:ny]
    return sum(rows[:, shift : shift + nx] for shift in range(1, _NEIGHBOURHOOD)) + rows[:, :nx]


def _replace(image: Array, defects: Array) -> Array:
    """Copy the image with each defect replaced by the mean of the good pixels in a block around it.

    Of aligned blocks of 4×4, 8×8, … pixels it is the first of which at least a quarter is good.
    """
    xp = device_of(image).xp
    repaired: Array = xp.where(defects, numpy.float32(0), image)
    rows, columns = xp.nonzero(defects)
    values = xp.full(rows.shape, xp.nan)
    total, count, block = repaired, (~defects).astype(xp.uint8), 1
    while bool(xp.isnan(values).any()):
        block *= 2
        total, count = _halve(total), _halve(count).astype(xp.float32)
        if block == 2:
            continue
        good = count[rows // block, columns // block]
        local = total[rows // block, columns // block] / xp.maximum(good, 1.0)
        enough = good >= min(block * block, image.size) / 4
        values = xp.where(xp.isnan(values) & enough, local, values)
    repaired[rows, columns] = values
    return repaired


def _halve(array: Array) -> Array:
    """Sum over 2×2 blocks, the last row and column padded with zeros."""
    xp = device_of(array).xp
    ny, nx = array.shape
    array = xp.pad(array, ((0, ny % 2), (0, nx % 2)))
    array = array[::2] + array[1::2]
    return array[:, ::2] + array[:, 1::2]
