"""`OutputGrid`: the size and pixel size of a restored micrograph, which may be Fourier-cropped to coarser pixels."""

from dataclasses import dataclass

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.fourier import SMALLEST

_SAME = 1e-3
"""Relative difference up to which two pixel sizes are one: tables round them."""


@dataclass(frozen=True, slots=True)
class OutputGrid:
    """Pixels of an output.

    Attributes:
        shape: (ny, nx).
        pixel_size: Å; of a cropped output the mean of both axes, which differ by less than a pixel over the whole side.
    """

    shape: tuple[int, int]
    pixel_size: float


def output_grid(shape: tuple[int, int], pixel_size: float, wanted: float | None) -> OutputGrid:
    """Return the grid on which a micrograph is written.

    The field of view stays, so the pixel size that results differs from the wanted one by up to one pixel over the
    side: each axis gets the nearest even number of pixels, which RELION and pickers need.

    Args:
        shape: (ny, nx) of the micrograph.
        pixel_size: Å, of the micrograph.
        wanted: Å, of the output; None for the micrograph's own grid.

    Raises:
        DataError: the wanted pixel size is finer than the micrograph's, or leaves hardly any pixels.
    """
    if wanted is None or abs(wanted / pixel_size - 1) < _SAME:
        return OutputGrid(shape, pixel_size)
    if wanted < pixel_size:
        raise DataError(
            f"its pixels of {pixel_size:g} Å are coarser than the output pixel size of {wanted:g} Å; "
            f"choose {pixel_size:g} Å or more"
        )
    height, width = (2 * round(n * pixel_size / wanted / 2) for n in shape)
    if min(height, width) < SMALLEST:
        raise DataError(
            f"an output pixel size of {wanted:g} Å leaves {height}×{width} pixels of its {shape[0]}×{shape[1]}; "
            "choose a smaller one"
        )
    return OutputGrid((height, width), pixel_size * (shape[0] / height + shape[1] / width) / 2)
