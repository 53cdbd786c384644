"""Optics of micrographs: from groups, rows, headers or the caller, and which of them wins."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.star import read_micrographs

Star = Callable[..., Path]


def test_optics_groups_and_phase_shift(star: Star) -> None:
    table = read_micrographs(star())
    a, b, c = table.micrographs
    assert a.optics == c.optics == Optics(0.85, 300, 2.7, 0.1)
    assert b.optics == Optics(1.31, 200, 1.4, 0.07)
    assert a.ctf == CTFParameters(10000.5, 9000.25, 30, 90)
    assert c.ctf is not None
    assert c.ctf.phase_shift == 45


def test_pixel_size_before_binning_is_the_last_resort(star: Star) -> None:
    path = star(("_rlnMicrographPixelSize", "_rlnSomethingElse"))
    assert read_micrographs(path).micrographs[0].optics.pixel_size == 0.425


def test_optics_given_as_a_list_of_pairs(star: Star) -> None:
    optics = (
        "data_optics\n\n_rlnOpticsGroup 1\n_rlnMicrographPixelSize 0.85 # binned\n_rlnVoltage 300\n"
        "_rlnSphericalAberration 2.7\n_rlnAmplitudeContrast 0.1\n\n"
    )
    table = read_micrographs(star(("            2 ", "            1 "), optics=optics))
    assert table.micrographs[1].optics == Optics(0.85, 300, 2.7, 0.1)


def test_pixel_size_from_the_header_where_the_table_has_none(star: Star, tmp_path: Path) -> None:
    path = star(optics="", micrographs="data_\nloop_\n_rlnMicrographName\na.mrc\nb.mrc\n")
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.zeros((4, 4), np.float32))
        mrc.voxel_size = 1.25
    table = read_micrographs(path, need_ctf=False)
    assert table.micrographs[0].optics.pixel_size == 1.25
    assert sorted(table.problems) == [1]


def test_given_optics_fill_in_what_the_table_lacks(star: Star) -> None:
    path = star(("_rlnVoltage", "_rlnVolts"), ("_rlnMicrographPixelSize", "_rlnA"), ("OriginalPixelSize", "OriginalB"))
    table = read_micrographs(path, pixel_size=1.06, voltage=200)
    assert [each.optics for each in table.micrographs] == [
        Optics(1.06, 200, 2.7, 0.1), Optics(1.06, 200, 1.4, 0.07), Optics(1.06, 200, 2.7, 0.1)
    ]  # fmt: skip
    assert table.notes == []


def test_the_tables_optics_win_over_given_ones_with_a_note(star: Star) -> None:
    table = read_micrographs(star(), pixel_size=0.85, voltage=200, spherical_aberration=2.7004, amplitude_contrast=0.07)
    assert [each.optics for each in table.micrographs[:2]] == [
        Optics(0.85, 300, 2.7, 0.1),
        Optics(1.31, 200, 1.4, 0.07),
    ]
    notes = [note.partition("micrographs.star: ")[2] for note in table.notes]
    assert notes == [
        "optics group 1: rlnVoltage is 300 and 200 was given; the table's value is used",
        "optics group 1: rlnAmplitudeContrast is 0.1 and 0.07 was given; the table's value is used",
        "optics group 2: rlnSphericalAberration is 1.4 and 2.7004 was given; the table's value is used",
        "optics group 2: pixel size is 1.31 and 0.85 was given; the table's value is used",
    ]


def test_a_voltage_of_zero_is_unknown(star: Star) -> None:
    """As in the tables that are made of MRC files."""
    path = star(("300.000000     2.700000", "0 0"), ("200.000000     1.400000", "0.0 0"))
    assert read_micrographs(path, need_ctf=False).micrographs[0].optics == Optics(0.85)
    given = read_micrographs(path, voltage=300, spherical_aberration=2.7, amplitude_contrast=0.1)
    assert given.micrographs[0].optics == Optics(0.85, 300, 2.7, 0.1)
    with pytest.raises(DataError, match=r"optics group 1: has no rlnVoltage, .* --voltage"):
        read_micrographs(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_size": 0.0}, "invalid pixel size 0; expected a number above 0"),
        ({"pixel_size": float("inf")}, "invalid pixel size inf"),
        ({"voltage": 300_000.0}, r"invalid voltage 300000; expected a number from 1 to 3000 \(kV\)"),
        ({"spherical_aberration": float("nan")}, "invalid spherical aberration nan"),
        ({"amplitude_contrast": 7.0}, "invalid amplitude contrast 7"),
    ],
)
def test_given_optics_out_of_range_are_refused(star: Star, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_micrographs(star(), **options)
