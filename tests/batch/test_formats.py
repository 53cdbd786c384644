"""Tables of other programs, and mixed data: each micrograph has its own size, pixel size and optics."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import starfile

from n2n_deploy import DenoiseOptions, denoise

from .conftest import MakeBundle, band_limited

PLAIN = DenoiseOptions(report=False)

MIXED = """
data_optics

loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnMicrographPixelSize
titan 1 300 2.7 0.1 2.0
arctica 2 200 1.4 0.07 1.3
plate 3 300 2.7 0.1 2.6

data_micrographs

loop_
_rlnMicrographName
_rlnOpticsGroup
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnPhaseShift
a/m0.mrc 1 15000 14900 30 0
b/m0.mrc 2 22000 21000 -60 0
b/m1.mrc 2 9000 8900 10 0
c/m0.mrc 3 7000 6900 80 90
"""

SHAPES = {"a/m0": ((192, 232), 2.0), "b/m0": ((301, 255), 1.3), "b/m1": ((256, 256), 1.3), "c/m0": ((163, 201), 2.6)}


def write(path: Path, image: np.ndarray, pixel_size: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path) as mrc:
        mrc.set_data(image)
        mrc.voxel_size = pixel_size


def test_sizes_pixel_sizes_and_optics_groups_in_one_run(
    identity_bundle: MakeBundle, tmp_path: Path, relion: Callable[..., str]
) -> None:
    (tmp_path / "mixed.star").write_text(MIXED)
    for name, (shape, pixel_size) in SHAPES.items():
        write(tmp_path / f"{name}.mrc", band_limited(len(name) + shape[0], shape), pixel_size)
    bundle = identity_bundle(phase_flip=True, max_resolution=8.0)
    together = denoise(tmp_path / "mixed.star", bundle, tmp_path / "together", options=PLAIN)
    assert (together.denoised, together.failures) == (4, {})
    # Each alone comes out as it does beside the others.
    optics, _, rows = MIXED.partition("data_micrographs")
    head, lines = rows.rsplit("_rlnPhaseShift\n", 1)
    for index, line in enumerate(lines.strip().splitlines()):
        (tmp_path / f"alone{index}.star").write_text(f"{optics}data_micrographs{head}_rlnPhaseShift\n{line}\n")
        denoise(tmp_path / f"alone{index}.star", bundle, tmp_path / f"alone{index}", options=PLAIN)
        name = line.split()[0]
        ours, alone = (mrcfile.read(tmp_path / folder / name) for folder in ("together", f"alone{index}"))
        np.testing.assert_array_equal(ours, alone)
        shape, pixel_size = SHAPES[name.removesuffix(".mrc")]
        assert ours.shape == shape
        with mrcfile.open(tmp_path / "together" / name, header_only=True) as mrc:
            np.testing.assert_allclose(mrc.voxel_size.x, pixel_size, rtol=1e-6)
    relion("relion_star_handler", "--i", "together/denoised.star", "--select", "rlnPhaseShift", "--minval", 45,
           "--o", "plate.star", cwd=tmp_path)  # fmt: skip
    kept = starfile.read(tmp_path / "plate.star", always_dict=True)
    assert list(kept["micrographs"]["rlnMicrographName"]) == ["together/c/m0.mrc"]


def test_cryosparc_exposures_go_in_and_relion_reads_what_comes_out(
    identity_bundle: MakeBundle, tmp_path: Path, relion: Callable[..., str]
) -> None:
    fields = [
        ("uid", "<u8"), ("micrograph_blob/path", "S64"), ("micrograph_blob/psize_A", "<f4"),
        ("micrograph_blob/shape", "<u4", (2,)), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"),
        ("ctf/phase_shift_rad", "<f4"), ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"),
    ]  # fmt: skip
    table = np.zeros(3, fields)
    star = MIXED.replace("a/m0.mrc 1 15000 14900 30 0\nb/m0.mrc 2 22000 21000 -60 0\nb/m1.mrc 2 9000 8900 10 0\n", "")
    star = star.replace("c/m0.mrc 3 7000 6900 80 90\n", "")
    for row in range(3):
        name, angle = f"S1/motioncorrected/m{row}.mrc", 30.0 + 40 * row
        write(tmp_path / name, band_limited(row), 2.0)
        table[row] = (row + 1, name.encode(), 2.0, (192, 232), 15000, 14000, np.radians(angle), 0.0, 300, 2.7, 0.1)
        star += f"{name} 1 15000 14000 {angle} 0\n"
    with (tmp_path / "exposures.cs").open("wb") as file:
        np.save(file, table)
    (tmp_path / "same.star").write_text(star)
    bundle = identity_bundle(phase_flip=True)
    ours = denoise(tmp_path / "exposures.cs", bundle, tmp_path / "ours", options=PLAIN)
    denoise(tmp_path / "same.star", bundle, tmp_path / "theirs", options=PLAIN)
    assert (ours.denoised, ours.failures) == (3, {})
    for row in range(3):
        name = f"S1/motioncorrected/m{row}.mrc"
        np.testing.assert_allclose(mrcfile.read(tmp_path / "ours" / name), mrcfile.read(tmp_path / "theirs" / name),
                                   atol=1e-3)  # fmt: skip
    relion("relion_star_handler", "--i", ours.table, "--select", "rlnDefocusAngle", "--minval", 60, "--o", "kept.star",
           cwd=tmp_path)  # fmt: skip
    assert len(starfile.read(tmp_path / "kept.star")["micrographs"]) == 2
