"""A micrograph drawn into Matplotlib axes: averaged to what a figure can show, grey by percentiles, scale in nm."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PERCENTILES = (0.5, 99.5)


def draw_micrograph(axes: "Axes", image: NDArray[Any], pixel_size: float | None, *, pixels: int = 1024) -> None:
    """Draw an image with the first row on top.

    Args:
        axes: to draw into.
        image: (ny, nx).
        pixel_size: Å, for a scale in nm; None for one in pixels.
        pixels: of the longer side at most; larger images are averaged over squares.
    """
    factor = math.ceil(max(image.shape) / pixels)
    binned = _binned(image, factor)
    low, high = np.percentile(binned, _PERCENTILES)
    unit = factor * (1.0 if pixel_size is None else pixel_size / 10)
    extent = (0.0, binned.shape[1] * unit, binned.shape[0] * unit, 0.0)
    axes.imshow(binned, cmap="gray", vmin=low, vmax=high, extent=extent)
    axes.set_xlabel("pixels" if pixel_size is None else "nm")


def _binned(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means of factor × factor pixels."""
    ny, nx = (side // factor * factor for side in image.shape)
    blocks = image[:ny, :nx].reshape(ny // factor, factor, nx // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64))
