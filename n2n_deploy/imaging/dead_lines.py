"""Finding dead and hot lines: rows and columns whose mean or spread stands out from that of the lines beside them.

The mean over the n pixels of a line varies by σ/√n, so that a line that is off by half of one pixel's σ stands out by
far. So does whatever is narrow and happens to lie along an axis; but the specimen, seen through a microscope, is smooth
over several pixels, and a dead line is not: the lines next to it are as they should be.
"""

import itertools
from typing import Literal

import numpy
from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.defects import Defect
from n2n_deploy.imaging.pixel_statistics import LineStatistics, PixelStatistics, runs

WIDEST = 3
"""Lines side by side; what is wider may be specimen."""

_NEIGHBOURS = 9
_SIGMAS = 40.0
"""Of the noise of a line: so far out, its neighbours tell a sharp line from the flank of something smooth."""

_LEAST_SHIFT = 0.5
_LEAST_SPREAD = 1.0
"""In standard deviations of a pixel: what is less changes no result by more than 0.02 of its standard deviation."""

_BESIDE = 3
_SHARP = 0.1
"""Of a dead line's deviation; by less the lines beside it must differ."""

_LONGEST_SEGMENT = 64
_FEW = 4
"""Pixels of a segment that single defects may spoil: a cluster of hot pixels is a few pixels long."""

_SHARE = 1 / 8
_WHOLE = 0.75
_MOST = 1 / 32

Values = NDArray[numpy.float64]


def find_dead_lines(image: Array, statistics: PixelStatistics) -> list[Defect]:
    """Return rows and columns, up to three side by side, that are dead, hot or noisy over an eighth of them or more.

    Args:
        image: (ny, nx) float32, finite.
        statistics: of the image.
    """
    found: list[Defect] = []
    kinds: tuple[Literal["row", "column"], ...] = ("row", "column")
    for kind, lines in zip(kinds, (statistics.rows, statistics.columns), strict=True):
        for start, stop in _candidates(lines):
            across = image.T if kind == "row" else image
            for pixels in _confirmed(across, start, stop):
                rows, columns = ((start, stop), pixels) if kind == "row" else (pixels, (start, stop))
                found.append(Defect(kind, rows, columns))
    return found


def _candidates(lines: LineStatistics) -> list[tuple[int, int]]:
    """Return groups of lines that stand out sharply."""
    if len(lines.mean) < 2 * _NEIGHBOURS:
        return []
    sigma = float(numpy.median(lines.std))
    usual = _running_median(lines.std)
    # Not in the dark, where others have no counts either.
    dead = (lines.std <= 1e-6 * sigma) & (usual > sigma / 2)
    constant = [run for run in runs(dead) if run[1] - run[0] <= WIDEST]
    groups: list[tuple[int, int]] = []
    for start, stop in (
        *_sharp_groups(lines.mean, _LEAST_SHIFT * sigma),
        *_sharp_groups(lines.std, _LEAST_SPREAD * sigma),
        *constant,
    ):
        if not any(start < other[1] and other[0] < stop for other in groups):
            groups.append((start, stop))
    # So many are no defects: lines are what the image is made of.
    return groups if sum(stop - start for start, stop in groups) <= max(WIDEST, _MOST * len(usual)) else []


def _running_median(values: Values) -> Values:
    """Median of the nine lines around each; at the borders, of the outermost nine."""
    windows = numpy.lib.stride_tricks.sliding_window_view(values, _NEIGHBOURS)
    middle = numpy.sort(windows, axis=1)[:, _NEIGHBOURS // 2]
    half = _NEIGHBOURS // 2
    return numpy.concatenate([numpy.full(half, middle[0]), middle, numpy.full(half, middle[-1])])


def _sharp_groups(values: Values, least: float) -> list[tuple[int, int]]:
    """Return groups of up to three lines far from the others, between lines that are like each other.

    Args:
        values: (lines,).
        least: how far is far.
    """
    deviation = abs(values - _running_median(values))
    noise = 1.4826 * float(numpy.median(deviation))
    limit = max(_SIGMAS * noise, least)
    groups = []
    for start, stop in runs(deviation > limit):
        above = _BESIDE if stop + _BESIDE <= len(values) else 2 * _BESIDE
        below = _BESIDE if start >= _BESIDE else 2 * _BESIDE
        beside = numpy.concatenate([values[max(0, start - above) : start], values[stop : stop + below]])
        level = numpy.median(beside)
        # One of them may be dead itself.
        unlike = numpy.sort(abs(beside - level))[-2]
        if stop - start <= WIDEST and unlike < _SHARP * abs(values[start:stop] - level).min():
            groups.append((start, stop))
    return groups


def _confirmed(across: Array, start: int, stop: int) -> list[tuple[int, int]]:
    """Return which pixels of a candidate are defective: all of them, a part of an eighth at least, or none.

    A hot pixel or a gold bead moves a line's mean too, but in one or two of its segments; and a few pixels do not move
    the trimmed mean of a segment.

    Args:
        across: (length, lines) view of the image.
        start: first line.
        stop: last line + 1.
    """
    length, count = across.shape
    first, last = max(0, start - _NEIGHBOURS), min(count, stop + _NEIGHBOURS)
    strip = to_host(across[:, first:last].copy()).astype(numpy.float64)
    segments = min(max(length // _LONGEST_SEGMENT, 8), 32)
    edges = numpy.linspace(0, length, segments + 1).astype(int)
    pieces = [_trimmed(strip[top:bottom]) for top, bottom in itertools.pairwise(edges)]
    inside = numpy.zeros(last - first, dtype=bool)
    inside[start - first : stop - first] = True
    means, spreads = (numpy.array([getattr(part, name)(axis=0) for part in pieces]) for name in ("mean", "std"))
    sigma = numpy.median(spreads[:, ~inside], axis=1)
    # The mean of a few pixels varies by itself.
    noise = 4 * sigma * (segments / length) ** 0.5
    hits = _away(means, inside, numpy.maximum(_LEAST_SHIFT / 2 * sigma, noise))
    hits |= _away(spreads, inside, numpy.maximum(_LEAST_SPREAD / 2 * sigma, noise))
    if hits.mean() >= _WHOLE:
        return [(0, length)]
    parts = runs(hits)
    # Several parts, or a short one, are something else that lies there.
    return [(int(edges[a]), int(edges[b])) for a, b in parts if len(parts) == 1 and b - a >= max(3, _SHARE * segments)]


def _trimmed(segment: Values) -> Values:
    """Return a segment, (pixels, lines), without the few highest and lowest pixels of each line."""
    few = min(_FEW, (len(segment) - 1) // 4)
    return numpy.sort(segment, axis=0)[few : len(segment) - few]


def _away(values: Values, inside: NDArray[numpy.bool_], least: Values) -> NDArray[numpy.bool_]:
    """Tell the segments in which all lines inside a group are off, in the direction in which most are.

    Args:
        values: (segments, lines).
        inside: (lines,), those of the group.
        least: (segments,), how far is off.
    """
    shift = values[:, inside] - numpy.median(values[:, ~inside], axis=1)[:, None]
    up: NDArray[numpy.bool_] = numpy.all(shift > least[:, None], axis=1)
    down: NDArray[numpy.bool_] = numpy.all(-shift > least[:, None], axis=1)
    return up if up.sum() >= down.sum() else down
