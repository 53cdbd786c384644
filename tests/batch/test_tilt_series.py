"""RELION 5 tilt series through a batch: both levels of the table in and out, read again by starfile.

The columns of the series are those of a real table of RELION 5 (test data).
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pandas
import pytest
import starfile
from star_builder import star_loop

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.options import OnExists
from n2n_deploy.batch.request import Shard

from .conftest import PIXEL_SIZE, SHAPE, MakeBundle, band_limited

PLAIN = DenoiseOptions(report=False, lanes=1)
IMAGES = 3
NAME, FILE = "rlnMicrographName", "rlnTomoTiltSeriesStarFile"

MakeProject = Callable[..., Path]


@pytest.fixture
def series(tmp_path: Path, shared_data: Path) -> MakeProject:
    """Write tilt series with images of the same file names and a global table of them; returns that table."""
    (real,) = starfile.read(shared_data / "star" / "relion5_even_odd_tilt_series.star", always_dict=True).values()

    def make(*names: str, table: str = "tilt_series_ctf.star") -> Path:
        for name in names:
            folder = tmp_path / "MotionCorr" / name
            folder.mkdir(parents=True)
            rows = real.iloc[:IMAGES].astype(str)
            for label in (NAME, "rlnMicrographNameEven", "rlnMicrographNameOdd"):
                rows[label] = [value.replace("job002/frames", name) for value in rows[label]]
            for number, file in enumerate(rows[NAME]):
                save(tmp_path / file, band_limited(number + 100 * int(name[-2:])))
            rows["rlnDefocusU"] = [f"{20000 + number}.5" for number in range(IMAGES)]
            rows["rlnDefocusV"], rows["rlnDefocusAngle"] = "19000.0", "30.0"
            columns = {label: list(rows[label]) for label in rows}
            (tmp_path / "CtfFind" / "tilt_series").mkdir(parents=True, exist_ok=True)
            (tmp_path / "CtfFind" / "tilt_series" / f"{name}.star").write_text(star_loop(name, columns))
        shared = {
            "rlnTomoName": list(names),
            FILE: [f"CtfFind/tilt_series/{name}.star" for name in names],
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnMicrographOriginalPixelSize": PIXEL_SIZE / 2,
            "rlnTomoHand": -1.0,
            "rlnOpticsGroupName": "opticsGroup1",
            "rlnTomoTiltSeriesPixelSize": PIXEL_SIZE,
        }
        (tmp_path / "CtfFind" / table).write_text(star_loop("global", shared))
        return tmp_path / "CtfFind" / table

    return make


def save(path: Path, image: np.ndarray) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image.astype(np.float32))
        mrc.voxel_size = PIXEL_SIZE


def read(path: Path, project: Path) -> tuple[pandas.DataFrame, dict[str, pandas.DataFrame]]:
    """Both levels of a table, as starfile reads them, the series by name."""
    shared = starfile.read(path, always_dict=True)["global"]
    rows = zip(shared["rlnTomoName"], shared[FILE], strict=True)
    return shared, {name: starfile.read(project / file, always_dict=True)[name] for name, file in rows}


def test_both_levels_are_written_with_every_column(
    series: MakeProject, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, out = series("TS_01", "TS_02"), tmp_path / "Denoise"
    summary = denoise(source, identity_bundle(phase_flip=True), out, options=PLAIN)
    assert (summary.denoised, summary.listed, summary.exit_code) == (2 * IMAGES, 2 * IMAGES, 0)
    given, images = read(source, tmp_path)
    shared, denoised = read(out / "denoised.star", tmp_path)
    assert list(shared[FILE]) == [f"Denoise/denoised_tilt_series/TS_0{n}.star" for n in (1, 2)]
    assert list(shared["rlnCtfDataArePhaseFlipped"]) == [1, 1]
    rest = [label for label in given if label != FILE]
    pandas.testing.assert_frame_equal(shared[rest], given[rest])
    for name in ("TS_01", "TS_02"):
        expected = images[name].copy()
        expected[NAME] = [f"Denoise/{name}/{file}" for file in expected[NAME]]
        pandas.testing.assert_frame_equal(denoised[name], expected)
        for file in denoised[name][NAME]:
            assert mrcfile.validate(tmp_path / file)
    # Images of one file name in two series are two images.
    first, second = (mrcfile.read(tmp_path / denoised[name][NAME].iloc[0]) for name in ("TS_01", "TS_02"))
    assert not np.allclose(first, second, atol=0.1)


def test_identity_network_returns_the_tilt_images(
    series: MakeProject, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    denoise(series("TS_01"), identity_bundle(), tmp_path / "out", options=PLAIN)
    _, denoised = read(tmp_path / "out" / "denoised.star", tmp_path)
    for number, file in enumerate(denoised["TS_01"][NAME]):
        np.testing.assert_allclose(mrcfile.read(tmp_path / file), band_limited(number + 100), atol=0.01)


def test_failed_image_is_listed_at_both_levels_and_tried_again(
    series: MakeProject, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = series("TS_01", "TS_02"), identity_bundle(), tmp_path / "out"
    whole = next((tmp_path / "MotionCorr" / "TS_02").glob("*_001_*.mrc"))
    shutil.copy(whole, tmp_path / "whole.mrc")
    whole.write_bytes(whole.read_bytes()[:3000])
    summary = denoise(source, bundle, out, options=PLAIN)
    assert (summary.denoised, len(summary.failures)) == (2 * IMAGES - 1, 1)
    shared, failed = read(out / "failed.star", tmp_path)
    assert list(shared["rlnTomoName"]) == ["TS_02"]
    assert [tmp_path / name for name in failed["TS_02"][NAME]] == [whole]
    _, denoised = read(out / "denoised.star", tmp_path)
    assert [len(denoised[name]) for name in ("TS_01", "TS_02")] == [IMAGES, IMAGES - 1]
    shutil.copy(tmp_path / "whole.mrc", whole)
    # As a table of its own, and as the list of what to retry: either completes the folder in the table's order.
    for number, more in enumerate(({"retry": None}, {"retry": out / "failed.star"})):
        folder = shutil.copytree(out, tmp_path / f"copy{number}")
        given = source if more["retry"] else folder / "failed.star"
        summary = denoise(given, bundle, folder, options=PLAIN, **more)
        assert (summary.denoised, summary.listed, summary.exit_code) == (1, 2 * IMAGES, 0)
        _, denoised = read(folder / "denoised.star", tmp_path)
        wanted = [f"copy{number}/TS_02/{file}" for file in read(source, tmp_path)[1]["TS_02"][NAME]]
        assert list(denoised["TS_02"][NAME]) == wanted
        assert not (folder / "failed.star").exists()
        assert not (folder / "failed_tilt_series").exists()


def test_shards_and_resuming_give_the_table_of_one_run(
    series: MakeProject, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = series("TS_01", "TS_02"), identity_bundle(), tmp_path / "out"
    for index in (1, 2, 3, 4):
        denoise(source, bundle, out, options=PLAIN, shard=Shard(index, 4))
    assert not (out / "denoised.star").exists()
    source.rename(source.with_name("gone.star"))  # the copies in the ledger suffice
    shutil.rmtree(tmp_path / "CtfFind" / "tilt_series")
    merged = merge_results([out])
    assert (merged.exit_code, merged.summary["listed"]) == (0, 2 * IMAGES)
    _, denoised = read(out / "denoised.star", tmp_path)
    assert [list(map(Path, denoised[name][NAME])) for name in ("TS_01", "TS_02")] == [
        sorted(path.relative_to(tmp_path) for path in (out / name).rglob("*.mrc")) for name in ("TS_01", "TS_02")
    ]


def test_series_of_several_tables_are_listed_together(
    series: MakeProject, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle, out = identity_bundle(), tmp_path / "out"
    denoise(series("TS_01", table="day1.star"), bundle, out, options=PLAIN)
    summary = denoise(series("TS_02", table="day2.star"), bundle, out, options=PLAIN)
    assert (summary.denoised, summary.listed) == (IMAGES, 2 * IMAGES)
    _, denoised = read(out / "denoised.star", tmp_path)
    assert {name: len(images) for name, images in denoised.items()} == {"TS_01": IMAGES, "TS_02": IMAGES}
    # Another pixel size of one series would be lost in a common table.
    other = tmp_path / "CtfFind" / "day2.star"
    other.write_text(other.read_text().replace(f"{PIXEL_SIZE:12.6f}", f"{1.9:12.6f}"))
    summary = denoise(other, bundle, out, options=DenoiseOptions(report=False, on_exists=OnExists.OVERWRITE))
    assert summary.listed == 2 * IMAGES
    shared, _ = read(out / "denoised.star", tmp_path)
    assert dict(zip(shared["rlnTomoName"], shared["rlnTomoTiltSeriesPixelSize"], strict=True)) == {
        "TS_01": PIXEL_SIZE, "TS_02": 1.9,
    }  # fmt: skip


def test_output_outside_the_project_names_halves_that_can_be_found(
    series: MakeProject, identity_bundle: MakeBundle, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, out = series("TS_01"), tmp_path_factory.mktemp("scratch") / "out"
    denoise(source, identity_bundle(), out, options=PLAIN)
    shared, denoised = read(out / "denoised.star", out)
    assert list(shared[FILE]) == [str(out / "denoised_tilt_series" / "TS_01.star")]
    even = read(source, tmp_path)[1]["TS_01"]["rlnMicrographNameEven"]
    assert list(denoised["TS_01"]["rlnMicrographNameEven"]) == [str(tmp_path / name) for name in even]
    assert mrcfile.read(denoised["TS_01"][NAME].iloc[0]).shape == SHAPE
