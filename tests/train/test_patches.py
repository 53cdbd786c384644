"""The patch store, and which halves noise2noise may not learn from."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.train import patches as patches_module
from n2n_deploy.train.patches import cut_pairs, prepare_patches
from n2n_deploy.train.store import PatchStore

SUFFIXES = ("DW", "EVN", "ODD")


def micrographs_of(table: Path) -> list[Micrograph]:
    return read_micrographs(table, NamingOptions(suffixes=SUFFIXES), need_ctf=False).micrographs


def test_patches_are_normalised_cover_the_image_and_stay_registered() -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((104, 136)).astype(np.float32)
    pairs, corners = cut_pairs(image, 2 * image + 5, 32)
    assert pairs.shape == (4 * 5, 2, 32, 32)
    covered = np.zeros(image.shape, bool)
    for y, x in corners:
        covered[y : y + 32, x : x + 32] = True
    assert covered.all()
    np.testing.assert_allclose(pairs.mean(axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(pairs.std(axis=(2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], atol=1e-5)
    corner = image[-32:, -32:]
    np.testing.assert_allclose(pairs[-1, 0], (corner - corner.mean()) / corner.std(), atol=1e-5)


def test_overlapping_patches_share_what_was_asked_for() -> None:
    image = np.random.default_rng(0).standard_normal((128, 160)).astype(np.float32)
    pairs, corners = cut_pairs(image, image, 32, overlap=0.5)
    assert len(pairs) == 7 * 9
    assert set(np.diff(np.unique(corners[:, 0]))) == {16}
    first, right = (next(i for i, corner in enumerate(corners) if tuple(corner) == at) for at in ((16, 16), (16, 32)))
    left, shifted = image[16:48, 16:48], image[16:48, 32:64]
    np.testing.assert_allclose(pairs[first, 0], (left - left.mean()) / left.std(), atol=1e-5)
    np.testing.assert_allclose(pairs[right, 0], (shifted - shifted.mean()) / shifted.std(), atol=1e-5)


def test_patches_without_specimen_do_not_teach() -> None:
    image = np.random.default_rng(0).standard_normal((128, 160)).astype(np.float32)
    missing = np.zeros(image.shape, bool)
    missing[:, :4] = missing[64:96, 64:96] = True
    missing[96:, 100:110] = True  # a third of a patch
    _, corners = cut_pairs(image, image, 32, missing=missing)
    assert (0, 0) not in map(tuple, corners), "an eighth of it is margin"
    assert (64, 64) not in map(tuple, corners)
    assert (96, 96) not in map(tuple, corners)
    assert len(corners) == 4 * 5 - 4 - 2
    with pytest.raises(DataError, match="no patch"):
        cut_pairs(image, image, 32, missing=np.ones_like(missing))


def test_a_dead_module_of_one_half_leaves_its_patches_out(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], small_recipe: Recipe
) -> None:
    sums = halves(0)
    whole = prepare_patches(micrographs_of(write_table({"a": sums})), small_recipe, tmp_path / "whole")
    sums["ODD"] = sums["ODD"].copy()
    sums["ODD"][: sums["ODD"].shape[0] // 2, : sums["ODD"].shape[1] // 2] = 0
    part = prepare_patches(micrographs_of(write_table({"b": sums})), small_recipe, tmp_path / "part")
    assert len(PatchStore(part.files)) <= 0.8 * len(PatchStore(whole.files))


def test_a_micrograph_smaller_than_a_patch_says_what_to_do() -> None:
    image = np.ones((24, 40), np.float32)
    with pytest.raises(DataError, match=r"40×24 pixels .* --patch-size"):
        cut_pairs(image, image, 32)


def test_store_holds_the_preprocessed_halves(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], small_recipe: Recipe
) -> None:
    sums = halves(0)
    micrograph = micrographs_of(write_table({"a": sums}))[0]
    result = prepare_patches([micrograph], small_recipe, tmp_path / "patches")
    expected = [preprocess(sums[name], micrograph.optics, None, small_recipe).image for name in ("EVN", "ODD")]
    store = PatchStore(result.files)
    found = store.read(np.arange(len(store)))
    assert found.dtype == np.float16
    # float16 has 11 bits
    np.testing.assert_allclose(found, cut_pairs(*expected, 32)[0], rtol=2**-11, atol=1e-4)
    with h5py.File(result.files[0]) as file:
        assert file["pairs"].chunks == (1, 2, 32, 32)
        assert Recipe.model_validate_json(file.attrs["recipe"]) == small_recipe


def test_a_stopped_preparation_goes_on_and_redoes_nothing_finished(
    tmp_path: Path,
    write_table: Callable[..., Path],
    halves: Callable[..., Any],
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    micrographs = micrographs_of(write_table({name: halves(seed) for seed, name in enumerate("abc")}))
    folder = tmp_path / "patches"
    written = patches_module.write_patches

    def killed(path: Path, pairs: Any, corners: Any, name: str, recipe: Recipe, noise: Any) -> None:
        if "b_DW" in name:
            raise KeyboardInterrupt
        written(path, pairs, corners, name, recipe, noise)

    monkeypatch.setattr(patches_module, "write_patches", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_patches(micrographs, small_recipe, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    assert len(before) == 1
    monkeypatch.setattr(patches_module, "write_patches", written)
    result = prepare_patches(micrographs, small_recipe, folder, workers=2)
    assert (len(result.files), result.reused, result.refused) == (3, 1, {})
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert [path.name[0] for path in result.files] == ["a", "b", "c"]


def test_a_damaged_file_is_made_again(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], small_recipe: Recipe
) -> None:
    micrographs = micrographs_of(write_table({"a": halves(0)}))
    folder = tmp_path / "patches"
    path = prepare_patches(micrographs, small_recipe, folder).files[0]
    good = PatchStore([path]).read([0])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="delete it"):
        PatchStore([path])
    assert prepare_patches(micrographs, small_recipe, folder).reused == 0
    np.testing.assert_array_equal(PatchStore([path]).read([0]), good)


def test_a_changed_half_is_prepared_anew(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], small_recipe: Recipe
) -> None:
    folder = tmp_path / "patches"
    prepare_patches(micrographs_of(write_table({"a": halves(0)})), small_recipe, folder)
    result = prepare_patches(micrographs_of(write_table({"a": halves(1, (400, 400))})), small_recipe, folder)
    assert result.reused == 0
    assert len(list(folder.glob("*.h5"))) == 2


def test_one_folder_keeps_one_recipe(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], small_recipe: Recipe
) -> None:
    micrographs = micrographs_of(write_table({"a": halves(0)}))
    prepare_patches(micrographs, small_recipe, tmp_path / "patches")
    with pytest.raises(DataError, match="another recipe"):
        prepare_patches(micrographs, Recipe(max_resolution=9, phase_flip=False), tmp_path / "patches")


def spoil_missing(sums: dict[str, Any], _: dict[str, Any]) -> None:
    del sums["ODD"]


def spoil_shape(sums: dict[str, Any], _: dict[str, Any]) -> None:
    sums["ODD"] = sums["ODD"][:-8]


def spoil_nan(sums: dict[str, Any], _: dict[str, Any]) -> None:
    sums["EVN"][:200] = np.nan


def spoil_black(sums: dict[str, Any], _: dict[str, Any]) -> None:
    sums["EVN"][:] = 0


def spoil_identical(sums: dict[str, Any], _: dict[str, Any]) -> None:
    sums["ODD"] = sums["EVN"]


def spoil_sum(sums: dict[str, Any], _: dict[str, Any]) -> None:
    sums["EVN"] = sums["DW"]


def spoil_swapped(sums: dict[str, Any], others: dict[str, Any]) -> None:
    sums["ODD"] = others["ODD"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_missing, "bad_ODD.mrc: the odd half is missing"),
        (spoil_shape, "bad_ODD.mrc: the odd half has 400×376 pixels, bad_EVN.mrc has 400×384"),
        (spoil_nan, "bad_EVN.mrc"),
        (spoil_black, "bad_EVN.mrc.*no signal"),
        (spoil_identical, "bad_EVN.mrc: identical to the odd half bad_ODD.mrc"),
        (spoil_sum, "bad_EVN.mrc: the even half is the same image as the sum bad_DW.mrc"),
        (spoil_swapped, "bad_EVN.mrc: has no signal in common with bad_ODD.mrc"),
    ],
)
def test_bad_halves_are_refused_and_cost_themselves_alone(
    spoil: Callable[..., None],
    reason: str,
    tmp_path: Path,
    write_table: Callable[..., Path],
    halves: Callable[..., Any],
    small_recipe: Recipe,
) -> None:
    bad, good = halves(0), halves(1)
    spoil(bad, good)
    micrographs = micrographs_of(write_table({"bad": bad, "good": good}))
    result = prepare_patches(micrographs, small_recipe, tmp_path / "patches")
    assert [path.name.startswith("good") for path in result.files] == [True]
    assert list(result.refused) == ["micrographs/bad_DW.mrc"]
    (message,) = result.refused.values()
    assert "\n" not in message
    assert re.search(reason, message), message
