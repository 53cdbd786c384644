"""cryoSPARC exposures: read like RELION's tables, and written so that RELION reads them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import starfile

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.star import read_micrographs

CTF = [
    ("ctf/df1_A", "<f4"),
    ("ctf/df2_A", "<f4"),
    ("ctf/df_angle_rad", "<f4"),
    ("ctf/phase_shift_rad", "<f4"),
    ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"),
    ("ctf/exp_group_id", "<u4"),
]
BLOB = [
    ("micrograph_blob/path", "S64"),
    ("micrograph_blob/idx", "<u4"),
    ("micrograph_blob/shape", "<u4", (2,)),
    ("micrograph_blob/psize_A", "<f4"),
]


def exposures(count: int = 4) -> np.ndarray:
    """Exposures as patch motion correction and patch CTF leave them, of two optics groups."""
    table = np.zeros(count, [("uid", "<u8"), *BLOB, *CTF])
    for row in range(count):
        table[row] = (
            10**15 + row, f">J2/motioncorrected/m{row}.mrc".encode(), 0, (192, 232), 0.83 if row % 2 else 1.05,
            15000 + row, 14000 + row, 0.5 + row / 10, np.pi / 2, 300, 2.7, 0.1, row % 2,
        )  # fmt: skip
    return table


def save(path: Path, table: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.save(file, table)
    return path


def test_exposures_become_records(tmp_path: Path) -> None:
    table = read_micrographs(save(tmp_path / "exposures.cs", exposures()))
    assert [micrograph.name for micrograph in table.micrographs] == [
        f"J2/motioncorrected/m{row}.mrc" for row in range(4)
    ]
    for row, micrograph in enumerate(table.micrographs):
        assert micrograph.optics.pixel_size == pytest.approx(0.83 if row % 2 else 1.05, rel=1e-6)
        assert (micrograph.optics.voltage, micrograph.optics.amplitude_contrast) == (300.0, pytest.approx(0.1))
        assert micrograph.ctf is not None
        assert micrograph.ctf.defocus_u == pytest.approx(15000 + row)
        assert micrograph.ctf.defocus_angle == pytest.approx(np.degrees(0.5 + row / 10), rel=1e-6)
        assert micrograph.ctf.phase_shift == pytest.approx(90, rel=1e-6)


def test_slots_of_the_passthrough_are_joined_by_uid(tmp_path: Path) -> None:
    save(tmp_path / "J4_passthrough_exposures.cs", only(exposures(), BLOB)[::-1].copy())
    table = read_micrographs(save(tmp_path / "exposures_ctf_estimated.cs", only(exposures(), CTF)))
    names = {micrograph.name: micrograph.ctf.defocus_u for micrograph in table.micrographs if micrograph.ctf}
    assert names == {f"J2/motioncorrected/m{row}.mrc": pytest.approx(15000 + row) for row in range(4)}


def only(whole: np.ndarray, fields: list[tuple]) -> np.ndarray:
    """Some of the slots of a table, with its uids."""
    table = np.zeros(len(whole), [("uid", "<u8"), *fields])
    for name in table.dtype.names:
        table[name] = whole[name]
    return table


def test_the_main_file_of_a_passthrough_is_joined(tmp_path: Path) -> None:
    """Whoever gives the passthrough gets the CTF of the main file beside it; other tables there do not matter."""
    save(tmp_path / "exposures_ctf_estimated.cs", only(exposures(), CTF))
    save(tmp_path / "J5_particles.cs", np.zeros(3, [("uid", "<u8"), ("ctf/df1_A", "<f4")]))
    (tmp_path / "other.cs").write_bytes(b"\x94CSDAT rest")
    table = read_micrographs(save(tmp_path / "J4_passthrough_exposures.cs", only(exposures(), BLOB)[::-1].copy()))
    assert [each.ctf.defocus_u for each in table.micrographs if each.ctf] == pytest.approx([15003, 15002, 15001, 15000])


def test_messages_name_cryosparcs_fields(tmp_path: Path) -> None:
    path = save(tmp_path / "exposures.cs", only(exposures(), BLOB))
    with pytest.raises(DataError, match=r"exposures\.cs: has no ctf/df1_A and no ctf/df2_A and no ctf/df_angle_rad;"):
        read_micrographs(path)
    with pytest.raises(DataError, match=r"optics group 1: has no ctf/cs_mm, which the CTF needs; .*--cs"):
        read_micrographs(save(path, only(exposures(), [field for field in [*BLOB, *CTF] if field[0] != "ctf/cs_mm"])))
    whole = exposures()
    whole["ctf/df2_A"][1], whole["micrograph_blob/psize_A"][2] = np.nan, 0.5
    problems = read_micrographs(save(path, whole)).problems
    assert list(problems) == [1]
    assert "exposures.cs: row 2, J2/motioncorrected/m1.mrc: ctf/df2_A is nan, not a number" in problems[1]
    whole["ctf/accel_kv"] = 300_000
    with pytest.raises(DataError, match=r"ctf/accel_kv is 300000; expected a number from 1 to 3000 \(kV\)"):
        read_micrographs(save(path, whole))


def test_relion_reads_what_is_written(tmp_path: Path, relion: Callable[..., str]) -> None:
    table = read_micrographs(save(tmp_path / "exposures.cs", exposures()))
    table.write(tmp_path / "out.star", {row: f"out/m{row}.mrc" for row in range(4)}, phase_flipped=True)
    relion("relion_star_handler", "--i", "out.star", "--select", "rlnDefocusU", "--minval", 15001.5, "--o", "kept.star",
           cwd=tmp_path)  # fmt: skip
    kept = starfile.read(tmp_path / "kept.star")
    assert list(kept["micrographs"]["rlnMicrographName"]) == ["out/m2.mrc", "out/m3.mrc"]
    assert sorted(kept["optics"]["rlnMicrographPixelSize"]) == pytest.approx([0.83, 1.05])
    assert list(kept["optics"]["rlnCtfDataArePhaseFlipped"]) == [1, 1]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x94CSDAT rest", "compressed"),
        (b"data_\n", "not a cryoSPARC table"),
        (b"", "not a cryoSPARC table|cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "x.cs").write_bytes(content)
    with pytest.raises(DataError, match=word):
        read_micrographs(tmp_path / "x.cs")


def test_particles_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "particles.cs", np.zeros(3, [("uid", "<u8"), ("blob/path", "S20")]))
    with pytest.raises(DataError, match="micrograph_blob/path"):
        read_micrographs(path)
