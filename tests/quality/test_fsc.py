"""Shell correlation against RELION's programs, the whole transform summed by hand, and statistics."""

import csv
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.refinement.fsc import HALF_MAPS, crossing, shell_correlation
from n2n_deploy.refinement.map_comparison import compare_maps

PIXEL_SIZE = 1.7


def halves(shape: tuple[int, ...], noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth signal in white noise, twice."""
    rng = np.random.default_rng(seed)
    signal = gaussian_filter(rng.standard_normal(shape), 1.5, mode="wrap")
    signal *= 3 / signal.std()
    a, b = (signal + noise * rng.standard_normal(shape) for _ in range(2))
    return a.astype(np.float32), b.astype(np.float32)


def save(path: Path, data: np.ndarray, pixel_size: float | tuple[float, ...] = PIXEL_SIZE) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.float32))
        file.voxel_size = pixel_size
    return path


def star_columns(text: str, block: str) -> dict[str, np.ndarray]:
    """Read the loop of a STAR file's block as RELION prints it."""
    lines = text.split(f"data_{block}", 1)[1].split("data_", 1)[0].splitlines()
    names = [line.split()[0].removeprefix("_") for line in lines if line.startswith("_")]
    rows = np.array([line.split() for line in lines if len(line.split()) == len(names) and line[0] != "_"])
    return {name: rows[:, i].astype(float) for i, name in enumerate(names)}


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 33, 33), (64, 64), (65, 65)])
def test_the_curve_is_relions(shape, relion, tmp_path):
    a, b = halves(shape)
    files = save(tmp_path / "a.mrc", a), save(tmp_path / "b.mrc", b)
    printed = relion("relion_image_handler", "--i", files[0], "--fsc", files[1], "--angpix", PIXEL_SIZE)
    theirs = star_columns(printed, "fsc")
    ours = shell_correlation(a, b, PIXEL_SIZE)
    np.testing.assert_allclose(ours.correlation, theirs["rlnFourierShellCorrelation"], atol=1e-5)
    np.testing.assert_allclose(ours.frequency[1:], theirs["rlnResolution"][1:], rtol=1e-4)


def test_a_model_map_crosses_one_half_where_relions_curve_does(relion, tmp_path):
    """Figure S2 F: the first is a map in noise, the second the model without any."""
    n = 40
    signal, _ = halves((n, n, n), noise=0.0, seed=8)
    noisy = signal + 2 * np.random.default_rng(9).standard_normal(signal.shape)
    files = save(tmp_path / "map.mrc", noisy), save(tmp_path / "model.mrc", signal)
    comparison = compare_maps(*files, model=True)
    printed = relion("relion_image_handler", "--i", files[0], "--fsc", files[1], "--angpix", PIXEL_SIZE)
    theirs = star_columns(printed, "fsc")["rlnFourierShellCorrelation"]
    np.testing.assert_allclose(comparison.shells.correlation, theirs, atol=1e-5)
    assert comparison.summary()["against"] == "model"
    shell = n * PIXEL_SIZE / comparison.summary()["resolution"]
    assert theirs[int(shell)] >= 0.5 > theirs[int(shell) + 1]


