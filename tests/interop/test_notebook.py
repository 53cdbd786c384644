"""`show` draws what it was given, and a notebook displays it."""

import io
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image

from n2n_deploy import DataError, show


def ramp(shape: tuple[int, int]) -> np.ndarray:
    """Values that grow along x: means over squares are known."""
    return np.broadcast_to(np.arange(shape[1], dtype=np.int16), shape).copy()


def test_panels_hold_the_images_at_their_scale() -> None:
    figure = show(ramp((1200, 2400)), ramp((600, 1200)), pixel_size=2.0)
    raw, denoised, middle, _ = (axes.images[0] for axes in figure.axes)
    values = np.asarray(raw.get_array())
    assert values.shape == (400, 800), "at most 1024 pixels: means over 3 × 3"
    np.testing.assert_allclose(values[7], 1 + 3 * np.arange(800))
    assert raw.get_extent() == pytest.approx([0.0, 480.0, 240.0, 0.0]), "nm, the first row on top"
    assert denoised.get_extent() == pytest.approx(raw.get_extent()), "coarser pixels, the same field"
    np.testing.assert_allclose(np.asarray(middle.get_array())[0, [0, -1]], [900.5, 1498.5])
    assert raw.get_clim() == pytest.approx(np.percentile(values, (0.5, 99.5)))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["raw", "denoised"]


def test_files_bring_their_pixel_size(tmp_path: Path) -> None:
    for name in ("raw.mrc", "denoised.mrc"):
        with mrcfile.new(tmp_path / name) as mrc:
            mrc.set_data(ramp((40, 60)))
            mrc.voxel_size = 2.5
    figure = show(tmp_path / "raw.mrc", str(tmp_path / "denoised.mrc"))
    assert figure.axes[0].images[0].get_extent() == pytest.approx([0.0, 15.0, 10.0, 0.0])
    assert figure.axes[0].get_xlabel() == "nm"
    assert show(ramp((40, 60)), ramp((40, 60))).axes[0].get_xlabel() == "pixels"


def test_ipython_displays_it_once_as_a_picture() -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    shown, _ = formatters.DisplayFormatter().format(show(ramp((40, 60)), ramp((40, 60))))
    assert {kind for kind in shown if kind.startswith("image/")} == {"image/png"}
    with Image.open(io.BytesIO(shown["image/png"])) as picture:
        assert min(picture.size) > 300


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"denoised: expected an image .* shape \(2, 8, 8\)"):
        show(np.zeros((8, 8)), np.zeros((2, 8, 8)))
