"""RELION 5's two-level tomography tables: read as records, written so that starfile and we read both levels again.

The series are the real one of the test data (RELION 5, even and odd halves) and a second made of it.
"""

from pathlib import Path

import pandas
import pytest
import starfile
from star_builder import star_loop

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.star import MicrographTable, listed_names, read_micrographs
from n2n_deploy.io.tilt_series import TiltSeriesTable

EVEN, ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"


@pytest.fixture
def project(tmp_path: Path, shared_data: Path) -> Path:
    """A RELION project with a motion-corrected job of two series whose tilt images have the same file names."""
    job = tmp_path / "MotionCorr" / "job002"
    text = (shared_data / "star" / "relion5_even_odd_tilt_series.star").read_text()
    (job / "tilt_series").mkdir(parents=True)
    (job / "tilt_series" / "TS_01.star").write_text(text)
    other = text.replace("data_TS_01", "data_TS_03").replace("job002/frames/", "job002/other/")
    (job / "tilt_series" / "TS_03.star").write_text(other)
    (job / "corrected_tilt_series.star").write_text(
        star_loop(
            "global",
            {
                "rlnTomoName": ["TS_01", "TS_03"],
                "rlnTomoTiltSeriesStarFile": [f"MotionCorr/job002/tilt_series/TS_{n}.star" for n in ("01", "03")],
                "rlnVoltage": [300.0, 200.0],
                "rlnSphericalAberration": 2.7,
                "rlnAmplitudeContrast": [0.1, 0.07],
                "rlnMicrographOriginalPixelSize": 0.675,
                "rlnTomoHand": -1.0,
                "rlnOpticsGroupName": ["opticsGroup1", "opticsGroup2"],
                "rlnTomoTiltSeriesPixelSize": [1.35, 2.7],
            },
        )
    )
    return tmp_path


@pytest.fixture
def table(project: Path) -> MicrographTable:
    path = project / "MotionCorr" / "job002" / "corrected_tilt_series.star"
    return read_micrographs(path, need_ctf=False, need_halves=True)


def test_both_levels_become_records(table: MicrographTable, project: Path, shared_data: Path) -> None:
    assert isinstance(table, TiltSeriesTable)
    (images,) = starfile.read(shared_data / "star" / "relion5_even_odd_tilt_series.star", always_dict=True).values()
    assert [each.row for each in table.micrographs] == list(range(82))
    first, second = table.micrographs[:41], table.micrographs[41:]
    assert [each.name for each in first] == [f"TS_01/{name}" for name in images["rlnMicrographName"]]
    # The size after motion correction, not that of the movies.
    assert {each.optics for each in first} == {Optics(1.35, 300, 2.7, 0.1)}
    assert {each.optics for each in second} == {Optics(2.7, 200, 2.7, 0.07)}
    assert [each.even for each in first] == [project / name for name in images[EVEN]]
    assert [str(each.odd).replace("/other/", "/frames/") for each in second] == [str(each.odd) for each in first]
    assert table.problems == {}


def test_images_of_the_same_name_in_two_series_do_not_collide(project: Path) -> None:
    folder = project / "MotionCorr" / "job002" / "tilt_series"
    (folder / "TS_03.star").write_text((folder / "TS_01.star").read_text().replace("data_TS_01", "data_TS_03"))
    table = read_micrographs(folder.parent / "corrected_tilt_series.star", need_ctf=False)
    assert len({each.name for each in table.micrographs}) == 82


def test_files_are_found_from_the_project_or_the_series_own_folder(project: Path) -> None:
    job = project / "MotionCorr" / "job002"
    (job / "frames").mkdir()
    (job / "frames" / "TS_01_000_0_0.mrc").touch()
    table = read_micrographs(job / "corrected_tilt_series.star", need_ctf=False)
    assert table.project == project
    assert table.micrographs[0].path == job / "frames" / "TS_01_000_0_0.mrc"
    beside = job / "tilt_series" / "MotionCorr" / "job002" / "other" / "TS_01_000_0_0.mrc"
    beside.parent.mkdir(parents=True)
    beside.touch()
    table = read_micrographs(job / "corrected_tilt_series.star", need_ctf=False)
    assert table.micrographs[41].path == beside


