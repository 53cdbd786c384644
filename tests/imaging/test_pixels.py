"""Defective pixels are found, counted and replaced; ordinary micrographs, however sparse, are not touched."""

import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.pixels import repair_pixels

Image = NDArray[Any]


def _counts(mean: float | Image, shape: tuple[int, int] = (600, 500), seed: int = 0) -> Image:
    return np.random.default_rng(seed).poisson(mean, shape).astype(np.float32)


def _disc(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> Image:
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask: Image = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    return mask


@pytest.mark.parametrize("mean", [0.1, 0.5, 1.0, 5.0, 34.0, 500.0])
def test_electron_counts_are_not_touched(mean: float) -> None:
    image = _counts(mean, (1500, 1500))
    repaired, report = repair_pixels(image)
    assert repaired is image
    assert (report.bad, report.clipped) == (0, 0)


@pytest.mark.parametrize("scale", [1.0, -1.0])
@pytest.mark.parametrize("radius", [2.5, 5.0, 40.0])
def test_gold_and_carbon_are_not_touched(scale: float, radius: float) -> None:
    # 5000 e/px: gold is 70 σ darker than ice, whichever way the contrast is turned.
    mean = np.full((600, 500), 5000.0)
    mean[:, 300:] = 3500.0
    for centre in [(100, 100), (300, 290), (597, 400), (0, 0)]:
        mean[_disc(mean.shape, centre, radius)] = 1.0
    image = scale * _counts(mean)
    repaired, report = repair_pixels(image)
    assert report.clipped == 0
    assert np.array_equal(repaired, image)


def test_bright_smooth_objects_are_not_touched() -> None:
    y, x = np.ogrid[:400, :400]
    image = 1000.0 * np.exp(-((y - 200.0) ** 2 + (x - 150.0) ** 2) / (2 * 4.0**2))
    image += 0.1 * np.random.default_rng(1).standard_normal(image.shape)
    _, report = repair_pixels(image.astype(np.float32))
    assert report.clipped == 0


@pytest.mark.parametrize("mean", [0.1, 34.0])
@pytest.mark.parametrize("value", [1e6, -1e6, 1e30])
def test_one_hot_pixel_is_replaced(mean: float, value: float) -> None:
    image = _counts(mean)
    hot = image.copy()
    hot[123, 456] = value
    repaired, report = repair_pixels(hot)
    assert (report.bad, report.clipped) == (0, 1)
    assert hot[123, 456] == np.float32(value), "the caller's image is not changed"
    assert abs(repaired[123, 456] - mean) < 4 * np.sqrt(mean / 15)
    repaired[123, 456] = image[123, 456]
    assert np.array_equal(repaired, image)
    assert report.mean == pytest.approx(image.mean(dtype=np.float64), rel=1e-4)
    assert report.std == pytest.approx(image.std(dtype=np.float64), rel=1e-4)


def test_hot_clusters_are_replaced_as_pixels_and_hot_columns_as_lines() -> None:
    image = _counts(34.0)
    defects = np.zeros(image.shape, bool)
    defects[100:103, 100:103] = True
    defects[:, 200:202] = True
    defects[0, 0] = defects[-1, -1] = True
    hot = np.where(defects, np.float32(5e4), image)
    repaired, report = repair_pixels(hot)
    assert report.clipped == 9 + 2
    assert [(defect.kind, defect.columns) for defect in report.defects] == [("column", (200, 202))]
    assert np.array_equal(repaired[~defects], image[~defects])
    assert repaired[defects].max() < 34 + 6 * np.sqrt(34)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_pixels_are_replaced_by_local_values(value: float) -> None:
    # A ramp, so that only local values fit.
    image = _counts(np.linspace(100.0, 2000.0, 500)[None, :] * np.ones((600, 1)))
    bad = image.copy()
    bad[10, 20], bad[599, 499], bad[300:330, 250:280] = value, value, value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repaired, report = repair_pixels(bad)
    assert (report.bad, report.clipped) == (902, 0)
    good = np.isfinite(bad)
    assert np.array_equal(repaired[good], image[good])
    expected = np.linspace(100.0, 2000.0, 500)[None, :] * np.ones((600, 1))
    assert np.abs(repaired - expected)[~good].max() < 250


def test_bad_and_hot_pixels_together() -> None:
    image = _counts(34.0)
    image[5, 5], image[6, 6], image[300, 300] = np.nan, np.inf, 1e6
    repaired, report = repair_pixels(image)
    assert (report.bad, report.clipped) == (2, 1)
    assert np.isfinite(repaired).all()
    assert repaired.max() < 100


def test_more_than_a_small_fraction_is_refused() -> None:
    image = _counts(34.0)
    image[:, :10] = np.nan
    with pytest.raises(DataError, match=r"no signal.*2\.0%"):
        repair_pixels(image)


def _black_half(shape: tuple[int, int]) -> Image:
    image = _counts(34.0, shape)
    image[:, : shape[1] // 2] = 0
    return image


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((512, 512), np.float32),
        np.full((300, 301), 17.0, np.float32),
        np.full((300, 301), np.nan, np.float32),
        np.full((512, 512), 3, np.uint8),
        _black_half((512, 512)),
        _black_half((1023, 1001)),
        _black_half((1001, 1023)).T,
        _black_half((200, 100)),
    ],
    ids=["zeros", "constant", "nan", "constant uint8", "black half", "odd black half", "top half", "small"],
)
def test_no_signal_is_refused(image: Image) -> None:
    with pytest.raises(DataError, match="no signal"):
        repair_pixels(image)


