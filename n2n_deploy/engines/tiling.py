"""Exact tiles: an image through the network piece by piece, with the same result as in one piece.

A network's receptive field is finite. A window that reaches beyond a tile by the halo on every side gives the tile
exactly what the whole image would, if it starts on a multiple of the network's stride and if its sides are either
inside the image, where the halo hides what zero padding does to them, or the image's own edges, padded alike.
All windows of an image have one shape, so that memory, engines and work areas fit each of them.
"""

from collections.abc import Callable
from typing import NamedTuple

from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.engines.session import Session
from n2n_deploy.imaging.fourier import MULTIPLE


class Window(NamedTuple):
    """Along one axis: the pixels [start, stop) that the network sees, of which it computes [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def windows(length: int, halo: int, tile: int) -> list[Window]:
    """Cut one axis into windows of `tile` pixels that overlap by at least two halos and compute every pixel once.

    Args:
        length: pixels of the image, a multiple of 8.
        halo: pixels, a multiple of 8.
        tile: pixels of a window, a multiple of 8; `length` or more is the whole axis.

    Raises:
        UsageError: a number is no multiple of 8, or the window has nothing inside its halos.
    """
    if length % MULTIPLE or halo % MULTIPLE or tile % MULTIPLE or length <= 0:
        raise UsageError(f"length {length}, halo {halo} and tile {tile} must be multiples of {MULTIPLE} pixels")
    if tile >= length:
        return [Window(0, length, 0, length)]
    if tile <= 2 * halo:
        raise UsageError(f"a tile of {tile} pixels has nothing inside its halos of {halo}; use a larger one")
    starts = [min(start, length - tile) for start in range(0, length - 2 * halo, tile - 2 * halo)]
    edges = [0, *(start + halo for start in starts[1:]), length]
    return [
        Window(start, start + tile, first, last)
        for start, first, last in zip(starts, edges[:-1], edges[1:], strict=True)
    ]


def run_tiled(session: Session, image: Array, halo: int, tile: tuple[int, int]) -> Array:
    """Pass an image through a network in windows; the result equals the whole image's to rounding.

    Args:
        session: the network; its arrays are those of `image`.
        image: (h, w) float32, normalised, sides multiples of 8.
        halo: the network's receptive field as the manifest states it, pixels.
        tile: height and width of the windows, as `choose_tile` returns them; the image's shape is one window.

    Returns:
        (h, w) float32.

    Raises:
        UsageError: a side is no multiple of 8, or the tile has nothing inside its halos.
    """
    rows, columns = (windows(length, halo, side) for length, side in zip(image.shape, tile, strict=True))
    if len(rows) == len(columns) == 1:
        whole: Array = session.run(image[None, None])[0, 0]
        return whole
    output: Array = device_of(image).xp.empty_like(image)
    for y in rows:
        for x in columns:
            seen = image[None, None, y.start : y.stop, x.start : x.stop]
            denoised = session.run(seen.copy())[0, 0]
            output[y.first : y.last, x.first : x.last] = denoised[
                y.first - y.start : y.last - y.start, x.first - x.start : x.last - x.start
            ]
    return output


def count_tiles(shape: tuple[int, int], halo: int, tile: tuple[int, int]) -> int:
    """Return how many windows `run_tiled` passes through the network."""
    return len(windows(shape[0], halo, tile[0])) * len(windows(shape[1], halo, tile[1]))


def choose_tile(
    shape: tuple[int, int], halo: int, memory: int, requirement: Callable[[tuple[int, int]], int]
) -> tuple[int, int]:
    """Choose the windows for an image: the fewest computed pixels that stay under the memory.

    Args:
        shape: of the image, multiples of 8.
        halo: pixels, a multiple of 8.
        memory: bytes that may be taken.
        requirement: bytes that windows of a height and width take.

    Returns:
        Height and width of the windows; the image's shape where it fits whole.

    Raises:
        HostError: not even the smallest window fits; the message says how many bytes it needs.
    """

    def cost(tile: tuple[int, int]) -> tuple[int, int]:
        tiles = count_tiles(shape, halo, tile)
        return tiles * tile[0] * tile[1], tiles

    if requirement(shape) <= memory:
        return shape
    required = {tile: requirement(tile) for tile in _tiles(shape, halo)}
    fitting = [tile for tile, needed in required.items() if needed <= memory]
    if not fitting:
        raise HostError(
            f"the network needs at least {min(required.values()) / 1e6:.0f} MB for an image of {shape[0]}×{shape[1]} "
            f"pixels, {max(memory, 0) / 1e6:.0f} MB are left for it; allow more memory or run fewer lanes"
        )
    return min(fitting, key=cost)


def least_requirement(shape: tuple[int, int], halo: int, requirement: Callable[[tuple[int, int]], int]) -> int:
    """Return the bytes that an image takes with the windows that take the fewest; see `choose_tile`."""
    return min(map(requirement, _tiles(shape, halo)))


def _tiles(shape: tuple[int, int], halo: int) -> list[tuple[int, int]]:
    """Windows worth trying, from the smallest to the whole image."""
    return [(height, width) for height in _sides(shape[0], halo) for width in _sides(shape[1], halo)]


def _sides(length: int, halo: int) -> list[int]:
    """Window lengths worth trying: for each number of windows the shortest that covers the axis."""
    sides = {length}
    for count in range(2, length // MULTIPLE + 1):
        side = -(-(length + 2 * halo * (count - 1)) // (count * MULTIPLE)) * MULTIPLE
        if 2 * halo < side < length:
            sides.add(side)
    return sorted(sides)
