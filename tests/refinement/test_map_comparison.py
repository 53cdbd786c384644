"""Comparison of map files against RELION's programs, the files written, and refusals."""

import csv
import json

import numpy as np
import pytest

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.refinement.map_comparison import compare_maps

from .conftest import PIXEL_SIZE, halves, save, star_columns


def test_model_map_crosses_one_half_where_relions_curve_does(relion, tmp_path):
    """Figure S2 F: a noisy map against the noiseless model."""
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


def test_masks_that_relion_refuses_are_refused(relion, tmp_path):
    a, b = halves((32, 32, 32), seed=8)
    files = [save(tmp_path / f"half{i}_unfil.mrc", half) for i, half in ((1, a), (2, b))]
    for number, mask in enumerate((a, np.full_like(a, 255), np.full_like(a, -0.1))):
        wrong = save(tmp_path / f"mask{number}.mrc", mask)
        with pytest.raises(AssertionError, match="mask values not in range"):
            relion(
                "relion_postprocess", "--i", files[0], "--i2", files[1], "--mask", wrong, "--angpix", PIXEL_SIZE,
                "--o", tmp_path / "post",
            )  # fmt: skip
        with pytest.raises(DataError, match=rf"mask{number}\.mrc: mask values range from"):
            compare_maps(*files, mask=wrong)


def test_an_image_of_one_row_has_no_rings(tmp_path):
    rows = [save(tmp_path / f"{name}.mrc", np.random.default_rng(9).standard_normal((1, 32))) for name in "ab"]
    with pytest.raises(DataError, match=r"a\.mrc: its box is 32x1; expected at least 2 pixels"):
        compare_maps(*rows)


def test_comparison_of_two_files_is_written(tmp_path):
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


def test_non_cubic_voxels_are_warned_of(tmp_path):
    a, b = halves((16, 16, 16))
    even = save(tmp_path / "even.mrc", a)
    for axis, size in (("y", (1.7, 2.4, 1.7)), ("z", (1.7, 1.7, 2.4))):
        (warning,) = compare_maps(even, save(tmp_path / f"{axis}.mrc", b, size)).warnings
        assert warning.endswith(
            f"{axis}.mrc: the header says 1.7 Å per pixel along x and 2.4 along {axis}; that along x is used"
        )
    assert compare_maps(even, save(tmp_path / "odd.mrc", b)).warnings == ()
    # An image has one section, so the header's spacing along z is irrelevant.
    images = [save(tmp_path / f"image{i}.mrc", data[0], (1.7, 1.7, 2.4)) for i, data in enumerate((a, b))]
    assert compare_maps(*images).warnings == ()


def test_identical_and_unrelated_maps_are_warned_of(tmp_path):
    a, _ = halves((16, 16, 16))
    half, same = save(tmp_path / "half.mrc", a), save(tmp_path / "same.mrc", a)
    (warning,) = compare_maps(half, same).warnings
    assert warning.endswith("same.mrc are identical, so their correlation is meaningless")
    inverse = save(tmp_path / "inverse.mrc", -a)
    (warning,) = compare_maps(half, inverse).warnings
    assert "nothing in common" in warning


def test_summary_says_where_phases_were_randomised(tmp_path):
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
        (save(tmp_path / "nan.mrc", np.where(b > 3, np.nan, b)), {}, DataError, "NaN or infinite"),
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
            r"half\.mrc: mask values range from -",
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
