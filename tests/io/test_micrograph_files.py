"""MRC files in place of a table."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.star import read_micrographs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two micrographs with halves, of different pixel sizes, and one file that is not MRC."""
    (tmp_path / "raw").mkdir()
    for name, pixel_size in (("a", 0.85), ("b", 1.31)):
        for suffix in ("DW", "EVN", "ODD"):
            with mrcfile.new(tmp_path / "raw" / f"{name}_{suffix}.mrc") as mrc:
                mrc.set_data(np.zeros((4, 6), np.int16))
                mrc.voxel_size = pixel_size
    (tmp_path / "raw" / "c_DW.mrc").write_bytes(b"not much")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_globs_lists_and_names(folder: Path) -> None:
    table = read_micrographs("raw/*_DW.mrc", need_ctf=False)
    assert [micrograph.name for micrograph in table.micrographs] == [
        "raw/a_DW.mrc",
        "raw/b_DW.mrc",
        "raw/c_DW.mrc",
    ]
    assert [micrograph.optics.pixel_size for micrograph in table.micrographs[:2]] == [0.85, 1.31]
    assert table.micrographs[0].path == folder / "raw" / "a_DW.mrc"
    assert list(table.problems) == [2]
    assert "ends after 8" in table.problems[2]
    (folder / "names.txt").write_text("# ours\nraw/a_DW.mrc\n\nraw/b_DW.mrc\n")
    for source in ("names.txt", ["raw/a_DW.mrc", Path("raw/b_DW.mrc")], ["raw/a_DW.mrc", "raw/[ab]_DW.mrc"]):
        other = read_micrographs(source, need_ctf=False)
        assert other.micrographs == table.micrographs[:2]


def test_halves_that_a_glob_matches_are_left_out(folder: Path) -> None:
    table = read_micrographs("**/*.mrc", NamingOptions(suffixes=("DW", "EVN", "ODD")), need_ctf=False, need_halves=True)
    assert [micrograph.path.name for micrograph in table.micrographs] == ["a_DW.mrc", "b_DW.mrc", "c_DW.mrc"]
    assert table.micrographs[1].even == folder / "raw" / "b_EVN.mrc"
    assert table.micrographs[1].odd == folder / "raw" / "b_ODD.mrc"


def test_the_written_table_has_a_group_for_each_pixel_size(folder: Path, relion: Callable[..., str]) -> None:
    table = read_micrographs("raw/*_DW.mrc", need_ctf=False)
    table.write(folder / "out" / "denoised.star", {0: "out/a b.mrc", 1: "out/b.mrc"}, phase_flipped=False)
    told = starfile.read(folder / "out" / "denoised.star")
    assert told["micrographs"]["rlnMicrographName"].tolist() == ["out/a b.mrc", "out/b.mrc"]
    assert told["micrographs"]["rlnOpticsGroup"].tolist() == [1, 2]
    assert told["optics"]["rlnMicrographPixelSize"].tolist() == [0.85, 1.31]
    assert told["optics"]["rlnCtfDataArePhaseFlipped"].tolist() == [0, 0]
    again = read_micrographs(folder / "out" / "denoised.star", need_ctf=False)
    assert [micrograph.optics for micrograph in again.micrographs] == [
        micrograph.optics for micrograph in table.micrographs[:2]
    ]
    relion("relion_star_handler", "--i", "out/denoised.star", "--o", "relion.star", cwd=folder)
    assert starfile.read(folder / "relion.star")["micrographs"]["rlnOpticsGroup"].tolist() == [1, 2]


def test_a_table_of_failed_files_can_be_given_again(folder: Path) -> None:
    table = read_micrographs("raw/*_DW.mrc", need_ctf=False)
    table.write(folder / "out" / "failed.star", {2: "raw/c_DW.mrc"})
    again = read_micrographs(folder / "out" / "failed.star", need_ctf=False)
    assert again.micrographs[0].path == folder / "raw" / "c_DW.mrc"
    assert list(again.problems) == [0]
    (folder / "raw" / "c_DW.mrc").write_bytes((folder / "raw" / "a_DW.mrc").read_bytes())
    again = read_micrographs(folder / "out" / "failed.star", need_ctf=False)
    assert again.problems == {}
    assert again.micrographs[0].optics.pixel_size == 0.85


