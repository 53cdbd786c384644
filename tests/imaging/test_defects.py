"""Dead lines, constant margins and dead modules against the same image without them; and what must not be touched."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.defects import describe
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import Merge, restore
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.simulate.dataset import simulate

Image = NDArray[Any]
Mask = NDArray[np.bool_]

GUARD = 40.0
"""Å from a defect: where its change is measured. Nearer, the pixels that are missing are missing in the result, too."""

ALLOWED = 0.02
"""Of the signal's standard deviation."""

PLAIN, FLIPPED = Recipe(phase_flip=False), Recipe()


@dataclass(frozen=True)
class Micrograph:
    """A simulated micrograph, its noiseless truth and how it was taken."""

    image: Image
    truth: Image
    optics: Optics
    ctf: CTFParameters

    def prepare(self, image: Image, recipe: Recipe = PLAIN, *, merge: bool = False) -> Prepared:
        return preprocess(image, self.optics, self.ctf, recipe, keep_spectrum=merge)

    def denoise(self, image: Image, recipe: Recipe = PLAIN) -> Image:
        """Through all of the pipeline; the network is a narrow Gaussian, so that what rings is not hidden."""
        prepared = self.prepare(image, recipe)
        result: Image = restore(ndimage.gaussian_filter(prepared.image, 0.4), prepared)
        return result

    def change(self, image: Image, defect: Mask, recipe: Recipe = PLAIN, guard: float = GUARD) -> float:
        """RMS change at some distance from a defect, relative to the signal's standard deviation.

        Distances are those of the periodic image that a Fourier transform sees.
        """
        difference = self.denoise(image, recipe) - self.denoise(self.image, recipe)
        ny, nx = defect.shape
        distance = ndimage.distance_transform_edt(np.tile(~defect, (3, 3)))[ny : 2 * ny, nx : 2 * nx]
        elsewhere = difference[distance * self.optics.pixel_size > guard]
        return float(np.sqrt(np.mean(elsewhere**2)) / self.denoise(self.truth, recipe).std())


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> Micrograph:
    """1024×768 pixels of 2 Å."""
    folder = tmp_path_factory.mktemp("simulated")
    found = read_micrographs(simulate(folder, micrographs=1, size=(768, 1024), pixel_size=2.0)).micrographs[0]
    image, truth = (np.asarray(mrcfile.read(path)) for path in (found.path, folder / "truth" / "mic_0001.mrc"))
    assert found.ctf is not None
    return Micrograph(image.astype(np.float32), truth, found.optics, found.ctf)


def mask(micrograph: Micrograph, *areas: tuple[Any, Any]) -> Mask:
    defect = np.zeros(micrograph.image.shape, dtype=bool)
    for area in areas:
        defect[area] = True
    return defect


def found_in(image: Image) -> str:
    repaired, kept = describe(repair_pixels(image, 100.0)[1].defects)
    return "; ".join(repaired + kept)


EVERYTHING = slice(None)
MARGINS: dict[str, tuple[list[tuple[Any, Any]], str]] = {
    **{
        f"{width} at the {side}": ([area], f"a constant margin of {width} px at the {side}")
        for width in (1, 2, 4, 16, 64)
        for side, area in {
            "top": (slice(0, width), EVERYTHING),
            "bottom": (slice(-width, None), EVERYTHING),
            "left": (EVERYTHING, slice(0, width)),
            "right": (EVERYTHING, slice(-width, None)),
        }.items()
    },
    **{
        f"frame of {width}": (
            [
                (slice(0, width), EVERYTHING),
                (slice(-width, None), EVERYTHING),
                (EVERYTHING, slice(0, width)),
                (EVERYTHING, slice(-width, None)),
            ],
            f"a constant margin of {width} px at the top, bottom, left and right",
        )
        for width in (1, 4, 16, 32, 64)
    },
    "each side its own": (
        [
            (slice(0, 5), EVERYTHING),
            (slice(-33, None), EVERYTHING),
            (EVERYTHING, slice(0, 17)),
            (EVERYTHING, slice(-2, None)),
        ],
        "a constant margin of 5 px at the top; a constant margin of 33 px at the bottom; "
        "a constant margin of 17 px at the left; a constant margin of 2 px at the right",
    ),
}


@pytest.mark.parametrize("name", MARGINS)
def test_a_constant_margin_changes_nothing_elsewhere_and_keeps_its_value(micrograph: Micrograph, name: str) -> None:
    areas, described = MARGINS[name]
    defect = mask(micrograph, *areas)
    image = np.where(defect, np.float32(0), micrograph.image)
    assert found_in(image) == described
    assert micrograph.change(image, defect) < ALLOWED
    assert (micrograph.denoise(image)[defect] == 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0, 10.0])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("kind", ["column", "row"])
