"""Filling areas without data: a smooth continuation of the local mean around them, which does not ring.

An area of zeros is a step, and the high-pass lets steps through: they ring over the whole frame. The means of blocks
around the area say what it would hold on average; harmonic interpolation carries them into it, without noise: noise
would be invented, and the pixels that are really missing cannot be guessed.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array, ArrayModule
from n2n_deploy.device.arrays import device_of, to_host
from n2n_deploy.device.host import HOST
from n2n_deploy.imaging.defects import Defect

_BLOCK = 16
_HALVINGS = 4
_SWEEPS = 16

_REACH = 4
_SIGMA = 3.0
"""Pixels; of the Gaussian that averages the surroundings of a dead line."""

Values = NDArray[numpy.float64]


def fill_smoothly(image: Array, mask: Array, origin: float) -> None:
    """Give masked pixels values that continue the local mean of the others.

    Args:
        image: (ny, nx) float32, changed in place.
        mask: (ny, nx) bool, pixels to fill; not all of them.
        origin: a grey level near the image's mean, which keeps the precision of its contrast.
    """
    xp = device_of(image).xp

    def block_sums(rows: slice) -> tuple[Array, Array]:
        total = xp.where(mask[rows], numpy.float32(0), image[rows] - numpy.float32(origin))
        count = (~mask[rows]).astype(xp.float32)
        for _ in range(_HALVINGS):
            total, count = halve(total), halve(count)
        return total, count

    total, count = (
        numpy.asarray(to_host(xp.concatenate(blocks)), dtype=numpy.float64)
        for blocks in map(list, zip(*device_of(image).map_rows(block_sums, image.shape, multiple=_BLOCK), strict=True))
    )
    known = count >= min(_BLOCK**2 / 4, float(count.max()))
    means = numpy.where(known, total / numpy.maximum(count, 1.0), 0.0)
    # An ice gradient goes on behind the edge of an area; harmonic functions level out there.
    plane = _plane(means, known)
    means = complete(means - plane, known) + plane + origin
    fine = upsampler(means.astype(numpy.float32), image.shape, _BLOCK, xp)

    def fill(rows: slice) -> None:
        image[rows] = xp.where(mask[rows], fine(rows), image[rows])

    device_of(image).map_rows(fill, image.shape)


def fill_lines(image: Array, lines: list[Defect]) -> None:
    """Replace dead lines in place by Gaussian means of their surroundings, along the line and on both sides of it.

    Of the ways that were measured this one is nearest to the true pixels: interpolating between the two neighbouring
    pixels copies their noise, and the mean over larger blocks loses signal.

    Args:
        image: (ny, nx) float32, changed in place; the lines themselves are not looked at.
        lines: rows and columns.
    """
    for line in lines:
        across, (start, stop), pixels = (
            (image.T, line.rows, slice(*line.columns))
            if line.kind == "row"
            else (image, line.columns, slice(*line.rows))
        )
        first, last = max(0, start - _REACH), min(across.shape[1], stop + _REACH)
        sources = [n for n in range(first, last) if not start <= n < stop]
        for number in range(start, stop):
            weights = numpy.exp(-0.5 * ((numpy.array(sources) - number) / _SIGMA) ** 2)
            weights /= weights.sum()
            parts = zip(sources, weights, strict=True)
            profile = reduce(add, (across[pixels, source] * numpy.float32(weight) for source, weight in parts))
            across[pixels, number] = _smoothed(profile)


def halve(array: Array) -> Array:
    """Sum over 2×2 blocks, the last row and column padded with zeros."""
    xp = device_of(array).xp
    ny, nx = array.shape
    if ny % 2 or nx % 2:
        array = xp.pad(array, ((0, ny % 2), (0, nx % 2)))
    array = array[::2] + array[1::2]
    return array[:, ::2] + array[:, 1::2]


def complete(values: Values, known: NDArray[numpy.bool_]) -> Values:
    """Return a small map with what is unknown interpolated harmonically: each value the mean of its four neighbours.

    From coarse to fine, a few sweeps on each scale.

    Args:
        values: (n, m).
        known: (n, m) bool; values elsewhere are not looked at.
    """
    if known.all() or not known.any():
        return values
    weights = to_host(halve(known.astype(numpy.float64)))
    coarse = to_host(halve(numpy.where(known, values, 0.0))) / numpy.maximum(weights, 1.0)
    coarse = complete(coarse, weights > 0)
    finer = upsampler(coarse, values.shape, 2, HOST.xp)(slice(None))
    filled: Values = numpy.where(known, values, to_host(finer))
    for _ in range(_SWEEPS):
        padded = numpy.pad(filled, 1, mode="edge")
        around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        filled = numpy.where(known, values, around)
    return filled


def _plane(values: Values, known: NDArray[numpy.bool_]) -> Values:
    """Return the plane that fits the known values of a map best."""
    terms = numpy.stack([numpy.ones(values.size), *(axis.ravel() for axis in numpy.indices(values.shape))], axis=1)
    inside = known.ravel()
    fit: Values = terms @ numpy.linalg.lstsq(terms[inside], values.ravel()[inside], rcond=None)[0]
    return fit.reshape(values.shape)


def upsampler(values: NDArray[Any], shape: tuple[int, int], block: int, xp: ArrayModule) -> Callable[[slice], Array]:
    """Return a function that gives rows of a map of blocks, interpolated bilinearly at the pixels.

    Args:
        values: (blocks_y, blocks_x) on the host, of aligned blocks whose last ones may reach beyond the image.
        shape: (ny, nx) of the image.
        block: pixels; side of a block.
        xp: numpy or cupy, where the rows are wanted.
    """
    (upper, lower, down), (left, right, over) = (
        _neighbours(n, count, block) for n, count in zip(shape, values.shape, strict=True)
    )
    wide = values[:, left] * (1 - over).astype(values.dtype) + values[:, right] * over.astype(values.dtype)
    wide, upper, lower, down = (xp.asarray(part) for part in (wide, upper, lower, down.astype(values.dtype)[:, None]))
    return lambda rows: wide[upper[rows]] * (1 - down[rows]) + wide[lower[rows]] * down[rows]


def _neighbours(n: int, count: int, block: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return for each pixel of an axis the blocks whose centres enclose it, and the weight of the second."""
    position = numpy.clip((numpy.arange(n) + 0.5) / block - 0.5, 0, count - 1)
    first = numpy.minimum(position.astype(numpy.int64), max(count - 2, 0))
    return first, numpy.minimum(first + 1, count - 1), position - first


def _smoothed(profile: Array) -> Array:
    """Return a line, (n,), averaged along itself with a Gaussian."""
    xp = device_of(profile).xp
    weights = numpy.exp(-0.5 * (numpy.arange(-_REACH, _REACH + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    padded: Array = xp.pad(profile, _REACH, mode="edge")
    parts = (padded[shift : shift + profile.size] * numpy.float32(weight) for shift, weight in enumerate(weights))
    return reduce(add, parts)
