"""`read_micrographs` for notebooks: RELION's own files, cryoSPARC's exposures and MRC files as DataFrames."""

from pathlib import Path

import mrcfile
import numpy as np
import pandas
import pytest
import starfile

from n2n_deploy import DataError, OpticsOptions, read_micrographs
from n2n_deploy.io import star
from n2n_deploy.io.star_document import micrograph_table
from n2n_deploy.io.star_frames import document_of

from .test_cryosparc import exposures, save


@pytest.mark.parametrize(
    "name", ["relion30_gctf.star", "relion31_micrographs_ctf.star", "relion5_corrected_micrographs.star"]
)
def test_relions_tables_are_as_starfile_reads_them_and_come_back(shared_data: Path, name: str) -> None:
    path = shared_data / "star" / name
    blocks = read_micrographs(path)
    for block, expected in starfile.read(path, always_dict=True).items():
        pandas.testing.assert_frame_equal(blocks[block], expected, check_dtype=False)
    given = star.read_micrographs(path, need_ctf=False)
    back = star.read_micrographs(document_of(blocks), need_ctf=False)
    assert [(each.name, each.optics, each.ctf) for each in back.micrographs] == [
        (each.name, each.optics, each.ctf) for each in given.micrographs
    ]


def test_labels_stay_text_with_every_digit_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "micrographs.star"
    path.write_text(
        "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnDefocusU\n_rlnPixelSize\n001 12000.500000 0.830\n"
    )
    frame = read_micrographs(path, parse_as_string=["rlnPixelSize"])["micrographs"]
    assert frame.loc[0].tolist() == ["001", 12000.5, "0.830"]
    document = document_of(frame)
    values = document.columns(micrograph_table(document)[0], ("rlnMicrographName", "rlnPixelSize"))
    assert values == {"rlnMicrographName": ["001"], "rlnPixelSize": ["0.830"]}


def test_cryosparcs_exposures_have_relions_labels_and_units(tmp_path: Path) -> None:
    table = exposures()
    blocks = read_micrographs(save(tmp_path / "exposures.cs", table))
    rows = blocks["micrographs"].merge(blocks["optics"], on="rlnOpticsGroup")
    np.testing.assert_allclose(rows["rlnDefocusU"], table["ctf/df1_A"])
    np.testing.assert_allclose(rows["rlnDefocusAngle"], np.degrees(table["ctf/df_angle_rad"]), rtol=1e-6)
    np.testing.assert_allclose(rows["rlnMicrographPixelSize"], table["micrograph_blob/psize_A"], rtol=1e-6)


def test_mrc_files_are_described(tmp_path: Path) -> None:
    for name, size in (("a", 0.85), ("b", None)):
        with mrcfile.new(tmp_path / f"{name}.mrc") as mrc:
            mrc.set_data(np.zeros((4, 6), np.int16))
            if size:
                mrc.voxel_size = size
    blocks = read_micrographs(str(tmp_path / "*.mrc"), optics=OpticsOptions(pixel_size=1.1, voltage=300))
    assert blocks["micrographs"]["rlnMicrographName"].tolist() == [str(tmp_path / f"{name}.mrc") for name in "ab"]
    assert blocks["optics"]["rlnMicrographPixelSize"].tolist() == [1.1]
    assert blocks["optics"]["rlnVoltage"].tolist() == [300]


def test_tilt_series_are_the_global_table(tmp_path: Path) -> None:
    path = tmp_path / "tilt_series.star"
    path.write_text("data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\nTS_01 TS_01.star\n")
    assert read_micrographs(path)["global"].loc[0].tolist() == ["TS_01", "TS_01.star"]


def test_particles_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "particles.star"
    path.write_text("data_particles\n\nloop_\n_rlnImageName\n_rlnMicrographName\n1@p.mrcs m.mrc\n")
    with pytest.raises(DataError, match=r"particles\.star: lists particles"):
        read_micrographs(path)
    with pytest.raises(DataError, match=r"none\.star: not found"):
        read_micrographs(tmp_path / "none.star")
