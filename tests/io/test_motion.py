"""Motion tables: RELION's own, MotionCor's by the code that writes them, cryoSPARC's by its two public converters."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from star_builder import star_loop

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.motion import read_motion

SHIFTS = np.array([[0.0, 0.0], [1.25, -0.5], [2.5, -1.5], [3.75, -2.0]])

ALN = """setting
   stackSize: 96 64 6 1
   patches: 2 1 50
   throw: 1 1
#    Global Shift
#---------------------
globalShift
   stackID 0
     0    +0.000    +0.000
     1    +1.250    -0.500
     2    +2.500    -1.500
     3    +3.750    -2.000
#    Local Shift
#---------------------
localShift
   patchID: 0
   Converge: 1
     0     24.00     32.00    +0.100    +0.200
"""
"""As MotionCor3's CSaveAlign.cpp writes it: two frames thrown away, four aligned, patches."""

LOG = "# full frame alignment\n" + "".join(f"{i:4d}  {x:8.2f}  {y:8.2f}\n" for i, (x, y) in enumerate(SHIFTS, 1))
"""As MotionCor2 and 3 (CFullAlign.cpp) write -Full.log."""


def relion_table(*replacements: tuple[str, str], frames: int = 4, local: int = 36) -> str:
    """A table as RELION 3.1 and later write it."""
    general = (
        "\n# version 30001\n\ndata_general\n\n_rlnImageSizeX 96\n_rlnImageSizeY 64\n_rlnImageSizeZ 4\n"
        '_rlnMicrographMovieName Movies/a.tiff\n_rlnMicrographGainName "out/the gain.mrc"\n'
        "_rlnMicrographBinning 2.000000\n_rlnMicrographOriginalPixelSize 0.885000\n_rlnMicrographDoseRate 1.277000\n"
        "_rlnMicrographPreExposure -1.000000\n_rlnVoltage 200.000000\n_rlnMicrographStartFrame 1\n"
        "_rlnMotionModelVersion 1\n_rlnEERUpsampling 2\n_rlnEERGrouping 32\n"
    )
    shifts = {
        "rlnMicrographFrameNumber": list(range(1, frames + 1)),
        "rlnMicrographShiftX": SHIFTS[:frames, 0].tolist(),
        "rlnMicrographShiftY": SHIFTS[:frames, 1].tolist(),
    }
    model = {"rlnMotionModelCoeffsIdx": list(range(local)), "rlnMotionModelCoeff": [0.5 * i for i in range(local)]}
    hot = {"rlnCoordinateX": [3.0, 90.0], "rlnCoordinateY": [60.0, 1.0]}
    blocks = (("global_shift", shifts), ("local_motion_model", model), ("hot_pixels", hot))
    text = general + "".join(star_loop(name, columns) for name, columns in blocks)
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_relion_table(tmp_path: Path) -> None:
    motion = read_motion(write(tmp_path / "a.star", relion_table()), is_flipped=True)
    np.testing.assert_array_equal(motion.shifts, SHIFTS)
    assert motion.local is not None
    assert motion.hot_pixels is not None
    # Coefficients were fitted to binned frames.
    np.testing.assert_array_equal(motion.local, np.arange(36).reshape(2, 18) * 0.5 * 2.0)
    assert motion.hot_pixels.tolist() == [[3, 60], [90, 1]]
    assert (motion.movie, motion.gain, motion.shape) == ("Movies/a.tiff", "out/the gain.mrc", (64, 96))
    assert (motion.binning, motion.pixel_size, motion.voltage) == (2.0, 0.885, 200.0)
    assert (motion.dose_per_frame, motion.pre_exposure) == (1.277, None)
    assert (motion.eer_upsampling, motion.eer_grouping, motion.start) == (2, 32, 1)


def test_frames_that_were_not_aligned(tmp_path: Path) -> None:
    for replacements, frames in ((("1.250000", "-9999.000000"),), 4), ((), 3):
        path = write(tmp_path / "a.star", relion_table(*replacements, frames=frames))
        missing = np.isnan(read_motion(path, is_flipped=False).shifts).all(axis=1)
        assert missing.tolist() == ([False, True, False, False] if frames == 4 else [False, False, False, True])


