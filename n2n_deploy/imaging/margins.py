"""Margins that hold one value, straight ones of any width and staircases: what frames that moved leave."""

import itertools
from typing import TypeVar

import numpy
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.constant_values import RIM, ValueShares, area_of, is_natural
from n2n_deploy.imaging.defects import Defect, Side, Window

_STRIP = 64
"""Lines looked at at once where a margin grows; a staircase along the border is not deeper."""

_SHORTEST_RUN = 64
_SIDES: tuple[Side, ...] = ("top", "bottom", "left", "right")

Mask = NDArray[numpy.bool_]
AnyArray = TypeVar("AnyArray", bound=Array)


def peel_margins(image: Array) -> tuple[Window, list[Defect]]:
    """Take constant lines off the four sides until none is left; return what is inside, and the margins."""
    window = Window(0, image.shape[0], 0, image.shape[1])
    margins: list[Defect] = []
    while True:
        before = len(margins)
        for side in _SIDES:
            values = _leading_values(_from_side(image[window.box], side)[:_STRIP])
            # Lines of one value are one margin.
            ends = [n for n in range(len(values) + 1) if n in (0, len(values)) or values[n] != values[n - 1]]
            for start, stop in itertools.pairwise(ends):
                rows, columns = _lines(window, side, start, stop)
                margins.append(Defect("margin", rows, columns, side, values[start]))
            rows, columns = _lines(window, side, len(values), None)
            window = Window(*rows, *columns)
        if len(margins) == before:
            return window, margins


def margins_fade(image: Array, window: Window, margins: list[Defect], shares: ValueShares) -> bool:
    """Tell whether lines inside the margins still have much of their value: the dark beyond a beam's edge."""
    innermost = {margin.side: margin.value for margin in margins if margin.side}
    return any(
        is_natural(to_host(_from_side(image[window.box], side)[:RIM] == numpy.float32(value)), shares(value))
        for side, value in innermost.items()
    )


def _leading_values(lines: Array) -> list[float]:
    """Return the values of the first lines, (n, length), as far as they are constant."""
    if 0 in lines.shape or not _constant(lines[:1])[0]:
        return []
    constant = _constant(lines)
    count = len(constant) if constant.all() else int(constant.argmin())
    return [float(value) for value in to_host(lines[:count, 0].copy())]


def _constant(lines: Array) -> Mask:
    constant: Mask = to_host(lines.min(axis=1) == lines.max(axis=1))
    return constant


def find_staircases(image: Array, window: Window, shares: ValueShares, known: list[Defect]) -> list[Defect]:
    """Find shallow areas along the border whose depth changes: what frames that moved unevenly leave.

    What is `known` already is left out.
    """
    found: list[Defect] = []
    for side in _SIDES:
        value, length = _longest_run(to_host(_from_side(image[window.box], side)[0].copy()))
        if length < _SHORTEST_RUN or length < shares.fewest(value):
            continue
        rows, columns = _lines(window, side, 0, _STRIP)
        equal = to_host(image[slice(*rows), slice(*columns)] == numpy.float32(value))
        inward = _from_side(equal, side)
        depth = numpy.logical_and.accumulate(inward, axis=0).sum(axis=0)
        # What is deeper is no margin.
        depth[depth == len(inward)] = 0
        # Single pixels that have the value by chance make no step.
        depth = ndimage.grey_opening(depth, (_SHORTEST_RUN // 2,))
        mask = numpy.empty_like(equal)
        _from_side(mask, side)[...] = numpy.arange(len(inward))[:, None] < depth
        for defect in (*known, *found):
            _clear(mask, (rows[0], columns[0]), defect)
        if mask.sum() < _SHORTEST_RUN:
            continue
        found += area_of(mask, equal, (rows[0], columns[0]), value, shares, window)
    return found


def _clear(mask: Mask, corner: tuple[int, int], defect: Defect) -> None:
    """Take a defect out of a mask whose first pixel is at `corner` of the image; in place."""
    starts = [max(span[0], start) for span, start in zip((defect.rows, defect.columns), corner, strict=True)]
    stops = [
        min(span[1], start + n)
        for span, start, n in zip((defect.rows, defect.columns), corner, mask.shape, strict=True)
    ]
    if all(start < stop for start, stop in zip(starts, stops, strict=True)):
        own, theirs = (
            tuple(slice(start - first, stop - first) for start, stop, first in zip(starts, stops, origin, strict=True))
            for origin in (corner, (defect.rows[0], defect.columns[0]))
        )
        mask[own] &= ~defect.mask()[theirs]


def _from_side(image: AnyArray, side: Side) -> AnyArray:
    """Return a view of an image whose first line is the outermost one of a side."""
    lines = image.T if side in ("left", "right") else image
    return lines[::-1] if side in ("bottom", "right") else lines  # type: ignore[return-value]


def _lines(window: Window, side: Side, start: int, stop: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of lines of the window, counted from a side; all further ones if `stop` is None."""
    rows, columns = (window.top, window.bottom), (window.left, window.right)
    first, last = rows if side in ("top", "bottom") else columns
    stop = last - first if stop is None else min(stop, last - first)
    span = (first + start, first + stop) if side in ("top", "left") else (last - stop, last - start)
    return (span, columns) if side in ("top", "bottom") else (rows, span)


def _longest_run(line: NDArray[numpy.float32]) -> tuple[float, int]:
    """Return the value and the length of the longest run of equal values."""
    starts = numpy.flatnonzero(numpy.concatenate([[True], line[1:] != line[:-1], [True]]))
    lengths = numpy.diff(starts)
    longest = int(lengths.argmax())
    return float(line[starts[longest]]), int(lengths[longest])
