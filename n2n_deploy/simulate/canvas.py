"""The specimen in projection: what scatters and what absorbs, on a grid wider than the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

MARGIN = 200.0
"""Å simulated around the frame, so that its edges cut particles and nothing wraps around into it."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The projected specimen, to be drawn on.

    Attributes:
        pixel_size: Å.
        frame: (ny, nx) of the micrograph.
        margin: pixels between the canvas' first pixel and the frame's.
        scattering: (wide ny, wide nx) float32, scattering factor relative to ice at s = 0 in Å per Å².
        opacity: the same shape; the fraction exp(−opacity) of the electrons passes.
    """

    pixel_size: float
    frame: tuple[int, int]
    margin: int
    scattering: NDArray[np.float32]
    opacity: NDArray[np.float32]

    @classmethod
    def empty(cls, frame: tuple[int, int], pixel_size: float) -> "Canvas":
        """Return the canvas of plain ice around a frame of `frame` pixels."""
        margin = margin_pixels(pixel_size)
        wide = [next_fast_len(n + 2 * margin, real=True) for n in frame]
        return cls(pixel_size, frame, margin, np.zeros(wide, np.float32), np.zeros(wide, np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the canvas."""
        return self.scattering.shape[0], self.scattering.shape[1]

    @property
    def extent(self) -> NDArray[np.float64]:
        """Height and width in Å."""
        return np.array(self.shape) * self.pixel_size

    def crop(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frame's part of an image of the canvas' shape."""
        rows, columns = (slice(self.margin, self.margin + n) for n in self.frame)
        return image[rows, columns]

    def window(
        self, centre: NDArray[np.floating], reach: float
    ) -> tuple[tuple[slice, slice], NDArray[np.float64], NDArray[np.float64]]:
        """Return a square part of the canvas: its slices, and y (n, 1) and x (1, n) in Å from `centre`.

        Args:
            centre: y, x in Å from the canvas' first pixel.
            reach: Å from the centre to the window's sides; what lies outside the canvas is cut off.
        """
        pixel = self.pixel_size
        low = [max(0, int((c - reach) / pixel)) for c in centre]
        high = [min(n, max(0, int((c + reach) / pixel) + 2)) for c, n in zip(centre, self.shape, strict=True)]
        y, x = (np.arange(a, max(a, b)) * pixel - c for a, b, c in zip(low, high, centre, strict=True))
        return (slice(low[0], low[0] + y.size), slice(low[1], low[1] + x.size)), y[:, None], x[None, :]


def margin_pixels(pixel_size: float) -> int:
    """Count the pixels that are simulated on each side of the frame."""
    return int(np.ceil(MARGIN / pixel_size))