def test_relion_writes_what_is_read(tmp_path: Path, relion: Callable[..., str]) -> None:
    """A movie that drifts by one pixel a frame along x: the correction is negative."""
    rng = np.random.default_rng(2)
    scene = rng.normal(100, 30, (128, 136)).clip(0)
    movie = np.stack([rng.poisson(scene[:, 8 - i : 136 - i]) for i in range(4)]).astype(np.int16)
    with mrcfile.new(tmp_path / "movie.mrcs") as mrc:
        mrc.set_data(movie)
    options = ("--use_own", "--patch_x", 1, "--patch_y", 1, "--angpix", 1.5, "--voltage", 300, "--first_frame_sum", 2)
    optics = {
        "rlnOpticsGroupName": ["a"],
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": 1.5,
        "rlnVoltage": 300.0,
    }
    optics |= {"rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    movies = {"rlnMicrographMovieName": ["movie.mrcs"], "rlnOpticsGroup": 1}
    write(tmp_path / "movies.star", star_loop("optics", optics) + star_loop("movies", movies))
    relion("relion_run_motioncorr", "--i", "movies.star", "--o", "out/", *options, cwd=tmp_path)
    motion = read_motion(tmp_path / "out" / "movie.star", is_flipped=False)
    assert np.isnan(motion.shifts[0]).all()
    np.testing.assert_allclose(motion.shifts[1:], [[0, 0], [-1, 0], [-2, 0]], atol=0.3)
    assert (motion.start, motion.shape, motion.pixel_size) == (2, (128, 128), 1.5)


def test_damaged_relion_tables_are_refused(tmp_path: Path) -> None:
    for replacements, match in (
        ((("data_general", "data_other"),), "has no data_general and data_global_shift"),
        ((("_rlnImageSizeZ 4\n", ""),), "rlnImageSizeZ is None"),
        ((("_rlnImageSizeZ 4", "_rlnImageSizeZ 3"),), "lists frame 4 of 3"),
        ((("rlnMicrographShiftX", "rlnOther"),), "data_global_shift has no rlnMicrographShiftX"),
        ((("1.250000", "north"),), "value that is not a number"),
    ):
        with pytest.raises(DataError, match=match):
            read_motion(write(tmp_path / "a.star", relion_table(*replacements)), is_flipped=False)
    with pytest.raises(DataError, match="has 35 coefficients, expected 36"):
        read_motion(write(tmp_path / "a.star", relion_table(local=35)), is_flipped=False)


def test_motioncor_tables(tmp_path: Path) -> None:
    log = read_motion(write(tmp_path / "a-Full.log", LOG), is_flipped=True)
    np.testing.assert_array_equal(log.shifts, SHIFTS)
    aligned = read_motion(write(tmp_path / "a.aln", ALN), is_flipped=True)
    np.testing.assert_array_equal(aligned.shifts[1:5], SHIFTS)
    assert np.isnan(aligned.shifts[[0, 5]]).all()
    assert (aligned.shape, aligned.start) == ((64, 96), 2)


def test_damaged_motioncor_tables_are_refused(tmp_path: Path) -> None:
    for name, text, match in (
        ("a.log", "something else", "does not begin with '# full frame alignment'"),
        ("a.log", LOG.replace("   3 ", "   4 "), "frame 4 follows frame 2"),
        ("a.log", LOG.replace("-0.50", "x"), "not a line of frame number, x and y"),
        ("a.log", "# full frame alignment\n", "lists no shifts"),
        ("a.aln", ALN.replace("throw", "other"), "has no stackSize, throw or globalShift"),
        ("a.aln", ALN.replace("96 64 6", "96 64 9"), "lists 4 frames, expected 7 of 9"),
        ("a.txt", LOG, "not a motion table by its name"),
    ):
        with pytest.raises(DataError, match=match):
            read_motion(write(tmp_path / name, text), is_flipped=False)
    for name in ("b.log", "b.star", "b.npy"):
        with pytest.raises(DataError, match="not found"):
            read_motion(tmp_path / name, is_flipped=False)


@pytest.mark.parametrize("is_flipped", [False, True])
def test_cryosparc_trajectories(tmp_path: Path, is_flipped: bool) -> None:
    """Both pyem and cs2relion negate x and keep y for TIFF movies, whose rows RELION flips."""
    np.save(tmp_path / "a_traj.npy", SHIFTS[None])
    motion = read_motion(tmp_path / "a_traj.npy", is_flipped=is_flipped)
    np.testing.assert_array_equal(motion.shifts, SHIFTS * ((-1, 1) if is_flipped else (-1, -1)))
    for shape in ((2, 4, 2), (1, 4, 3), (0, 2)):
        np.save(tmp_path / "a_traj.npy", np.zeros(shape))
        with pytest.raises(DataError, match="expected \\(1, frames, 2\\)"):
            read_motion(tmp_path / "a_traj.npy", is_flipped=is_flipped)
    (tmp_path / "a_traj.npy").write_text("text")
    with pytest.raises(DataError, match="cannot be read as a NumPy array"):
        read_motion(tmp_path / "a_traj.npy", is_flipped=is_flipped)
