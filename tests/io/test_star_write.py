"""Micrograph tables written again: byte for byte, and as starfile and RELION read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import starfile

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.io.star import MicrographTable, listed_names, read_micrographs
from n2n_deploy.io.star_document import StarDocument

Star = Callable[..., Path]

EVEN, ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"
FLIPPED = "rlnCtfDataArePhaseFlipped"
UNKNOWN = """
data_acquisition

_facilitySession  'a session, with "quotes"'
_facilityNote
;
several lines
  of text
;
loop_
_facilityKey
_facilityValue   # with a remark
x 1.50
y "two words"

"""


def frames(path: Path) -> dict[str, Any]:
    """All tables of a file, by starfile."""
    return {str(name): frame for name, frame in starfile.read(path, always_dict=True).items()}


def same_names(table: MicrographTable) -> dict[int, str]:
    return {micrograph.row: micrograph.name for micrograph in table.micrographs}


@pytest.mark.parametrize(
    "name",
    [
        "relion30_gctf.star",
        "relion31_corrected_micrographs.star",
        "relion31_micrographs_ctf.star",
        "relion5_corrected_micrographs.star",
        "relion5_even_odd_tilt_series.star",
        "relion5_micrographs_ctf.star",
    ],
)
def test_a_round_trip_changes_no_byte(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = shared_data / "star" / name
    table = read_micrographs(path, NamingOptions(project=tmp_path), need_ctf=False)
    table.write(tmp_path / "same.star", same_names(table))
    assert (tmp_path / "same.star").read_bytes() == path.read_bytes()


def test_a_round_trip_of_particles_changes_no_byte(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "star" / "relion31_particles_1k.star"
    document = StarDocument.read(path)
    column = document.columns(document.tables[1], ["rlnImageName"])["rlnImageName"]
    document.set_column(document.tables[1], "rlnImageName", dict(enumerate(column)))
    document.write(tmp_path / "same.star")
    assert (tmp_path / "same.star").read_bytes() == path.read_bytes()


def test_only_names_and_the_phase_flip_flag_change(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "star" / "relion5_micrographs_ctf.star"
    table = read_micrographs(path)
    names = {row: f"Denoise/{row}.mrc" for row in (20, 3, 7)}
    table.write(tmp_path / "out.star", names, phase_flipped=True)
    before, after = frames(path), frames(tmp_path / "out.star")
    rows = before["micrographs"].iloc[[3, 7, 20]].reset_index(drop=True)
    rows["rlnMicrographName"] = ["Denoise/3.mrc", "Denoise/7.mrc", "Denoise/20.mrc"]
    pandas.testing.assert_frame_equal(after["micrographs"], rows)
    assert after["optics"].pop(FLIPPED).tolist() == [1]
    pandas.testing.assert_frame_equal(after["optics"], before["optics"])
    # The table that was read can be written again, unchanged.
    table.write(tmp_path / "same.star", same_names(table))
    assert (tmp_path / "same.star").read_bytes() == path.read_bytes()


def test_unknown_blocks_comments_and_line_ends_stay(star: Star, tmp_path: Path) -> None:
    path = star(
        ("data_micrographs", f"{UNKNOWN}\n# a comment\ndata_micrographs"),
        ("Movies/b_DW.mrc", "# between rows\n'b_DW.mrc'"),
        ("45.000000", "45.000000 # remark"),
        ("\n", "\r\n"),
    )
    table = read_micrographs(path)
    table.write(tmp_path / "same.star", same_names(table))
    assert (tmp_path / "same.star").read_bytes() == path.read_bytes()
    table.write(tmp_path / "out.star", {0: "x.mrc", 2: "two words.mrc"}, phase_flipped=False)
    expected = path.read_bytes().decode().split("\r\n")
    written = (tmp_path / "out.star").read_bytes().decode().split("\r\n")
    assert [line for line in written if line not in expected] == [
        f"_{FLIPPED} #8",
        "first            1     0.425000   300.000000     2.700000     0.100000     0.850000 0",
        "second            2     0.655000   200.000000     1.400000     0.070000     1.310000 0",
        "x.mrc            1 10000.500000  9000.250000    30.000000    90.000000",
        '"two words.mrc"            1 15000.500000 14000.250000     0.000000    45.000000 # remark',
    ]
    assert len(written) == len(expected)  # a label more, a row less
    assert [micrograph.name for micrograph in read_micrographs(tmp_path / "out.star").micrographs] == [
        "x.mrc",
        "two words.mrc",
    ]


def test_the_phase_flip_flag_in_tables_without_optics(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "star" / "relion30_gctf.star"
    table = read_micrographs(path)
    table.write(tmp_path / "out.star", {59: "last.mrc", 1: "second.mrc"}, phase_flipped=True)
    (before,), (after,) = frames(path).values(), frames(tmp_path / "out.star").values()
    assert after.pop(FLIPPED).tolist() == [1, 1]
    rows = before.iloc[[1, 59]].reset_index(drop=True)
    rows["rlnMicrographName"] = ["second.mrc", "last.mrc"]
    pandas.testing.assert_frame_equal(after, rows)
    with pytest.raises(DataError, match="already phase-flipped"):
        read_micrographs(tmp_path / "out.star")


def test_what_was_flipped_before_stays_flipped(star: Star, tmp_path: Path) -> None:
    path = star(("_rlnMicrographPixelSize", f"_{FLIPPED}"), ("0.850000", "1"), ("1.310000", "0"))
    table = read_micrographs(path, need_ctf=False)
    table.write(tmp_path / "out.star", same_names(table), phase_flipped=False)
    assert (tmp_path / "out.star").read_bytes() == path.read_bytes()
    table.write(tmp_path / "out.star", same_names(table), phase_flipped=True)
    assert frames(tmp_path / "out.star")["optics"][FLIPPED].tolist() == [1, 1]


def test_the_phase_flip_flag_in_optics_given_as_a_list(star: Star, tmp_path: Path) -> None:
    optics = "data_optics\n\n_rlnOpticsGroup 1\n_rlnMicrographPixelSize 0.85\n\n"
    path = star(("            2 ", "            1 "), optics=optics)
    table = read_micrographs(path, need_ctf=False)
    table.write(tmp_path / "out.star", same_names(table), phase_flipped=True)
    written = read_micrographs(tmp_path / "out.star", need_ctf=False)
    assert written.micrographs[0].optics.pixel_size == 0.85
    with pytest.raises(DataError, match="already phase-flipped"):
        read_micrographs(tmp_path / "out.star")


def test_the_input_is_never_overwritten(star: Star) -> None:
    table = read_micrographs(star())
    assert table.path is not None
    with pytest.raises(UsageError, match="is the input table"):
        table.write(table.path, same_names(table))


def test_names_are_relative_to_the_project(star: Star, tmp_path: Path) -> None:
    table = read_micrographs(star(), NamingOptions(project=tmp_path))
    assert table.name_of(tmp_path / "Denoise" / "a.mrc") == "Denoise/a.mrc"
    assert table.name_of(tmp_path / "x" / ".." / "a.mrc") == "a.mrc"
    assert table.name_of("/elsewhere/a.mrc") == "/elsewhere/a.mrc"
    out = tmp_path / "Denoise" / "denoised.star"
    (tmp_path / "Denoise").mkdir()
    (tmp_path / "Denoise" / "a.mrc").touch()
    table.write(out, {0: table.name_of(tmp_path / "Denoise" / "a.mrc")}, phase_flipped=True)
    assert read_micrographs(out, need_ctf=False).micrographs[0].path == tmp_path / "Denoise" / "a.mrc"


@pytest.mark.parametrize("name", ["relion31_micrographs_ctf.star", "relion5_micrographs_ctf.star"])
def test_relion_reads_what_is_written(shared_data: Path, tmp_path: Path, relion: Callable[..., str], name: str) -> None:
    table = read_micrographs(shared_data / "star" / name)
    names = {row: f"Denoise/{row:02d}.mrc" for row in range(0, 24, 2)}
    table.write(tmp_path / "denoised.star", names, phase_flipped=True)
    relion("relion_star_handler", "--i", "denoised.star", "--o", "relion.star", cwd=tmp_path)
    ours, theirs = frames(tmp_path / "denoised.star"), frames(tmp_path / "relion.star")
    for block in ("optics", "micrographs"):
        assert set(ours[block]) == set(theirs[block])
        pandas.testing.assert_frame_equal(theirs[block][list(ours[block])], ours[block])


def test_relion_joins_it_with_its_own_tables(shared_data: Path, tmp_path: Path, relion: Callable[..., str]) -> None:
    path = shared_data / "star" / "relion31_micrographs_ctf.star"
    table = read_micrographs(path)
    table.write(tmp_path / "a.star", {0: "a.mrc", 1: "b.mrc"})
    table.write(tmp_path / "b.star", {2: "c.mrc"})
    relion("relion_star_handler", "--combine", "--i", "a.star b.star", "--o", "all.star", cwd=tmp_path)
    assert frames(tmp_path / "all.star")["micrographs"]["rlnMicrographName"].tolist() == [
        "a.mrc",
        "b.mrc",
        "c.mrc",
    ]


def test_halves_can_be_found_from_where_the_table_is_written(star: Star, tmp_path: Path) -> None:
    """Relative names of halves stay below the project, and become absolute elsewhere, as RELION needs the columns."""
    path = star(
        ("_rlnPhaseShift #6", f"_rlnPhaseShift #6\n_{EVEN} #7\n_{ODD} #8"),
        ("90.000000", "90.0 Movies/a_EVN.mrc Movies/a_ODD.mrc"),
        ("     0.000000\n", "     0.0 /data/b_EVN.mrc /data/b_ODD.mrc\n"),
        ("45.000000", "45.0 None None"),
    )
    project = tmp_path / "project"
    (project / "Movies").mkdir(parents=True)
    for name in ("a_DW.mrc", "a_EVN.mrc", "a_ODD.mrc"):
        (project / "Movies" / name).touch()
    table = read_micrographs(path, NamingOptions(project=project))
    names = {row: f"/out/{row}.mrc" for row in range(3)}
    table.write(project / "Denoise" / "denoised.star", names)
    table.write(tmp_path / "elsewhere" / "denoised.star", names)
    below = frames(project / "Denoise" / "denoised.star")["micrographs"]
    assert below[EVEN].tolist() == ["Movies/a_EVN.mrc", "/data/b_EVN.mrc", "None"]
    found = read_micrographs(tmp_path / "elsewhere" / "denoised.star", need_ctf=False).micrographs
    assert [each.odd for each in found] == [project / "Movies" / "a_ODD.mrc", Path("/data/b_ODD.mrc"), None]


def test_denoised_halves_get_their_columns(star: Star, tmp_path: Path) -> None:
    table = read_micrographs(star())
    table.write(tmp_path / "out.star", {2: "c.mrc", 0: "a.mrc"}, halves={0: ("a1.mrc", "a2.mrc"), 2: ("c1", "c 2")})
    written = frames(tmp_path / "out.star")["micrographs"]
    assert written[EVEN].tolist() == ["a1.mrc", "c1"]
    assert written[ODD].tolist() == ["a2.mrc", "c 2"]


def test_rows_are_selected_under_the_names_that_they_have(star: Star, tmp_path: Path) -> None:
    table = read_micrographs(star())
    table.select_rows([2, 1], folder=tmp_path).write(tmp_path / "failed.star")
    assert listed_names(tmp_path / "failed.star") == {"Movies/b_DW.mrc", "Movies/c_DW.mrc"}
    table.select_rows(range(3)).write(tmp_path / "same.star")
    assert table.path is not None
    assert (tmp_path / "same.star").read_bytes() == table.path.read_bytes()
