"""Outputs on coarser pixels: the Fourier crop of the whole restored image, by torch-fourier-rescale and by Parseval."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.output_grid import OutputGrid, output_grid
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import Merge, restore

CTF = CTFParameters(14000.0, 12500.0, 25.0, 10.0)
OPTICS = Optics(1.1, 300.0, 2.7, 0.1)
SHAPES = [(400, 400), (401, 389), (512, 300)]
MERGE = Merge(9.0, 3.0)


def _prepared(shape: tuple[int, int]) -> tuple[Prepared, NDArray[Any]]:
    """A noisy image with grey level 50, and the output of a network that halves it."""
    image = (50 + 6 * np.random.default_rng(3).standard_normal(shape)).astype(np.float32)
    prepared = preprocess(image, OPTICS, CTF, Recipe(max_resolution=4.5), keep_spectrum=True)
    return prepared, 0.5 * prepared.image


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wanted", [1.5, 2.25, 4.0, 9.0])  # finer and coarser than the network's pixels of about 2.2 Å
@pytest.mark.parametrize("merge", [None, MERGE])
@pytest.mark.parametrize("lowpass", [None, 12.0])
def test_output_is_the_fourier_crop_of_the_whole_output(
    shape: tuple[int, int], wanted: float, merge: Merge | None, lowpass: float | None
) -> None:
    rescale = pytest.importorskip("torch_fourier_rescale")
    torch = pytest.importorskip("torch")
    prepared, denoised = _prepared(shape)
    options: dict[str, Any] = {"merge": merge, "flip_back": True, "lowpass": lowpass}
    whole = restore(denoised, prepared, **options).astype(np.float64)
    ours = restore(denoised, prepared, **options, output_pixel_size=wanted)
    assert ours.dtype == np.float32
    # It centres images by shifting them, which puts odd-sized ones off by a fraction of a pixel: undo that.
    shifted = torch.from_numpy(np.fft.ifftshift(whole))
    theirs, spacing = rescale.fourier_rescale_2d(shifted, source_spacing=OPTICS.pixel_size, target_shape=ours.shape)
    found, expected = (np.fft.rfft2(image) for image in (ours, np.fft.fftshift(theirs.numpy())))
    # At Nyquist it keeps one of the two components that a crop brings together.
    height, width = ours.shape
    inside = np.ones(found.shape, dtype=bool)
    inside[height // 2], inside[:, width // 2] = False, False
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-4 * np.abs(expected[1:, 1:]).max())
    assert output_grid(shape, OPTICS.pixel_size, wanted).pixel_size == pytest.approx(np.mean(spacing))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("merge", [None, MERGE])
def test_grey_levels_stay(shape: tuple[int, int], merge: Merge | None) -> None:
    prepared, denoised = _prepared(shape)
    # The low-pass ends at 7 Å: pixels of 3 Å hold all that is left.
    options: dict[str, Any] = {"merge": merge, "lowpass": 7.5}
    whole = restore(denoised, prepared, **options).astype(np.float64)
    cropped = restore(denoised, prepared, **options, output_pixel_size=3.0).astype(np.float64)
    assert cropped.mean() == pytest.approx(whole.mean(), abs=1e-4)
    assert cropped.std() == pytest.approx(whole.std(), rel=1e-4)
    assert 2.98 < shape[0] * OPTICS.pixel_size / cropped.shape[0] < 3.02
    # Grid points that both have: the first pixel of the whole image is the first of the cropped one.
    assert cropped[0, 0] == pytest.approx(whole[0, 0], abs=1e-3)


def test_grids() -> None:
    # By hand: 4096 · 1.06 / 4 = 1085.4; 4092 · 0.83 / 4 = 849.1 and 5760 · 0.83 / 4 = 1195.2.
    assert output_grid((4096, 4096), 1.06, 4.0) == OutputGrid((1086, 1086), pytest.approx(4096 * 1.06 / 1086))
    assert output_grid((4092, 5760), 0.83, 4.0).shape == (850, 1196)
    assert output_grid((401, 389), 1.1, None) == OutputGrid((401, 389), 1.1)
    assert output_grid((401, 389), 1.1, 1.1005) == OutputGrid((401, 389), 1.1)  # rounded in the table
    for side in range(64, 90):
        for wanted in np.linspace(1.002, 1.8, 23):
            (height, width), pixel_size = (grid := output_grid((side, side), 1.0, wanted)).shape, grid.pixel_size
            assert height == width
            assert height % 2 == 0
            assert abs(height - side / wanted) <= 1 + 1e-9
            assert pixel_size == pytest.approx(side / height)
            assert height <= side


def test_finer_pixels_and_tiny_outputs_are_refused() -> None:
    with pytest.raises(DataError, match=r"pixels of 2 Å are coarser than the output pixel size of 1\.5 Å; choose 2 Å"):
        output_grid((400, 400), 2.0, 1.5)
    with pytest.raises(DataError, match="leaves 20×20 pixels"):
        output_grid((400, 400), 1.0, 20.0)
    prepared, denoised = _prepared((300, 310))
    with pytest.raises(DataError, match="coarser than the output pixel size"):
        restore(denoised, prepared, output_pixel_size=0.8)
