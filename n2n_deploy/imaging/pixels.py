"""Repair of what no detector should deliver, and refusal of images in which there is nothing to see."""

from dataclasses import dataclass

import numpy

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.imaging.constant_areas import find_constant_areas
from n2n_deploy.imaging.dead_lines import find_dead_lines
from n2n_deploy.imaging.defects import Defect, mask_of
from n2n_deploy.imaging.fill import fill_lines, fill_smoothly, halve
from n2n_deploy.imaging.illumination import Illumination, level
from n2n_deploy.imaging.pixel_statistics import PixelStatistics, pixel_statistics

MAX_BAD_FRACTION = 0.01
"""Beyond this share of pixels to replace, an image is refused."""

OUTLIER_SIGMAS = 50.0
"""Counting 0.1 e/px reaches 25 σ somewhere in a frame; gold on ice, or a grid bar, √(counts per pixel)."""

_SUSPICIOUS_SIGMAS = 9.0
_ABSURD_SIGMAS = 1e5
_PASSES = 4
MAX_CONSTANT = 0.42
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
        defects: dead lines, and what holds one value; filled with local values.
        filled: share of the image's pixels in them.
        illumination: what is much darker or brighter than the rest; None where nothing is, or nobody asked.
    """

    bad: int
    clipped: int
    mean: float
    std: float
    defects: tuple[Defect, ...] = ()
    filled: float = 0.0
    illumination: Illumination | None = None


def repair_pixels(image: Array, highpass: float | None = None) -> tuple[Array, PixelReport]:
    """Return the image as float32 with its defective pixels replaced by local values.

    Defective are, in this order:

    * NaN and infinite pixels;
    * areas that hold one value, such as the margins of motion correction and dead modules (`find_constant_areas`);
    * dead and hot rows and columns (`find_dead_lines`);
    * *isolated outliers*: values more than 50 robust standard deviations from the median whose 7×7 neighbourhood
      holds at most 14 others half as far out (a hot pixel, a small cluster; not a gold bead, a crystal of ice or a
      carbon edge). The robust standard deviation is that of the central 98 % of the pixels.

    Ordinary images cost their statistics, in float64, and no copy.

    Args:
        image: (ny, nx), any real type; it is not changed.
        highpass: pixels; the longest period that will be kept of the image. Where it is given, areas that are much
            darker or brighter than the rest lose their local mean, so that they make no halos (`level`).

    Returns:
        The image, (ny, nx) float32 (the same array if it was float32 and needed no repair), and the report.

    Raises:
        DataError: not a 2-D real image; more than 1 % of the pixels are defective by themselves; or no signal: half
            of the image or more is constant.
    """
    xp = device_of(image).xp
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "buif":
        raise DataError(f"expected one 2-D image of real numbers, found {image.dtype} with shape {tuple(image.shape)}")
    with numpy.errstate(all="ignore"):
        converted = image.dtype != xp.float32
        image = xp.ascontiguousarray(image, dtype=xp.float32)
        found = pixel_statistics(image)
        bad = clipped = 0
        single = None
        if not numpy.isfinite(found.mean):
            single = ~xp.isfinite(image)
            bad = int(single.sum())
            _check_fraction(bad, image.size, "NaN or infinite")
            image = _replace(image, single)
            found = pixel_statistics(image)
        _check_signal(found)
        if _farthest(found) > _ABSURD_SIGMAS * float(numpy.median(found.rows.std)):
            # Beside such values, the sums over lines have no precision left.
            image, found, single, clipped = _without_outliers(image, found, single, bad)
        image, found, defects, filled = _without_defects(image, found, in_place=converted or single is not None)
        if _farthest(found) > _SUSPICIOUS_SIGMAS * found.std:
            image, found, single, more = _without_outliers(image, found, single, bad + clipped)
            clipped += more
        illumination = None
        if highpass is not None:
            image, illumination = level(image, found, highpass)
    return image, PixelReport(bad, clipped, found.mean, found.std, defects, filled, illumination)


def _without_defects(
    image: Array, found: PixelStatistics, *, in_place: bool
) -> tuple[Array, PixelStatistics, tuple[Defect, ...], float]:
    """Fill areas that hold one value, and then dead lines, until there are none; return the share of pixels filled."""
    defects: tuple[Defect, ...] = ()
    filled = 0.0
    for _ in range(_PASSES):
        more = find_constant_areas(image, found) or find_dead_lines(image, found)
        if not more:
            break
        if not (defects or in_place):
            image = image.copy()
        defects += tuple(more)
        mask = mask_of(defects, image.shape, image)
        filled = float(mask.mean())
        if filled > MAX_CONSTANT:
            raise DataError(
                f"no signal to trust: {filled:.0%} of the image are dead; up to {MAX_CONSTANT:.0%} are filled"
            )
        fill_smoothly(image, mask, found.mean)
        fill_lines(image, [line for line in defects if not line.kept])
        found = pixel_statistics(image)
    return image, found, defects, filled


def _without_outliers(
    image: Array, found: PixelStatistics, known: Array | None, count: int
) -> tuple[Array, PixelStatistics, Array | None, int]:
    """Replace isolated outliers; return the image, its statistics, the mask of all that was replaced, how many are new.

    Args:
        image: (ny, nx).
        found: its statistics.
        known: pixels that were replaced before.
        count: how many those are.
    """
    outliers = _isolated_outliers(image)
    clipped = int(outliers.sum())
    if not clipped:
        return image, found, known, 0
    _check_fraction(count + clipped, image.size, "defective")
    mask = outliers if known is None else outliers | known
    image = _replace(image, mask)
    return image, pixel_statistics(image), mask, clipped


def _farthest(found: PixelStatistics) -> float:
    return max(found.high - found.mean, found.mean - found.low)


def _check_signal(found: PixelStatistics) -> None:
    if not found.std > 0 or found.constant > MAX_CONSTANT:
        raise DataError(
            f"no signal: {found.constant:.0%} of the image holds one value only (mean {found.mean:g}, "
            f"standard deviation {found.std:g}); expected a micrograph"
        )


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
        total, count = halve(total), halve(count).astype(xp.float32)
        if block == 2:
            continue
        good = count[rows // block, columns // block]
        local = total[rows // block, columns // block] / xp.maximum(good, 1.0)
        enough = good >= min(block * block, image.size) / 4
        values = xp.where(xp.isnan(values) & enough, local, values)
    repaired[rows, columns] = values
    return repaired