def test_a_black_margin_is_filled_and_not_refused() -> None:
    image = _counts(34.0)
    black = image.copy()
    black[:60] = 0
    repaired, report = repair_pixels(black)
    assert np.array_equal(repaired[60:], image[60:])
    assert abs(repaired[:60] - 34).max() < 6 * np.sqrt(34) / 8
    assert not black[:60].any(), "the caller's image is not changed"
    assert report.clipped == 0
    assert report.filled == 0.1


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "u2", ">u2", "f2", ">f4", "f4", "f8", "i4"])
def test_every_type_becomes_float32_with_exact_statistics(dtype: str) -> None:
    image = _counts(34.0).astype(dtype)
    repaired, report = repair_pixels(image)
    assert repaired.dtype == np.dtype(np.float32)
    assert np.array_equal(repaired, image.astype(np.float32))
    assert report.mean == pytest.approx(image.mean(dtype=np.float64), rel=1e-12)
    assert report.std == pytest.approx(image.std(dtype=np.float64), rel=1e-9)


def test_statistics_of_a_faint_image_on_a_large_grey_level() -> None:
    image = (60000 + np.random.default_rng(0).standard_normal((700, 800))).astype(np.float32)
    _, report = repair_pixels(image)
    assert report.mean == pytest.approx(image.mean(dtype=np.float64), rel=1e-12)
    assert report.std == pytest.approx(image.std(dtype=np.float64), rel=1e-9)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 64, 64), np.float32), np.zeros((64, 64), np.complex64), np.zeros((0, 64), np.float32)],
)
def test_refuses_what_is_no_image(image: Image) -> None:
    with pytest.raises(DataError, match="2-D"):
        repair_pixels(image)


def test_of_a_real_micrograph_only_hot_pixels_are_touched(shared_data: Path) -> None:
    image = np.asarray(mrcfile.read(shared_data / "micrographs" / "fei-extended.mrc"))
    repaired, report = repair_pixels(image)
    changed = repaired != image
    assert report.bad == 0
    assert report.clipped == changed.sum() < 10
    # Eight times the mean count in one pixel is no electron statistics.
    assert (image[changed] > 8 * image.mean()).all()
    assert report.mean == pytest.approx(image.mean(dtype=np.float64), rel=1e-5)
