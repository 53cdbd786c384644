"""`--output-pixel-size` and `--png`: what the files say of themselves, for every kind of table, and resumed runs."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from PIL import Image
from star_builder import star_loop

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.dry_run import forecast
from n2n_deploy.batch.request import Request
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.io.star import read_micrographs

from .conftest import PIXEL_SIZE, SHAPE, MakeBundle, MakeTable, band_limited

PLAIN = DenoiseOptions(report=False, lanes=1)
COARSE = PLAIN.model_copy(update={"output_pixel_size": 5.0})
GRID = (76, 92)
"""192 · 2 / 5 = 76.8 and 232 · 2 / 5 = 92.8 pixels, to the nearest even number."""
SIZE = PIXEL_SIZE * (192 / 76 + 232 / 92) / 2


def test_header_and_table_say_the_coarser_pixel_size(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(3), identity_bundle(), tmp_path / "out"
    told = forecast(Request.open(source, bundle, out, COARSE)).as_dict()
    assert told["disk_needed"] == 3 * (1024 + 4 * GRID[0] * GRID[1])
    summary = denoise(source, bundle, out, options=COARSE)
    assert (summary.denoised, summary.failures) == (3, {})
    whole = denoise(source, bundle, tmp_path / "whole", options=PLAIN)
    assert whole.denoised == 3
    for path in sorted(out.rglob("*.mrc")):
        mrcfile.validate(path)
        with mrcfile.open(path) as mrc:
            assert mrc.data.shape == GRID
            assert mrc.voxel_size.x == pytest.approx(SIZE, rel=1e-6)
            full = mrcfile.read(tmp_path / "whole" / path.relative_to(out))
            # Waves from 20 Å on are far below the Nyquist frequency of 5 Å pixels.
            assert mrc.data.mean(dtype=float) == pytest.approx(full.mean(dtype=float), abs=1e-3)
            assert mrc.data.std(dtype=float) == pytest.approx(full.std(dtype=float), rel=1e-3)
    tables = starfile.read(out / "denoised.star", always_dict=True)
    assert list(tables["optics"]["rlnMicrographPixelSize"]) == [pytest.approx(SIZE, abs=1e-6)]
    assert [each.optics.pixel_size for each in read_micrographs(out / "denoised.star", need_ctf=False).micrographs] == [
        pytest.approx(SIZE, abs=1e-6)
    ] * 3
    # A second run knows its own work; without the option the same folder holds other work.
    assert denoise(source, bundle, out, options=COARSE).already_done == 3
    again = starfile.read(out / "denoised.star", always_dict=True)
    assert list(again["optics"]["rlnMicrographPixelSize"]) == [pytest.approx(SIZE, abs=1e-6)]
    with pytest.raises(UsageError, match="not made by this model with these options"):
        denoise(source, bundle, out, options=PLAIN)


@pytest.mark.parametrize("label", ["rlnMagnification", "rlnMicrographPixelSize", "rlnPixelSize"])
def test_tables_without_optics_groups(label: str, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    columns = {"rlnMagnification": {"rlnDetectorPixelSize": 5.0, "rlnMagnification": 25000.0}}
    given = columns.get(label, {label: 2.0})
    names = ["a.mrc", "b.mrc"]
    shapes = [SHAPE, (256, 200)]
    for name, shape in zip(names, shapes, strict=True):
        with mrcfile.new(tmp_path / name) as mrc:
            mrc.set_data(band_limited(1, shape))
    (tmp_path / "old.star").write_text(star_loop("", {"rlnMicrographName": names, **given}))
    denoise(tmp_path / "old.star", identity_bundle(), tmp_path / "out", options=COARSE)
    sizes = [SIZE, PIXEL_SIZE * (256 / 102 + 200 / 80) / 2]
    found = read_micrographs(tmp_path / "out" / "denoised.star", need_ctf=False).micrographs
    assert [each.optics.pixel_size for each in found] == pytest.approx(sizes, abs=1e-4)
    rows = starfile.read(tmp_path / "out" / "denoised.star")
    if label == "rlnMagnification":
        assert list(rows["rlnDetectorPixelSize"]) == [5.0, 5.0]
        np.testing.assert_allclose(rows["rlnMagnification"], [5e4 / size for size in sizes], rtol=1e-6)
    else:
        np.testing.assert_allclose(rows[label], sizes, atol=1e-6)


def test_files_without_a_table(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    table(2)
    denoise(str(tmp_path / "job" / "mics" / "*.mrc"), identity_bundle(), tmp_path / "out", options=COARSE)
    found = read_micrographs(tmp_path / "out" / "denoised.star", need_ctf=False).micrographs
    assert [each.optics.pixel_size for each in found] == pytest.approx([SIZE] * 2, abs=1e-6)
    for each in found:
        with mrcfile.open(each.path, header_only=True) as mrc:
            assert mrc.voxel_size.x == pytest.approx(SIZE, rel=1e-6)


def test_the_movies_pixel_size_stays_and_groups_are_their_own(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table(3)
    text = source.read_text().replace(
        "_rlnMicrographPixelSize #6\n", "_rlnMicrographPixelSize #6\n_rlnMicrographOriginalPixelSize #7\n"
    )
    text = text.replace("0.1 2.0\n", "0.1 2.0 1.0\nopticsGroup2 2 300.0 2.7 0.1 2.5 1.25\n")
    source.write_text(text.replace("m2.mrc 1 ", "m2.mrc 2 "))
    denoise(source, identity_bundle(), tmp_path / "out", options=COARSE)
    optics = starfile.read(tmp_path / "out" / "denoised.star", always_dict=True)["optics"]
    assert list(optics["rlnMicrographOriginalPixelSize"]) == [1.0, 1.25]
    # 192 · 2.5 / 5 = 96, 232 · 2.5 / 5 = 116: exactly 5 Å.
    np.testing.assert_allclose(optics["rlnMicrographPixelSize"], [SIZE, 5.0], atol=1e-6)


def test_finer_pixels_are_refused(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    fine = PLAIN.model_copy(update={"output_pixel_size": 1.5})
    summary = denoise(table(2), identity_bundle(), tmp_path / "out", options=fine)
    assert summary.denoised == 0
    for reason in summary.failures.values():
        assert "its pixels of 2 Å are coarser than the output pixel size of 1.5 Å; choose 2 Å or more" in reason
        assert ".mrc: " in reason


def test_pictures_lie_beside_the_outputs(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(2), identity_bundle(), tmp_path / "out"
    options = PLAIN.model_copy(update={"png": True})
    denoise(source, bundle, out, options=options)
    outputs = sorted(out.rglob("*.mrc"))
    assert [path.with_suffix(".mrc") for path in sorted(out.rglob("*.png"))] == outputs
    for path in outputs:
        image = mrcfile.read(path)
        with Image.open(path.with_suffix(".png")) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "L", SHAPE[::-1])
            grey = np.asarray(picture).astype(float)
        low, high = np.percentile(image, (0.5, 99.5))
        np.testing.assert_allclose(grey, np.clip((image - low) / (high - low), 0, 1) * 255, atol=1.01)


def test_a_resumed_run_draws_the_pictures_that_are_missing(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(3), identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out, options=PLAIN)
    assert not list(out.rglob("*.png"))
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.mrc")}
    broken = sorted(stamps)[0]
    (broken.with_suffix(".png")).mkdir()  # in its place nothing can be written
    said: list[str] = []
    summary = denoise(source, bundle, out, options=PLAIN.model_copy(update={"png": True}), say=said.append)
    assert (summary.already_done, summary.denoised) == (3, 0)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mrc")} == stamps
    assert len([path for path in out.rglob("*.png") if path.is_file()]) == 2
    assert said == []  # a folder of that name is somebody's: it is left alone


def test_large_images_become_small_pictures(identity_bundle: MakeBundle, tmp_path: Path) -> None:
    # A step from 0 to 1 in the middle, averaged: each half stays even, at the right side.
    image = np.zeros((1200, 2500), np.float32)
    image[:, 1250:] = 1
    image += np.random.default_rng(0).normal(0, 0.01, image.shape).astype(np.float32)
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(image)
        mrc.voxel_size = 4.0
    options = PLAIN.model_copy(update={"png": True})
    bundle = identity_bundle(max_resolution=8.0, highpass=1e6)
    denoise(str(tmp_path / "m.mrc"), bundle, tmp_path / "out", options=options)
    with Image.open(tmp_path / "out" / "m.png") as picture:
        assert picture.size == (1024, 492)
        grey = np.asarray(picture).astype(float)
    assert grey[:, 600:900].mean() - grey[:, 100:400].mean() > 150


def test_pillow_is_asked_for_before_anything_is_done(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "PIL" else object())
    options = PLAIN.model_copy(update={"png": True})
    with pytest.raises(
        HostError, match=r"--png needs the Python library Pillow; run: pip install 'n2n-deploy\[report\]'"
    ):
        denoise(table(1), identity_bundle(), tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_a_header_that_says_nothing_or_something_else_gets_the_size_that_was_used(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table(2)
    for name, size in (("m0", 0.0), ("m1", 1.0)):
        with mrcfile.open(tmp_path / "job" / "mics" / f"{name}.mrc", mode="r+") as mrc:
            mrc.voxel_size = size
    denoise(source, identity_bundle(), tmp_path / "out", options=PLAIN)
    for name in ("m0", "m1"):
        with mrcfile.open(tmp_path / "out" / "job" / "mics" / f"{name}.mrc", header_only=True) as mrc:
            assert mrc.voxel_size.x == pytest.approx(PIXEL_SIZE)


def test_options_are_part_of_the_saved_summary(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    denoise(table(1), identity_bundle(), tmp_path / "out", options=COARSE)
    options = json.loads((tmp_path / "out" / "summary.json").read_text())["options"]
    assert (options["output_pixel_size"], options["png"]) == (5.0, False)
