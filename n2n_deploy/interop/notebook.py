"""`show`: a micrograph before and after denoising, as a figure for notebooks."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.report.micrograph_axes import draw_micrograph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DETAIL = 4
"""The detail is this fraction of the sides."""

Image = NDArray[Any] | Path | str


def show(raw: Image, denoised: Image, *, pixel_size: float | None = None) -> "Figure":
    """Draw a micrograph before and after denoising: the whole of it, and its middle enlarged.

    Each panel has its own grey scale, from the 0.5th to the 99.5th percentile. A notebook shows the figure if it is the
    last value of a cell; in a script, save it with `savefig`.

    Args:
        raw: (ny, nx), or the path of an MRC file.
        denoised: likewise; it may have coarser pixels, as from `output_pixel_size`.
        pixel_size: Å, of `raw`, for a scale in nm; by default that of the file, where a path is given.

    Raises:
        DataError: a file cannot be read, or an array is not two-dimensional.
        ModuleNotFoundError: Matplotlib is not installed; the extra `report` brings it.
    """
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that notebooks show although pyplot does not know it, and so show once."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    before, scale = _read(raw, "raw")
    after, _ = _read(denoised, "denoised")
    pixel_size = pixel_size or scale
    figure = Shown(figsize=(9, 9 * before.shape[0] / before.shape[1] + 0.6), layout="constrained")
    axes = figure.subplots(2, 2)
    for column, (image, name) in enumerate(((before, "raw"), (after, "denoised"))):
        spacing = None if pixel_size is None else pixel_size * before.shape[0] / image.shape[0]
        middle = tuple(slice((n - n // _DETAIL) // 2, (n + n // _DETAIL) // 2) for n in image.shape)
        draw_micrograph(axes[0, column], image, spacing)
        draw_micrograph(axes[1, column], image[middle], spacing, pixels=512)
        axes[0, column].set_title(name)
        axes[1, column].set_title(f"{name}, the middle")
    return figure


def _read(image: Image, name: str) -> tuple[NDArray[Any], float | None]:
    """An image and, of a file, its pixel size in Å where the header has one."""
    if isinstance(image, str | Path):
        found = read_mrc(image)
        return found.data, found.header.pixel_size
    if image.ndim != 2:
        raise DataError(f"{name}: expected an image (ny, nx), not an array of shape {image.shape}")
    return image, None