def test_globs_leave_the_output_folder_out(folder: Path) -> None:
    out = folder / "raw" / "denoised"
    out.mkdir()
    (folder / "link").symlink_to(out)
    for name in ("a_DW.mrc", "b_DW.mrc"):
        (out / name).write_bytes((folder / "raw" / name).read_bytes())
    table = read_micrographs("raw/**/*_DW.mrc", need_ctf=False, exclude=folder / "link")
    assert [each.name for each in table.micrographs] == ["raw/a_DW.mrc", "raw/b_DW.mrc", "raw/c_DW.mrc"]
    assert any(f"2 files in the output folder {folder / 'link'} left out" in note for note in table.notes)
    # A file that is named outright counts.
    table = read_micrographs(["raw/denoised/a_DW.mrc"], need_ctf=False, exclude=out)
    assert len(table) == 1
    with pytest.raises(DataError, match="no file matches apart from 2 files in the output folder"):
        read_micrographs("raw/denoised/*.mrc", need_ctf=False, exclude=out)


def test_halves_and_several_sums_of_one_movie_are_noted(folder: Path) -> None:
    for name in ("a_DWS.mrc", "a.mrc", "b.mrc", "z.mrc"):
        (folder / "raw" / name).write_bytes((folder / "raw" / "a_DW.mrc").read_bytes())
    halves, sums = read_micrographs("raw/*.mrc", need_ctf=False).notes
    assert halves.startswith("4 files of 11 seem to be even or odd halves (_EVN, _ODD); ")
    assert sums.startswith("2 micrographs are there as several sums of the same movie (_DW, _DWS, no suffix)")
    (left_out, sums) = read_micrographs("raw/*.mrc", NamingOptions(suffixes=("DW", "EVN", "ODD")), need_ctf=False).notes
    assert "4 files with the suffixes of even and odd halves left out" in left_out
    assert read_micrographs("raw/*_DW.mrc", need_ctf=False).notes == []


def test_given_optics_are_used_for_files(folder: Path) -> None:
    table = read_micrographs("raw/[ab]_DW.mrc", need_ctf=False, pixel_size=0.85, voltage=200, amplitude_contrast=0.07)
    assert [each.optics for each in table.micrographs] == [Optics(0.85, 200, None, 0.07)] * 2
    (note,) = table.notes
    assert "headers of 1 file contradict the given pixel size of 0.85 Å" in note
    assert "b_DW.mrc has 1.31 Å" in note
    table.write(folder / "out.star", {0: "a.mrc", 1: "b.mrc"})
    told = starfile.read(folder / "out.star")
    assert (told["optics"]["rlnVoltage"].tolist(), told["optics"]["rlnAmplitudeContrast"].tolist()) == ([200], [0.07])


def test_invalid_sources_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="has no CTF parameters"):
        read_micrographs("raw/*.mrc")
    with pytest.raises(UsageError, match="--suffixes"):
        read_micrographs("raw/*.mrc", need_ctf=False, need_halves=True)
    with pytest.raises(DataError, match=r"nothing/\*\.mrc: no file matches"):
        read_micrographs("nothing/*.mrc", need_ctf=False)
    with pytest.raises(DataError, match=r"raw: is a folder; .*'.*raw/\*\.mrc'"):
        read_micrographs(folder / "raw", need_ctf=False)
    with pytest.raises(UsageError, match=r"x\.star: is not an MRC file"):
        read_micrographs(["x.star", "raw/a_DW.mrc"], need_ctf=False)
    with pytest.raises(DataError, match="no micrographs given"):
        read_micrographs([], need_ctf=False)