def test_a_dead_line_is_replaced(micrograph: Micrograph, kind: str, width: int, value: float) -> None:
    area = (EVERYTHING, slice(400, 400 + width)) if kind == "column" else (slice(333, 333 + width), EVERYTHING)
    defect = mask(micrograph, area)
    # Zero, a constant, and a line that is ten times too hot but not constant.
    dead = 10 * micrograph.image if value == 10 else np.float32(value)
    image = np.where(defect, dead, micrograph.image).astype(np.float32)
    assert found_in(image) == f"{width} dead {kind}{'s' if width > 1 else ''}"
    assert micrograph.change(image, defect) < ALLOWED / 4
    # In the output the line is repaired: no further from the truth than the good image is.
    truth = micrograph.denoise(micrograph.truth)[defect]
    errors = [np.square(micrograph.denoise(each)[defect] - truth).mean() for each in (image, micrograph.image)]
    assert errors[0] < 1.1 * errors[1]


def test_lines_beside_and_across_each_other_are_replaced(micrograph: Micrograph) -> None:
    defect = mask(micrograph, (EVERYTHING, [100, 104, 700]), (slice(300, 302), EVERYTHING))
    image = np.where(defect, np.float32(0), micrograph.image)
    assert found_in(image) == "2 dead rows; 3 dead columns"
    assert micrograph.change(image, defect) < ALLOWED / 4


def test_half_a_column_is_replaced_and_the_other_half_is_not(micrograph: Micrograph) -> None:
    defect = mask(micrograph, (slice(0, 384), slice(400, 401)))
    repaired, report = repair_pixels(np.where(defect, np.float32(0), micrograph.image))
    assert [(line.kind, line.rows, line.columns) for line in report.defects] == [("column", (0, 384), (400, 401))]
    assert np.array_equal(repaired[~defect], micrograph.image[~defect])


def test_the_repair_of_a_line_is_near_to_its_true_pixels(micrograph: Micrograph) -> None:
    # Nearer than interpolation between the two pixels beside it, which copies their noise.
    lines = slice(50, 1000, 50)
    image = micrograph.image.copy()
    image[:, lines] = 0
    repaired = repair_pixels(image)[0][:, lines]
    between = (micrograph.image[:, 49:999:50] + micrograph.image[:, 51:1001:50]) / 2
    error, interpolated = (np.square(each - micrograph.truth[:, lines]).mean() for each in (repaired, between))
    assert error < interpolated / 3


AREAS: dict[str, tuple[tuple[Any, Any], str]] = {
    "corner": ((slice(0, 256), slice(0, 256)), "a constant area of 256×256 px"),
    "other corner": ((slice(-256, None), slice(-256, None)), "a constant area of 256×256 px"),
    "middle": ((slice(201, 457), slice(303, 559)), "a constant area of 256×256 px"),
    "gap between modules": ((EVERYTHING, slice(500, 508)), "a constant area of 8×768 px"),
}


@pytest.mark.parametrize("name", AREAS)
def test_a_dead_module_changes_nothing_elsewhere_and_keeps_its_value(micrograph: Micrograph, name: str) -> None:
    area, described = AREAS[name]
    defect = mask(micrograph, area)
    image = np.where(defect, np.float32(3), micrograph.image)
    assert found_in(image) == described
    assert micrograph.change(image, defect) < ALLOWED
    assert (micrograph.denoise(image)[defect] == 3).all()


def staircase(shape: tuple[int, int]) -> Mask:
    """What frames that drifted leave at the left."""
    depth = 3 + np.arange(shape[0]) // 96 % 4 * 5
    inside: Mask = np.arange(shape[1]) < depth[:, None]
    return inside


def triangle(shape: tuple[int, int]) -> Mask:
    """A corner of an image that was rotated."""
    y, x = np.indices(shape)
    inside: Mask = x + 2 * y < 300
    return inside


@pytest.mark.parametrize("shape", [staircase, triangle])
def test_areas_of_other_shapes_at_the_border_are_filled(
    micrograph: Micrograph, shape: Callable[[tuple[int, int]], Mask]
) -> None:
    defect = shape(micrograph.image.shape)
    image = np.where(defect, np.float32(0), micrograph.image)
    prepared = micrograph.prepare(image)
    assert prepared.pixels.filled == pytest.approx(defect.mean())
    assert micrograph.change(image, defect) < ALLOWED
    assert (micrograph.denoise(image)[defect] == 0).all()


def test_margins_modules_and_lines_together(micrograph: Micrograph) -> None:
    areas = [(slice(0, 8), EVERYTHING), (EVERYTHING, slice(0, 20)), (slice(500, None), slice(800, None))]
    kept = mask(micrograph, *areas)
    image = np.where(kept, np.float32(0), micrograph.image)
    image[:, 400:402] = 0
    assert found_in(image) == (
        "2 dead columns; a constant margin of 8 px at the top; a constant margin of 20 px at the left; "
        "a constant area of 224×268 px"
    )
    output = micrograph.denoise(image)
    assert (output[kept] == 0).all()
    assert abs(output[8:, 400:402].mean() - micrograph.image.mean()) < micrograph.image.std() / 4


