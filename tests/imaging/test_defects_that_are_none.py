"""What looks like a defect and is none: low counts, filaments, carbon edges, saturation, gold, real micrographs."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from defective_micrograph import Image, Micrograph
from scipy import ndimage

from n2n_deploy.imaging.pixels import repair_pixels


def counts(expected: Image, seed: int = 0, dtype: str = "f4") -> Image:
    return np.random.default_rng(seed).poisson(expected).astype(dtype)


def untouched(image: Image) -> None:
    repaired, report = repair_pixels(image, 100.0)
    assert not report.defects
    assert np.array_equal(repaired, image.astype(np.float32))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "f2", "f4"])
@pytest.mark.parametrize("mean", [0.1, 0.2, 0.5, 1.0, 3.0, 30.0, 100.0])
def test_counts_of_any_dose_and_type_are_not_touched(mean: float, dtype: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(64, 600, 2))
        y, x = (axis / n - 0.5 for axis, n in zip(np.indices(shape), shape, strict=True))
        expected = mean * (1 + rng.uniform(-0.1, 0.1) * y + rng.uniform(-0.1, 0.1) * x)
        untouched(np.minimum(counts(expected, seed), 127).astype(dtype))


@pytest.mark.parametrize("mean", [0.1, 1.0, 30.0])
def test_superresolution_counts_are_not_touched(mean: float) -> None:
    image = counts(np.full((700, 800), mean))
    untouched(np.kron(image[:300, :300], np.ones((2, 2), np.float32)))
    untouched(image[:, :-1] + image[:, 1:])


@pytest.mark.parametrize("contrast", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("width", [5, 10, 20])
@pytest.mark.parametrize("centre", [0, 5, 100, 300.3])
@pytest.mark.parametrize("mean", [1.0, 30.0, 300.0])
def test_a_filament_along_an_axis_is_specimen(mean: float, centre: float, width: int, contrast: float) -> None:
    away = abs(np.arange(400) - centre)
    thickness = np.sqrt(np.clip(1 - (away / (width / 2)) ** 2, 0, 1))
    fringes = 0.3 * np.cos(2 * np.pi * (away - width / 2) / width) * np.exp(-np.clip(away - width / 2, 0, None) / width)
    profile = ndimage.gaussian_filter1d(1 - contrast * (thickness - np.where(away > width / 2, fringes, 0)), 1.0)
    image = counts(np.broadcast_to(mean * profile, (500, 400)))
    untouched(image)
    untouched(np.ascontiguousarray(image.T))


@pytest.mark.parametrize("width", [0.5, 2, 5])
@pytest.mark.parametrize("contrast", [0.1, 0.3])
def test_a_carbon_edge_along_an_axis_is_no_dead_line(width: float, contrast: float) -> None:
    x = np.arange(1000)
    profile = 1 - contrast / (1 + np.exp(np.clip((x - 400) / width, -50, 50)))
    report = repair_pixels(counts(np.broadcast_to(30 * profile, (800, 1000))), 100.0)[1]
    assert not report.defects


@pytest.mark.parametrize("limit", [40, 60, 120])
@pytest.mark.parametrize("seed", range(4))
def test_saturated_areas_are_specimen(limit: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.indices((700, 900))
    mean = np.full(y.shape, 25.0)
    for _ in range(6):
        centre, radius = (rng.uniform(0, 700), rng.uniform(0, 900)), rng.uniform(15, 90)
        mean += 150 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * radius**2))
    image = np.minimum(counts(mean, seed), limit).astype(np.uint8)
    repaired, report = repair_pixels(image)
    assert not report.defects
    assert np.array_equal(repaired, image.astype(np.float32))


def test_gold_beads_and_hot_pixels_make_no_dead_lines() -> None:
    rng = np.random.default_rng(0)
    y, x = np.indices((600, 700))
    mean = np.full(y.shape, 100.0)
    for _ in range(40):
        mean[np.hypot(y - rng.uniform(0, 600), x - rng.uniform(0, 700)) < 8] = 5
    image = counts(mean)
    image[rng.integers(0, 600, 30), rng.integers(0, 700, 30)] = 1e6
    report = repair_pixels(image)[1]
    assert not report.defects
    assert report.clipped == 30


def test_a_real_micrograph_has_no_such_defects(shared_data: Path) -> None:
    image = np.asarray(mrcfile.read(shared_data / "micrographs" / "fei-extended.mrc"))
    for part in (image, image[:1000, 200:], image[::2, ::2], (image // 16).astype(np.uint8)):
        report = repair_pixels(part, 300.0)[1]
        assert not report.defects
        assert report.illumination is None


@pytest.mark.parametrize("scale", [1.0, -1.0])
@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_simulated_micrographs_have_none_however_they_are_scaled(
    micrograph: Micrograph, scale: float, contrast: float
) -> None:
    image = scale * (micrograph.image + contrast * 10 * (micrograph.truth - micrograph.truth.mean()))
    for each in (
        image,
        image - image.mean(),
        np.clip((image - image.mean()) / image.std() * 20, -128, 127).astype(np.int8),
    ):
        repaired, report = repair_pixels(each, 100.0)
        assert not report.defects
        assert report.illumination is None
        assert np.array_equal(repaired, each.astype(np.float32))
