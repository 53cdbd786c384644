"""Micrograph tables read into records: against starfile's reading, and tables with one thing wrong."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.star import read_micrographs

Star = Callable[..., Path]


def frames(path: Path) -> dict[str, Any]:
    return {str(name): frame for name, frame in starfile.read(path, always_dict=True).items()}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["relion31_micrographs_ctf.star", "relion5_micrographs_ctf.star"])
def test_tables_with_optics_groups(shared_data: Path, name: str) -> None:
    path = shared_data / "star" / name
    table = read_micrographs(path)
    reference = frames(path)["micrographs"]
    assert [micrograph.name for micrograph in table.micrographs] == list(reference["rlnMicrographName"])
    assert [micrograph.row for micrograph in table.micrographs] == list(range(24))
    for label, attribute in (("U", "defocus_u"), ("V", "defocus_v"), ("Angle", "defocus_angle")):
        ours = [getattr(micrograph.ctf, attribute) for micrograph in table.micrographs]
        np.testing.assert_array_equal(ours, reference[f"rlnDefocus{label}"])
    assert {micrograph.optics for micrograph in table.micrographs} == {Optics(0.885, 200, 1.4, 0.1)}
    assert table.problems == {}


@pytest.mark.parametrize("name", ["relion31_corrected_micrographs.star", "relion5_corrected_micrographs.star"])
def test_tables_before_ctf_estimation(shared_data: Path, name: str) -> None:
    path = shared_data / "star" / name
    table = read_micrographs(path, need_ctf=False)
    assert len(table) == len(frames(path)["micrographs"])
    assert {micrograph.ctf for micrograph in table.micrographs} == {None}
    with pytest.raises(DataError, match=rf"{name}: data_micrographs has no rlnDefocusU and no .*CTF estimation"):
        read_micrographs(path)


def test_relion_30_tables(shared_data: Path) -> None:
    path = shared_data / "star" / "relion30_gctf.star"
    table = read_micrographs(path)
    (reference,) = frames(path).values()
    pixel_sizes = reference["rlnDetectorPixelSize"] * 1e4 / reference["rlnMagnification"]
    ours = [micrograph.optics for micrograph in table.micrographs]
    np.testing.assert_allclose([optics.pixel_size for optics in ours], pixel_sizes, rtol=1e-12)
    assert ours[0].pixel_size == pytest.approx(1.971, rel=1e-6)
    assert [(o.voltage, o.spherical_aberration, o.amplitude_contrast) for o in ours] == [(300, 2.7, 0.07)] * 60
    assert table.micrographs[59].ctf == CTFParameters(32093.152344, 33375.855469, 75.284645)


def test_tilt_series_with_halves(shared_data: Path) -> None:
    path = shared_data / "star" / "relion5_even_odd_tilt_series.star"
    table = read_micrographs(path, need_ctf=False, need_halves=True, pixel_size=1.35)
    (reference,) = frames(path).values()
    for micrograph, even, odd in zip(
        table.micrographs, reference["rlnMicrographNameEven"], reference["rlnMicrographNameOdd"], strict=True
    ):
        assert str(micrograph.even).endswith("/" + even)
        assert str(micrograph.odd).endswith("/" + odd)
        assert micrograph.optics.pixel_size == 1.35
    assert table.problems == {}
    # Neither the table nor a file says the pixel size: each row says so, and the table is read.
    table = read_micrographs(path, need_ctf=False)
    assert len(table.problems) == len(table) == 41
    assert "pixel size" in table.problems[0]
    assert "not found" in table.problems[0]


def test_particles_are_refused(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"relion31_particles_1k\.star: lists particles .* micrographs_ctf\.star"):
        read_micrographs(shared_data / "star" / "relion31_particles_1k.star")


def test_quotes_tabs_comments_and_carriage_returns(star: Star) -> None:
    path = star(
        ("Movies/a_DW.mrc", "'Movies/a b_DW.mrc'"),
        ("Movies/b_DW.mrc", '"Movies/b\'s_DW.mrc"'),
        ("Movies/c_DW.mrc", "# a remark\nMovies/c#1_DW.mrc"),
        ("45.000000", "45.000000 # remark"),
        ("  ", "\t "),
        ("\n", "\r\n"),
    )
    names = [micrograph.name for micrograph in read_micrographs(path).micrographs]
    assert names == ["Movies/a b_DW.mrc", "Movies/b's_DW.mrc", "Movies/c#1_DW.mrc"]


def test_names_start_at_project_table_or_a_folder_above(
    star: Star, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, project = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    monkeypatch.chdir(home)
    job = tmp_path / "CtfFind" / "job003"
    job.mkdir(parents=True)
    path = star().rename(job / "micrographs.star")
    assert read_micrographs(path).micrographs[0].path == home / "Movies" / "a_DW.mrc"
    touch(tmp_path / "Movies" / "a_DW.mrc", job / "Movies" / "b_DW.mrc", project / "Movies" / "c_DW.mrc")
    a, b, c = (micrograph.path for micrograph in read_micrographs(path).micrographs)
    assert a == tmp_path / "Movies" / "a_DW.mrc"
    assert b == job / "Movies" / "b_DW.mrc"
    assert c.parent in (a.parent, b.parent)
    a, b, c = (micrograph.path for micrograph in read_micrographs(path, NamingOptions(project=project)).micrographs)
    assert (b, c) == (job / "Movies" / "b_DW.mrc", project / "Movies" / "c_DW.mrc")
    touch(home / "Movies" / "a_DW.mrc")
    assert read_micrographs(path).micrographs[0].path == home / "Movies" / "a_DW.mrc"
    absolute = star(("Movies/a_DW.mrc", "/data/a_DW.mrc"))
    assert read_micrographs(absolute).micrographs[0].path == Path("/data/a_DW.mrc")
    with pytest.raises(UsageError, match="is not a folder"):
        read_micrographs(path, NamingOptions(project=tmp_path / "nowhere"))


def test_halves_by_suffix_and_template(star: Star, tmp_path: Path) -> None:
    path = star(("Movies/b_DW.mrc", "Movies/b.mrc"), ("Movies/c_DW.mrc", "Movies/c_DW.mrc.gz"))
    touch(tmp_path / "Movies" / "a_DW.mrc", tmp_path / "Halves" / "a_EVN.mrc")
    movies = tmp_path / "Movies"
    table = read_micrographs(path, NamingOptions(project=tmp_path, suffixes=("DW", "EVN", "ODD")), need_halves=True)
    assert [micrograph.even for micrograph in table.micrographs] == [
        movies / "a_EVN.mrc",
        movies / "b_EVN.mrc",
        movies / "c_EVN.mrc.gz",
    ]
    assert table.micrographs[0].odd == movies / "a_ODD.mrc"
    table = read_micrographs(path, NamingOptions(project=tmp_path, suffixes=("_DW", "-even", "-odd")))
    assert table.micrographs[0].even == movies / "a-even.mrc"
    table = read_micrographs(
        path,
        NamingOptions(
            project=tmp_path,
            even_template="{folder}/{stem}_EVN.mrc",
            odd_template="{folder}/{stem}_ODD{ending}",
        ),
    )
    assert table.micrographs[0].even == movies / "a_DW_EVN.mrc"
    assert table.micrographs[2].odd == movies / "c_DW_ODD.mrc.gz"
    table = read_micrographs(
        path,
        NamingOptions(
            project=tmp_path,
            suffixes=("DW", "EVN", "ODD"),
            even_template="Halves/{stem}_EVN.mrc",
            odd_template="Halves/{stem}_ODD.mrc",
        ),
    )
    assert table.micrographs[0].even == tmp_path / "Halves" / "a_EVN.mrc"
    assert table.micrographs[1].odd == tmp_path / "Halves" / "b_ODD.mrc"


def test_halves_by_label(star: Star) -> None:
    path = star(
        ("_rlnPhaseShift #6", "_rlnPhaseShift #6\n_rlnMicrographNameEven #7\n_rlnMicrographNameOdd #8"),
        ("90.000000", "90.0 Movies/a_1.mrc Movies/a_2.mrc"),
        ("     0.000000\n", "     0.0 Movies/b_1.mrc Movies/b_1.mrc\n"),
        ("45.000000", "45.0 None None"),
    )
    table = read_micrographs(path, need_halves=True)
    even, odd = table.micrographs[0].even, table.micrographs[0].odd
    assert even is not None
    assert odd is not None
    assert (even.name, odd.name) == ("a_1.mrc", "a_2.mrc")
    assert table.micrographs[2].even is None
    assert sorted(table.problems) == [1, 2]
    assert "same file" in table.problems[1]
    assert "rlnMicrographNameEven has no value" in table.problems[2]
    # What the user asks for wins over what the table says.
    table = read_micrographs(path, NamingOptions(suffixes=("DW", "EVN", "ODD")), need_halves=True)
    assert [str(micrograph.even)[-9:] for micrograph in table.micrographs] == [f"{x}_EVN.mrc" for x in "abc"]
    assert table.problems == {}


def test_a_defocus_of_zero_without_phase_plate_is_refused(star: Star) -> None:
    zeros = "0.000000     0.000000"
    fits = ("10000.500000  9000.250000", "20000.500000 19000.250000", "15000.500000 14000.250000")
    path = star(*((fit, zeros) for fit in fits))
    refused = read_micrographs(path).problems
    assert list(refused) == [1]  # the others have a phase plate, and may be in focus
    assert "line 30, Movies/b_DW.mrc: its defocus is 0" in refused[1]
    assert read_micrographs(path, need_ctf=False).problems == {}


def test_a_bad_row_does_not_affect_the_others(star: Star) -> None:
    path = star(("9000.250000    30", "nan    30"), ("-30.000000", "failed"), ("Movies/c_DW.mrc", "000001@c.mrcs"))
    table = read_micrographs(path)
    assert len(table) == 3
    assert table.micrographs[0].ctf is table.micrographs[1].ctf is None
    assert "line 29, Movies/a_DW.mrc: rlnDefocusV is nan, not a number" in table.problems[0]
    assert "line 30, Movies/b_DW.mrc: rlnDefocusAngle is failed, not a number" in table.problems[1]
    assert "line 31, 000001@c.mrcs: is a section of a stack" in table.problems[2]
    # Without phase flipping nobody needs the CTF.
    assert sorted(read_micrographs(path, need_ctf=False).problems) == [2]


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ([("_rlnMicrographName ", "_rlnMovieName ")], "data_micrographs and no rlnMicrographName"),
        ([("_rlnDefocusAngle", "_rlnAngle")], "has no rlnDefocusAngle"),
        ([("_rlnVoltage", "_rlnVolts")], "optics group 1: has no rlnVoltage"),
        ([("0.850000", "0.000000")], "optics group 1: rlnMicrographPixelSize is 0.000000; expected"),
        ([("0.850000", "-0.850000")], "optics group 1: rlnMicrographPixelSize is -0.850000; expected"),
        ([("0.850000", "unknown")], "optics group 1: rlnMicrographPixelSize is unknown; expected"),
        ([("300.000000", "300000.0")], r"optics group 1: rlnVoltage is 300000.0; expected .*\(kV\)"),
        ([("b_DW.mrc            2", "b_DW.mrc 3")], "line 30 is of optics group 3, but the file has 1, 2"),
        (
            [("_rlnOpticsGroup #2\n_rlnDefocusU", "_rlnSomething #2\n_rlnDefocusU")],
            "no rlnOpticsGroup, but .* 2",
        ),
        ([("    45.000000\n", "\n")], "line 31 has 5 values for 6 labels"),
        ([("    45.000000\n", "   45.0 7\n")], "line 31 has 7 values for 6 labels"),
        ([("_rlnMicrographPixelSize", "_rlnCtfDataArePhaseFlipped")], "already phase-flipped"),
        ([("_rlnMicrographPixelSize", "_rlnCtfDataAreCtfPremultiplied")], "already multiplied by their CTF"),
        ([("data_micrographs", "data_micrographs\nstray text")], "line 21 is not valid STAR"),
        ([("data_micrographs", "data_particles")], "lists particles"),
        ([("_rlnPhaseShift", "_rlnImageName")], "lists particles"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(star: Star, replacements: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        read_micrographs(star(*replacements))
    assert "micrographs.star: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tables_without_micrographs_are_refused(star: Star, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.star: not found"):
        read_micrographs(tmp_path / "nowhere.star")
    (tmp_path / "empty.star").touch()
    with pytest.raises(DataError, match=r"empty\.star: has no table and no rlnMicrographName"):
        read_micrographs(tmp_path / "empty.star")
    (tmp_path / "packed.star").write_bytes(gzip.compress(b"data_\n" * 100, mtime=0))
    with pytest.raises(DataError, match=r"packed\.star: not a STAR file"):
        read_micrographs(tmp_path / "packed.star")
    rowless = star(micrographs="data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n\n")
    with pytest.raises(DataError, match="data_micrographs has no rows"):
        read_micrographs(rowless, need_ctf=False)
    zero = star(optics="", micrographs="data_\nloop_\n_rlnMicrographName\n_rlnPixelSize\na.mrc 0.0\n")
    with pytest.raises(DataError, match=r"line 5: rlnPixelSize is 0\.0"):
        read_micrographs(zero, need_ctf=False)
    with pytest.raises(DataError, match=r"no rlnMicrographNameEven and no rlnMicrographNameOdd; .*--suffixes"):
        read_micrographs(star(), need_halves=True)


@pytest.mark.parametrize(
    "options",
    [
        {"even_template": "{stem}.mrc"},
        {"even_template": "{stem}.mrc", "odd_template": "{stem}.mrc"},
        {"even_template": "{stam}.mrc", "odd_template": "{stem}.mrc"},
        {"suffixes": ("DW", "EVN", "EVN")},
    ],
)
def test_invalid_half_names_are_refused(star: Star, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_micrographs(star(), NamingOptions(**options))


def test_one_micrograph_given_as_a_list_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "one.star"
    path.write_text(
        "data_micrographs\n\n_rlnMicrographName  a.mrc\n_rlnMicrographPixelSize  1.5\n_rlnCtfMaxResolution 3\n"
    )
    table = read_micrographs(path, need_ctf=False)
    assert table.micrographs[0].optics.pixel_size == 1.5
    table.write(tmp_path / "out.star", {0: "out/a.mrc"})
    assert (tmp_path / "out.star").read_text() == path.read_text().replace("a.mrc", "out/a.mrc")
