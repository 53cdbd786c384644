"""Margins that hold one value, straight ones of any width and staircases: what frames that moved leave."""

import itertools

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

Mask = NDArray[numpy.bool_]


def peel_margins(image: Array) -> tuple[Window, list[Defect]]:
    """Take constant lines off the four sides until none is left; return what is inside, and the margins."""
    top, left = 0, 0
    bottom, right = image.shape
    margins: list[Defect] = []

    def peeled(side: Side, outermost: Array) -> int:
        values = _leading_values(outermost)
        # Lines of one value are one margin.
        ends = [n for n in range(len(values) + 1) if n in (0, len(values)) or values[n] != values[n - 1]]
        for start, stop in itertools.pairwise(ends):
            rows, columns = (top, bottom), (left, right)
            if side == "top":
                rows = top + start, top + stop
            elif side == "bottom":
                rows = bottom - stop, bottom - start
            elif side == "left":
                columns = left + start, left + stop
            else:
                columns = right - stop, right - start
            margins.append(Defect("margin", rows, columns, side, values[start]))
        return len(values)

    while True:
        before = len(margins)
        top += peeled("top", image[top : min(top + _STRIP, bottom), left:right])
        bottom -= peeled("bottom", image[max(bottom - _STRIP, top) : bottom, left:right][::-1])
        left += peeled("left", image[top:bottom, left : min(left + _STRIP, right)].T)
        right -= peeled("right", image[top:bottom, max(right - _STRIP, left) : right][:, ::-1].T)
        if len(margins) == before:
            return Window(top, bottom, left, right), margins


def margins_fade(image: Array, window: Window, margins: list[Defect], shares: ValueShares) -> bool:
    """Tell whether lines inside the margins still have much of their value: the dark beyond a beam's edge."""
    inner = image[window.box]
    beside = {"top": inner[:RIM], "bottom": inner[-RIM:], "left": inner[:, :RIM], "right": inner[:, -RIM:]}
    innermost = {margin.side: margin.value for margin in margins if margin.side}
    return any(
        is_natural(to_host(beside[side] == numpy.float32(value)), shares(value)) for side, value in innermost.items()
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
    for side, border in _borders(image, window).items():
        value, length = _longest_run(border)
        if length < _SHORTEST_RUN or length < shares.fewest(value):
            continue
        rows, columns = _strip(window, side)
        equal = to_host(image[slice(*rows), slice(*columns)] == numpy.float32(value))
        outward = {"top": equal, "bottom": equal[::-1], "left": equal.T, "right": equal[:, ::-1].T}[side]
        depth = numpy.logical_and.accumulate(outward, axis=0).sum(axis=0)
        # What is deeper is no margin.
        depth[depth == len(outward)] = 0
        # Single pixels that have the value by chance make no step.
        depth = ndimage.grey_opening(depth, (_SHORTEST_RUN // 2,))
        inside = numpy.arange(len(outward))[:, None] < depth
        mask = {"top": inside, "bottom": inside[::-1], "left": inside.T, "right": inside.T[:, ::-1]}[side].copy()
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


def _borders(image: Array, window: Window) -> dict[Side, NDArray[numpy.float32]]:
    """Return the outermost lines of the window, on the host."""
    inner = image[window.box]
    return {
        "top": to_host(inner[0].copy()),
        "bottom": to_host(inner[-1].copy()),
        "left": to_host(inner[:, 0].copy()),
        "right": to_host(inner[:, -1].copy()),
    }


def _strip(window: Window, side: Side) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of the window near one side."""
    rows, columns = (window.top, window.bottom), (window.left, window.right)
    if side == "top":
        rows = window.top, min(window.top + _STRIP, window.bottom)
    elif side == "bottom":
        rows = max(window.bottom - _STRIP, window.top), window.bottom
    elif side == "left":
        columns = window.left, min(window.left + _STRIP, window.right)
    else:
        columns = max(window.right - _STRIP, window.left), window.right
    return rows, columns


def _longest_run(line: NDArray[numpy.float32]) -> tuple[float, int]:
    """Return the value and the length of the longest run of equal values."""
    starts = numpy.flatnonzero(numpy.concatenate([[True], line[1:] != line[:-1], [True]]))
    lengths = numpy.diff(starts)
    longest = int(lengths.argmax())
    return float(line[starts[longest]]), int(lengths[longest])
