"""A small EER encoder: electron events to BigTIFF pages, as Guo et al. (IUCrJ 7, 2020) and Thermo Fisher describe them.

Each event is stored as the number of pixels since the last one, then two bits of x and two of y within the pixel, each
with its high bit flipped; bits fill bytes from the lowest. The largest number that fits means that no event follows
yet: with 7 bits the next number comes at once, with 8 bits after an unused position.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Events = npt.NDArray[np.integer]
"""(n, 2) y, x on the grid of quarter pixels, at most one in each pixel."""

_FIXED, _SEVEN, _VARIABLE = 65000, 65001, 65002


def write_eer(path: Path, frames: Sequence[Events], shape: tuple[int, int], codec: int = _SEVEN) -> Path:
    """Write an EER movie.

    Args:
        path: the file.
        frames: events of each frame.
        shape: (ny, nx) pixels of the detector.
        codec: 65000 (8 bits), 65001 (7 bits) or 65002 (here 6 bits, stated in the tags).
    """
    bits = {_FIXED: 8, _SEVEN: 7, _VARIABLE: 6}[codec]
    content = bytearray(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
    pointer = 8
    for events in frames:
        data = encode(events, shape, bits, has_unused=codec == _FIXED)
        strip = len(content)
        content += data + bytes(-len(data) % 8)
        tags = [(256, 4, shape[1]), (257, 4, shape[0]), (258, 3, 8), (259, 3, codec), (262, 3, 1)]
        tags += [(273, 16, strip), (277, 3, 1), (278, 4, shape[0]), (279, 16, len(data) + -len(data) % 8)]
        if codec == _VARIABLE:
            tags += [(65007, 3, bits), (65008, 3, 2), (65009, 3, 2)]
        struct.pack_into("<Q", content, pointer, len(content))
        content += struct.pack("<Q", len(tags))
        for tag, kind, value in tags:
            content += struct.pack("<HHQQ", tag, kind, 1, value)
        pointer = len(content)
        content += struct.pack("<Q", 0)
    path.write_bytes(content)
    return path


def encode(events: Events, shape: tuple[int, int], bits: int, *, has_unused: bool) -> bytes:
    """The bit stream of one frame, which ends with the pixels after the last event."""
    ny, nx = shape
    y, x = events.T
    order = np.argsort((y // 4) * nx + x // 4)
    most = (1 << bits) - 1
    fields: list[tuple[int, int]] = []

    def skip(count: int) -> int:
        while count >= most:
            fields.append((most, bits))
            if has_unused:
                fields.append((0, 4))
            count -= most
        return count

    next_pixel = 0
    for row, column in events[order]:
        pixel = int(row // 4 * nx + column // 4)
        fields.append((skip(pixel - next_pixel), bits))
        fields.append((int((column % 4 ^ 2) | (row % 4 ^ 2) << 2), 4))
        next_pixel = pixel + 1
    fields.append((skip(ny * nx - next_pixel), bits))
    digits = "".join(f"{value:0{width}b}"[::-1] for value, width in fields)
    return int(digits[::-1], 2).to_bytes((len(digits) + 7) // 8, "little")


def random_events(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Events:
    """Events in different pixels, at random places within them."""
    pixels = rng.choice(shape[0] * shape[1], count, replace=False)
    within = rng.integers(0, 4, (count, 2))
    return np.stack([pixels // shape[1], pixels % shape[1]], axis=1) * 4 + within


def counts(frames: Sequence[Events], shape: tuple[int, int], upsampling: int = 1) -> npt.NDArray[np.integer]:
    """The truth: electrons in each pixel, or half pixel, of all frames together."""
    total = np.zeros((shape[0] * upsampling, shape[1] * upsampling), np.int64)
    for events in frames:
        y, x = (events * upsampling // 4).T
        np.add.at(total, (y, x), 1)
    return total