def test_masked_and_corrected_curves_and_the_resolution_are_those_of_relion_postprocess(relion, tmp_path):
    n = 48
    a, b = halves((n, n, n), noise=4.0, seed=1)
    radius = np.sqrt(sum((np.indices((n, n, n)) - n // 2) ** 2))
    mask = np.clip((18 - radius) / 5, 0, 1)
    names = ("half1_class001_unfil.mrc", "half2_class001_unfil.mrc", "mask.mrc")
    files = [save(tmp_path / name, data) for name, data in zip(names, (a, b, mask), strict=True)]
    relion(
        "relion_postprocess", "--i", files[0], "--i2", files[1], "--mask", files[2], "--angpix", PIXEL_SIZE,
        "--force_mask", "--o", tmp_path / "post",
    )  # fmt: skip
    text = (tmp_path / "post.star").read_text()
    theirs = star_columns(text, "fsc")
    ours = shell_correlation(a, b, PIXEL_SIZE, mask.astype(np.float32))
    np.testing.assert_allclose(ours.unmasked, theirs["rlnFourierShellCorrelationUnmaskedMaps"], atol=1e-4)
    np.testing.assert_allclose(ours.correlation, theirs["rlnFourierShellCorrelationMaskedMaps"], atol=1e-4)
    # Phases are random: beyond the start, two runs differ by √2/√m with m independent components in a shell,
    # of which the mask leaves its own share of the volume.
    start = round(ours.randomised_from * n * PIXEL_SIZE) + 2
    random = theirs["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"]
    corrected = theirs["rlnFourierShellCorrelationCorrected"]
    independent = 2 * np.pi * np.arange(n // 2 + 1)[start:] ** 2 * mask.mean()
    error = np.sqrt(2 / independent)
    assert np.all(np.abs(ours.randomised - random)[start:] < 4 * error)
    assert np.all(np.abs(ours.corrected - corrected)[start:] < 5 * error)
    resolution = float(text.split("_rlnFinalResolution")[1].split()[0])
    # RELION names a shell, we interpolate between two.
    assert 1 / ours.resolution(HALF_MAPS) == pytest.approx(1 / resolution, abs=1.5 / (n * PIXEL_SIZE))


def test_what_relion_refuses_as_a_mask_is_refused(relion, tmp_path):
    a, b = halves((32, 32, 32), seed=8)
    files = [save(tmp_path / f"half{i}_unfil.mrc", half) for i, half in ((1, a), (2, b))]
    for number, mask in enumerate((a, np.full_like(a, 255), np.full_like(a, -0.1))):
        wrong = save(tmp_path / f"mask{number}.mrc", mask)
        with pytest.raises(AssertionError, match="mask values not in range"):
            relion(
                "relion_postprocess", "--i", files[0], "--i2", files[1], "--mask", wrong, "--angpix", PIXEL_SIZE,
                "--o", tmp_path / "post",
            )  # fmt: skip
        with pytest.raises(DataError, match=rf"mask{number}\.mrc: a mask's values lie between 0 and 1"):
            compare_maps(*files, mask=wrong)


def test_an_image_of_one_row_has_no_rings(tmp_path):
    rows = [save(tmp_path / f"{name}.mrc", np.random.default_rng(9).standard_normal((1, 32))) for name in "ab"]
    with pytest.raises(DataError, match=r"a\.mrc: its box is 32x1; expected at least 2 pixels"):
        compare_maps(*rows)


def test_a_box_that_is_no_cube_is_compared_by_frequency_in_equal_steps():
    shape = (12, 20, 17)
    a, b = halves(shape, seed=2)
    frequencies = np.meshgrid(
        *(np.fft.fftfreq(n, PIXEL_SIZE) for n in shape[:2]), np.fft.rfftfreq(17, PIXEL_SIZE), indexing="ij"
    )
    shell = np.rint(np.sqrt(sum(f**2 for f in frequencies)) * 12 * PIXEL_SIZE).astype(int)
    fa, fb = np.fft.rfftn(a), np.fft.rfftn(b)
    expected = [
        (fa * fb.conj()).real[shell == k].sum()
        / np.sqrt((abs(fa) ** 2)[shell == k].sum() * (abs(fb) ** 2)[shell == k].sum())
        for k in range(6)
    ]
    np.testing.assert_allclose(shell_correlation(a, b, PIXEL_SIZE).correlation, expected, atol=1e-5)


@pytest.mark.parametrize("snr", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(512, 512), (381, 405)])
def test_the_expected_ring_correlation_is_snr_over_one_plus_snr(snr, shape):
    rng = np.random.default_rng(3)
    signal, n1, n2 = rng.standard_normal((3, *shape))
    curve = shell_correlation(np.sqrt(snr) * signal + n1, np.sqrt(snr) * signal + n2, 1.0).correlation[10:]
    # A ring of m independent components has a standard error of about 1/√m; together they have 0.1 of all.
    assert curve.mean() == pytest.approx(snr / (1 + snr), abs=4 / np.sqrt(0.1 * np.prod(shape)))


def test_the_amplitudes_of_a_gaussian_are_a_gaussian():
    n, sigma = 96, 3.0
    squared = sum((np.indices((n, n, n)) - n // 2) ** 2)
    blob = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    noisy = blob + np.float32(1e-3) * np.random.default_rng(4).standard_normal(blob.shape, dtype=np.float32)
    got = shell_correlation(blob, noisy, PIXEL_SIZE)
    expected = (2 * np.pi * sigma**2) ** 1.5 * np.exp(-2 * (np.pi * sigma * PIXEL_SIZE * got.frequency) ** 2) / n**3
    # A shell averages over frequencies up to half a step from its own.
    np.testing.assert_allclose(got.amplitude_a[1:12], expected[1:12], rtol=0.05)


def test_crossings_are_interpolated_and_the_first_one_counts():
    frequency = np.arange(6) * 0.1
    curve = np.array([1.0, 0.9, 0.7, 0.3, 0.6, 0.1])
    assert crossing(frequency, curve, 0.5) == pytest.approx(0.25)
    assert crossing(frequency, curve, 0.143) == pytest.approx(0.4 + 0.1 * (0.6 - 0.143) / 0.5)
    assert crossing(frequency, curve, 0.05) is None
    assert crossing(frequency, np.array([1.0, 0.1, 0.0, 0, 0, 0]), 0.5) == pytest.approx(0.1)


def test_identical_maps_agree_up_to_nyquist_and_a_shared_mask_does_not_pass_for_signal():
    a, _ = halves((40, 40, 40), seed=5)
    same = shell_correlation(a, a.copy(), PIXEL_SIZE)
    np.testing.assert_allclose(same.correlation, 1.0, atol=1e-6)
    assert same.resolution(HALF_MAPS) is None
    rng = np.random.default_rng(6)
    a, b = halves((40, 40, 40), noise=30.0, seed=6)
    radius = np.sqrt(sum((np.indices(a.shape) - 20) ** 2))
    mask = (radius < 6).astype(np.float32)
    offset = 50 + rng.standard_normal()  # common to both, so the sharp mask's transform correlates everywhere
    masked = shell_correlation(a + np.float32(offset), b + np.float32(offset), PIXEL_SIZE, mask)
    assert masked.correlation[8:].mean() > 0.3
    assert abs(masked.corrected[8:].mean()) < 0.15


def test_files_are_compared_and_written(tmp_path):
    a, b = halves((64, 64), seed=7)
    comparison = compare_maps(save(tmp_path / "a.mrc", a), save(tmp_path / "b.mrc", b), model=True)
    comparison.write(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "fsc.json").read_text())
    assert summary["curve"] == "FRC"
    assert summary["box"] == [64, 64]
    assert summary["pixel_size"] == pytest.approx(PIXEL_SIZE)
    assert summary["resolution"] == summary["resolution_at"]["0.5"] == pytest.approx(comparison.shells.resolution(0.5))
    rows = list(csv.DictReader((tmp_path / "out" / "fsc.csv").open()))
    np.testing.assert_allclose([float(row["correlation"]) for row in rows], comparison.shells.correlation, rtol=1e-5)
    assert (tmp_path / "out" / "fsc.png").stat().st_size > 10000


def test_voxels_that_are_no_cubes_are_told_of(tmp_path):
    a, b = halves((16, 16, 16))
    even = save(tmp_path / "even.mrc", a)
    for axis, size in (("y", (1.7, 2.4, 1.7)), ("z", (1.7, 1.7, 2.4))):
        (warning,) = compare_maps(even, save(tmp_path / f"{axis}.mrc", b, size)).warnings
        assert warning.endswith(
            f"{axis}.mrc: the header says 1.7 Å per pixel along x and 2.4 along {axis}; that along x is used"
        )
    assert compare_maps(even, save(tmp_path / "odd.mrc", b)).warnings == ()
    # An image has one section, whatever its header says of the next.
    images = [save(tmp_path / f"image{i}.mrc", data[0], (1.7, 1.7, 2.4)) for i, data in enumerate((a, b))]
    assert compare_maps(*images).warnings == ()


def test_maps_that_are_the_same_or_have_nothing_in_common_are_told_of(tmp_path):
    a, _ = halves((16, 16, 16))
    half, same = save(tmp_path / "half.mrc", a), save(tmp_path / "same.mrc", a)
    (warning,) = compare_maps(half, same).warnings
    assert warning.endswith("same.mrc are identical: their correlation says nothing")
    inverse = save(tmp_path / "inverse.mrc", -a)
    (warning,) = compare_maps(half, inverse).warnings
    assert "nothing in common" in warning


def test_where_no_phase_was_randomised_there_is_no_resolution_for_it(tmp_path):
    a, _ = halves((16, 16, 16))
    half, mask = save(tmp_path / "half.mrc", a), save(tmp_path / "mask.mrc", np.ones_like(a))
    summary = compare_maps(half, half, mask=mask).summary()
    assert summary["phases_randomised_from"] is None
    a, b = halves((16, 16, 16), noise=6.0)
    found = compare_maps(save(tmp_path / "a.mrc", a), save(tmp_path / "b.mrc", b), mask=mask).summary()
    assert found["phases_randomised_from"] > found["nyquist_resolution"]


def test_bad_pairs_are_refused_in_one_line(tmp_path):
    a, b = halves((16, 16, 16))
    good = save(tmp_path / "good.mrc", a)
    cases = [
        (
            save(tmp_path / "box.mrc", b[:, :, :14]),
            {},
            DataError,
            r"box\.mrc: its box is 14x16x16 and that of .* 16x16x16",
        ),
        (save(tmp_path / "pixel.mrc", b, 2.0), {}, DataError, r"pixel\.mrc: its pixel size is 2 Å .* 1\.7 Å"),
        (save(tmp_path / "nan.mrc", np.where(b > 3, np.nan, b)), {}, DataError, "not finite"),
        (save(tmp_path / "flat.mrc", np.ones_like(b)), {}, DataError, "constant"),
        (
            save(tmp_path / "b.mrc", b),
            {"mask": save(tmp_path / "zero.mrc", 0 * b)},
            DataError,
            "mask is empty",
        ),
        (
            tmp_path / "b.mrc",
            {"mask": save(tmp_path / "small.mrc", b[:8])},
            DataError,
            r"small\.mrc: its box",
        ),
        (
            tmp_path / "b.mrc",
            {"mask": save(tmp_path / "half.mrc", b)},
            DataError,
            r"half\.mrc: a mask's values lie between 0 and 1, these between -",
        ),
        (
            tmp_path / "b.mrc",
            {"mask": save(tmp_path / "coarse.mrc", np.ones_like(b), 2.9)},
            DataError,
            r"coarse\.mrc: its pixel size is 2\.9 Å .* 1\.7 Å",
        ),
        (
            save(tmp_path / "hollow.mrc", b * (np.arange(16) < 8)),
            {"mask": save(tmp_path / "right.mrc", np.ones_like(b) * (np.arange(16) >= 8))},
            DataError,
            r"hollow\.mrc: is constant \(0 under the mask\)",
        ),
        (save(tmp_path / "thin.mrc", b[:1, :1]), {}, DataError, r"thin\.mrc: its box is 16x1 and"),
        (tmp_path / "b.mrc", {"pixel_size": -1.0}, UsageError, "--pixel-size"),
        (tmp_path / "b.mrc", {"pixel_size": np.inf}, UsageError, "--pixel-size inf"),
        (tmp_path / "gone.mrc", {}, DataError, "gone.mrc"),
    ]
    for other, options, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            compare_maps(good, other, **options)
        assert "\n" not in str(caught.value)
    unsized = [save(tmp_path / f"unsized{i}.mrc", data, 0.0) for i, data in enumerate((a, b))]
    with pytest.raises(UsageError, match="--pixel-size"):
        compare_maps(*unsized)
    assert compare_maps(*unsized, pixel_size=3.0).pixel_size == 3.0
