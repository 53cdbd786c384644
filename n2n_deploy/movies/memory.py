"""The memory that summing a movie takes, and a gate that lets movies in while there is room."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from n2n_deploy.core.errors import HostError
from n2n_deploy.core.sizes import size_text


def memory_needed(
    shape: tuple[int, int],
    out_shape: tuple[int, int],
    itemsize: int,
    *,
    has_gain: bool,
    is_moved: bool,
    is_weighted: bool,
    is_local: bool,
) -> int:
    """Estimate the most bytes that summing one movie holds at once; the number of frames does not matter.

    Args:
        shape: (ny, nx) of the frames.
        out_shape: (ny, nx) of the sums.
        itemsize: bytes per pixel of a frame as it is read.
        has_gain: a gain reference is applied.
        is_moved: frames are shifted or weighted, and so transformed.
        is_weighted: dose weights are applied.
        is_local: local motion is undone.
    """
    pixels, out_pixels = shape[0] * shape[1], out_shape[0] * out_shape[1]
    held = 8 * (out_pixels if is_moved else pixels)  # two sums
    held += (4 + 1) * pixels * has_gain + pixels  # gain and masks
    reading = (2 * itemsize + 4) * pixels
    moving = 12 * pixels + 8 * out_pixels * (out_shape != shape)  # frame, its spectrum, and that of the transform
    if is_weighted:
        held += 8 * out_pixels  # decay, two norms, frequencies
        moving += 4 * out_pixels
    if is_local:
        moving += 8 * out_pixels
    finishing = 12 * max(out_pixels, 0 if is_moved else pixels)
    return held + max(reading, moving if is_moved else 0, finishing)


class MemoryGate:
    """Admits work while the bytes of all that is inside stay within a budget.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._inside = 0
        self._changed = threading.Condition()

    @contextmanager
    def room_for(self, needed: int, what: str) -> Iterator[None]:
        """Wait until there is room, and hold it during the block.

        Raises:
            HostError: the whole budget would not do.
        """
        if needed > self.budget:
            raise HostError(
                f"{what}: needs about {size_text(needed)} of memory, and {size_text(self.budget)} may be used; give a "
                "larger --memory, or bin with --bin 2"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._inside + needed <= self.budget)
            self._inside += needed
        try:
            yield
        finally:
            with self._changed:
                self._inside -= needed
                self._changed.notify_all()