def test_the_ctf_of_each_tilt_and_its_series_optics_are_read(project: Path) -> None:
    path = project / "ctf.star"
    (project / "a.star").write_text(
        star_loop(
            "a",
            {
                "rlnMicrographName": ["m/a0.mrc", "m/a1.mrc", "m/a2.mrc"],
                "rlnMicrographPreExposure": [0.0, 3.0, 6.0],
                "rlnDefocusU": ["20000.5", "21000.5", "nan"],
                "rlnDefocusV": 20000.0,
                "rlnDefocusAngle": [10.0, 20.0, 30.0],
            },
        )
    )
    columns = {"rlnTomoName": ["a"], "rlnTomoTiltSeriesStarFile": "a.star", "rlnTomoTiltSeriesPixelSize": 1.5,
               "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}  # fmt: skip
    path.write_text(star_loop("global", columns))
    table = read_micrographs(path)
    assert table.micrographs[1].ctf == CTFParameters(21000.5, 20000, 20)
    assert table.micrographs[1].optics == Optics(1.5, 300, 2.7, 0.1)
    assert list(table.problems) == [2]
    assert "a.star: line 14, m/a2.mrc: rlnDefocusU is nan" in table.problems[2]
    del columns["rlnVoltage"]
    path.write_text(star_loop("global", columns))
    with pytest.raises(DataError, match=r"a\.star: .* has no rlnVoltage"):
        read_micrographs(path)
    assert read_micrographs(path, voltage=200).micrographs[0].optics.voltage == 200


def test_both_levels_are_written_with_all_columns(table: MicrographTable, project: Path, shared_data: Path) -> None:
    out = project / "Denoise" / "denoised.star"
    names = {row: table.name_of(out.parent / "TS_01" / f"{row}.mrc") for row in (40, 0, 7)}
    table.write(out, names, phase_flipped=True)
    before = starfile.read(project / "MotionCorr" / "job002" / "corrected_tilt_series.star", always_dict=True)["global"]
    # A loop of one row: starfile gives a frame, as for any loop.
    after = starfile.read(out, always_dict=True)["global"]
    assert list(after["rlnTomoTiltSeriesStarFile"]) == ["Denoise/denoised_tilt_series/TS_01.star"]
    assert list(after["rlnCtfDataArePhaseFlipped"]) == [1]
    kept = [label for label in before if label != "rlnTomoTiltSeriesStarFile"]
    pandas.testing.assert_frame_equal(after[kept], before[kept].iloc[:1])
    (images,) = starfile.read(shared_data / "star" / "relion5_even_odd_tilt_series.star", always_dict=True).values()
    expected = images.iloc[[0, 7, 40]].reset_index(drop=True)
    expected["rlnMicrographName"] = [f"Denoise/TS_01/{row}.mrc" for row in (0, 7, 40)]
    written = starfile.read(out.parent / "denoised_tilt_series" / "TS_01.star", always_dict=True)
    pandas.testing.assert_frame_equal(written["TS_01"], expected)
    again = read_micrographs(out, NamingOptions(project=project), need_ctf=False)
    assert [each.path for each in again.micrographs] == [project / name for _, name in sorted(names.items())]


def test_denoised_halves_get_their_columns(table: MicrographTable, project: Path) -> None:
    halves = {3: ("out/even.mrc", "out/odd.mrc"), 50: ("out/even2.mrc", "out/odd2.mrc")}
    table.write(project / "out.star", {3: "out/whole.mrc", 50: "out/whole2.mrc"}, halves=halves)
    again = read_micrographs(project / "out.star", NamingOptions(project=project), need_ctf=False)
    assert [(each.even, each.odd) for each in again.micrographs] == [
        (project / "out/even.mrc", project / "out/odd.mrc"),
        (project / "out/even2.mrc", project / "out/odd2.mrc"),
    ]


def test_a_table_of_failures_lists_the_names_that_a_retry_looks_for(table: MicrographTable, project: Path) -> None:
    path = project / "out" / "failed.star"
    table.select_rows([5, 60], folder=path.parent).write(path)
    assert listed_names(path) == {table.micrographs[5].name, table.micrographs[60].name}
    assert sorted(file.name for file in (path.parent / "failed_tilt_series").iterdir()) == ["TS_01.star", "TS_03.star"]
    again = read_micrographs(path, need_ctf=False)
    assert [each.name for each in again.micrographs] == [table.micrographs[5].name, table.micrographs[60].name]


def test_a_copy_of_the_whole_table_reads_the_same(table: MicrographTable, project: Path) -> None:
    copy = project / "out" / "source.star"
    table.select_rows(range(len(table)), folder=copy.parent).write(copy)
    again = read_micrographs(copy, need_ctf=False)
    assert again.micrographs == table.micrographs
    original = project / "MotionCorr" / "job002" / "tilt_series"
    for name in ("TS_01.star", "TS_03.star"):
        assert (copy.parent / "source_tilt_series" / name).read_bytes() == (original / name).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tilt_series/TS_03.star", "tilt_series/TS_04.star", r"line 17: tilt series TS_03 cannot be read: .*not found"),
        ("TS_03 MotionCorr", "TS_01 MotionCorr", r"line 17: a second tilt series is called TS_01"),
        ("_rlnTomoTiltSeriesPixelSize", "_rlnTomoSizeX", None),
    ],
)
def test_damaged_global_tables(project: Path, old: str, new: str, message: str | None) -> None:
    path = project / "MotionCorr" / "job002" / "corrected_tilt_series.star"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    if message is None:  # the size of the movies, where nothing else is known
        assert read_micrographs(path, need_ctf=False).micrographs[0].optics.pixel_size == 0.675
        return
    with pytest.raises(DataError, match=message):
        read_micrographs(path, need_ctf=False)
