"""Whether a source is a table that states CTFs, on RELION's and cryoSPARC's own tables."""

from pathlib import Path

import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.star import has_ctf


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("relion30_gctf", True),
        ("relion31_micrographs_ctf", True),
        ("relion31_corrected_micrographs", False),
        ("relion5_micrographs_ctf", True),
        ("relion5_corrected_micrographs", False),
    ],
)
def test_tables_of_relion(name: str, stated: bool, shared_data: Path) -> None:
    assert has_ctf(shared_data / "star" / f"{name}.star") is stated


@pytest.mark.parametrize("fitted", [True, False])
def test_tilt_series_of_relion_5(fitted: bool, shared_data: Path, tmp_path: Path) -> None:
    text = (shared_data / "star" / "relion5_even_odd_tilt_series.star").read_text()
    if fitted:  # its movies' metadata in the place of the CTF fit's columns
        for label, column in (("DefocusU", "AccumMotionTotal"), ("DefocusV", "AccumMotionEarly")):
            text = text.replace(f"_rln{column} ", f"_rln{label} ")
        text = text.replace("_rlnAccumMotionLate ", "_rlnDefocusAngle ")
    (tmp_path / "TS_01.star").write_text(text)
    columns = "".join(f"_rln{label}\n" for label in ("TomoName", "TomoTiltSeriesStarFile"))
    (tmp_path / "tilt_series.star").write_text(f"data_global\n\nloop_\n{columns}TS_01 TS_01.star\n")
    assert has_ctf(tmp_path / "tilt_series.star") is fitted


@pytest.mark.parametrize("fitted", [True, False])
def test_exposures_of_cryosparc(fitted: bool, tmp_path: Path) -> None:
    fields = [("uid", "<u8"), ("micrograph_blob/path", "S64"), ("micrograph_blob/psize_A", "<f4")]
    fields += [(f"ctf/{name}", "<f4") for name in ("df1_A", "df2_A", "df_angle_rad") if fitted]
    with (tmp_path / "exposures.cs").open("wb") as file:
        np.save(file, np.ones(2, fields))
    assert has_ctf(tmp_path / "exposures.cs") is fitted


def test_files_have_none(tmp_path: Path) -> None:
    assert not has_ctf(f"{tmp_path}/*.mrc")
    assert not has_ctf([tmp_path / "a.mrc", tmp_path / "b.mrc"])
    assert not has_ctf(tmp_path)


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.star"):
        has_ctf(tmp_path / "no.star")