def test_margins_of_several_values_keep_each(micrograph: Micrograph) -> None:
    image = micrograph.image.copy()
    image[:, :10] = 5
    image[:, 10:14] = 0
    image[-6:] = -2
    output = micrograph.denoise(image)
    kept = np.isin(image, (5, 0, -2)) & (mask(micrograph, (EVERYTHING, slice(0, 14)), (slice(-6, None), EVERYTHING)))
    assert np.array_equal(output[kept], image[kept])


def test_with_a_phase_flip_only_what_is_missing_changes_the_rest(micrograph: Micrograph) -> None:
    # A flip spreads each pixel over hundreds of Å, and its noise. Even the true signal in its place would not help.
    defect = mask(micrograph, (EVERYTHING, slice(-16, None)))
    image = np.where(defect, np.float32(0), micrograph.image)
    best = np.where(defect, micrograph.truth, micrograph.image)
    found, possible = (micrograph.change(each, defect, FLIPPED) for each in (image, best))
    assert found < 1.1 * possible


@pytest.mark.parametrize("merge", [None, Merge(9.0, 3.0)])
def test_the_opposite_edge_and_the_grey_scale_are_right(micrograph: Micrograph, merge: Merge | None) -> None:
    image = micrograph.image.copy()
    image[:, -32:] = 0
    good, bad = (micrograph.prepare(each, merge=merge is not None) for each in (micrograph.image, image))
    assert bad.std == pytest.approx(good.std, rel=0.01)
    assert bad.mean == pytest.approx(good.mean, rel=1e-3)
    expected, output = (restore(each.image, each, merge=merge) for each in (good, bad))
    assert np.corrcoef(output[:, :200].ravel(), expected[:, :200].ravel())[0, 1] > 0.995


def dark(micrograph: Micrograph, transmitted: Image) -> Image:
    """The micrograph where the specimen or an aperture lets through a part of the electrons."""
    counts = np.random.default_rng(0).binomial(micrograph.image.astype(int), transmitted)
    return counts.astype(np.float32)


def edges(shape: tuple[int, int]) -> Iterator[tuple[str, str, Image]]:
    y, x = np.indices(shape)
    yield "round", "beam edge", 1 / (1 + np.exp((600 - np.hypot(y - 200, x - 700)) / -6))
    yield "side", "beam edge", 1 - 1 / (1 + np.exp(np.clip((x - 150 + 0.1 * y) / 4, -50, 50)))
    yield "carbon", "uneven illumination", 1 - 0.25 / (1 + np.exp(np.clip((x - 400 + 0.2 * y) / 3, -50, 50)))


@pytest.mark.parametrize("number", range(3))
def test_the_halos_of_an_uneven_illumination_end_within_twice_the_highpass(micrograph: Micrograph, number: int) -> None:
    _, kind, transmitted = list(edges(micrograph.image.shape))[number]
    image, defect = dark(micrograph, transmitted), transmitted < 0.9
    report = micrograph.prepare(image).pixels
    assert report.illumination is not None
    assert report.illumination.kind == kind
    assert report.illumination.fraction == pytest.approx(defect.mean(), abs=0.06)
    assert not report.defects
    # The grey level of the whole frame is another one; halos are what varies.
    expected, output = micrograph.denoise(micrograph.image), micrograph.denoise(image)
    ny, nx = defect.shape
    distance = ndimage.distance_transform_edt(np.tile(~defect, (3, 3)))[ny : 2 * ny, nx : 2 * nx]
    far = distance * micrograph.optics.pixel_size > 2 * PLAIN.highpass
    assert (output - expected)[far].std() < ALLOWED * micrograph.denoise(micrograph.truth).std()
    if kind == "uneven illumination":
        # Carbon is specimen: what is on it stays.
        assert np.corrcoef(output[defect], expected[defect])[0, 1] > 0.8


def test_where_there_is_no_specimen_is_known_to_training(micrograph: Micrograph) -> None:
    image = micrograph.image.copy()
    image[:, :64] = 0
    image[:, 500] = 0
    prepared = micrograph.prepare(image)
    columns = prepared.missing().mean(axis=0)
    edge = 64 * prepared.image.shape[1] / 1024
    assert columns[: int(edge)].all()
    assert not columns[int(edge) + 1 :].any(), "a repaired line teaches as well as others"
    assert not micrograph.prepare(micrograph.image).missing().any()
    _, _, transmitted = next(edges(image.shape))
    missing = micrograph.prepare(dark(micrograph, transmitted)).missing()
    assert missing.mean() == pytest.approx((transmitted < 0.5).mean(), abs=0.1)


def test_an_image_of_which_too_much_is_dead_is_refused(micrograph: Micrograph) -> None:
    image = micrograph.image.copy()
    image[:, :460] = 0
    with pytest.raises(DataError, match="no signal"):
        repair_pixels(image)


# What must not be touched.


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
