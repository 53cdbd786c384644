"""RELION's motion correction on the same movies: its motion table, applied here, gives its sum.

Tolerances are of the whole image's standard deviation: 1e-5 where frames are shifted and weighted (float32), 1e-2 with
local motion (the table has six digits, and RELION rounds differently where a source pixel lies on the frame's border).
"""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
from eer_encoder import random_events, write_eer
from movie_builder import FRAMES, PIXEL_SIZE, Simulated, save_movie

from n2n_deploy.io.micrograph_names import Folders
from n2n_deploy.io.movie_files import open_movie
from n2n_deploy.io.movie_table import read_movies
from n2n_deploy.movies.dose import DoseWeights
from n2n_deploy.movies.options import HalvesOptions
from n2n_deploy.movies.run import Account, sum_movies
from n2n_deploy.movies.settings import find_files, open_with, settle
from n2n_deploy.movies.sums import HalfSums

Image = npt.NDArray[np.floating]
Correct = Callable[..., Path]


def halves_of(job: Path, output: Path, **options: object) -> Account:
    table = read_movies([job / "corrected_micrographs.star"], project=job.parent)
    account = sum_movies(table, output, HalvesOptions(**options), jobs=1)  # type: ignore[arg-type]
    assert not account.failures
    return account


def difference(ours: Image, theirs: Image) -> float:
    """RMS of the difference as a fraction of the image's standard deviation."""
    return float(np.sqrt(np.mean((ours.astype(np.float64) - theirs) ** 2)) / theirs.std())


def without_nyquist(image: Image) -> Image:
    spectrum = np.fft.rfft2(image)
    spectrum[image.shape[0] // 2] = spectrum[:, -1] = 0
    return np.fft.irfft2(spectrum, image.shape)


def sums(output: Path, name: str = "a") -> tuple[Image, Image, Image]:
    (folder,) = {path.parent for path in output.rglob(f"{name}_EVN.mrc")}
    found = [mrcfile.read(folder / f"{name}{suffix}.mrc") for suffix in ("", "_EVN", "_ODD")]
    return found[0], found[1], found[2]


def test_global_motion(drifting: Simulated, motioncorr: Correct, tmp_path: Path) -> None:
    job = motioncorr("out", ["Movies/a.mrcs"], "--skip_defect")
    halves_of(job, tmp_path / "Halves")
    whole, even, odd = sums(tmp_path / "Halves")
    assert difference(whole, mrcfile.read(job / "Movies" / "a.mrc")) < 1e-5
    np.testing.assert_allclose(even + odd, whole, atol=1e-4)
    # RELION found the drift, so our sum is the truth but for shot noise.
    assert (whole - drifting.truth).var() == pytest.approx(drifting.truth.mean(), rel=0.05)


def test_local_motion(motioncorr: Correct, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    scene = rng.normal(6, 2, (512, 512)).clip(0.5)
    frames = [rng.poisson(np.roll(scene, i, 1)) for i in range(6)]
    save_movie(tmp_path / "Movies" / "a.mrcs", np.array(frames).astype(np.int8))
    job = motioncorr("out", ["Movies/a.mrcs"], "--skip_defect", patches=3)
    assert "data_local_motion_model" in (job / "Movies" / "a.star").read_text()
    halves_of(job, tmp_path / "Halves")
    theirs = mrcfile.read(job / "Movies" / "a.mrc")
    assert difference(sums(tmp_path / "Halves")[0], theirs) < 1e-2
    # Nearly all of that is the outermost pixels.
    inner = np.s_[4:-4, 4:-4]
    assert difference(sums(tmp_path / "Halves")[0][inner], theirs[inner]) < 1e-3


def test_binned_motion(drifting: Simulated, motioncorr: Correct, tmp_path: Path) -> None:
    """RELION drops one of the two Nyquist components that meet in a crop; all others agree."""
    job = motioncorr("out", ["Movies/a.mrcs"], "--skip_defect", "--bin_factor", 2, "--early_binning")
    halves_of(job, tmp_path / "Halves")
    whole = sums(tmp_path / "Halves")[0]
    theirs = mrcfile.read(job / "Movies" / "a.mrc")
    assert whole.shape == theirs.shape == (128, 128)
    assert difference(without_nyquist(whole), without_nyquist(theirs)) < 1e-5
    with mrcfile.open(tmp_path / "Halves" / "out" / "Movies" / "a_EVN.mrc") as mrc:
        assert mrc.voxel_size.x == pytest.approx(2 * PIXEL_SIZE)
    del drifting


@pytest.mark.parametrize("movie", ["mrcs", "tif"])
def test_gain_and_motion(
    drifting: Simulated, motioncorr: Correct, relion: Callable[..., str], tmp_path: Path, movie: str
) -> None:
    """A turned MRC gain on an MRC movie, and on the same movie as TIFF, whose rows are flipped."""
    rng = np.random.default_rng(9)
    with mrcfile.new(tmp_path / "gain.mrc") as mrc:
        mrc.set_data(rng.uniform(0.7, 1.3, (256, 256)).astype(np.float32))
    if movie == "tif":
        command = ("relion_convert_to_tiff", "--i", "Movies/a.mrcs", "--o", "./", "--compression", "lzw")
        relion(*command, cwd=tmp_path)
        drifting.path.unlink()
    turn = ("--gainref", "gain.mrc", "--gain_rot", 1, "--gain_flip", 2)
    job = motioncorr("out", [f"Movies/a.{movie}"], "--skip_defect", *turn)
    theirs = mrcfile.read(job / "Movies" / "a.mrc")
    # The table names the gain as RELION turned it.
    halves_of(job, tmp_path / "Named")
    assert difference(sums(tmp_path / "Named")[0], theirs) < 1e-5
    # The reference itself, turned here.
    halves_of(job, tmp_path / "Turned", gain=tmp_path / "gain.mrc", gain_rotation=1, gain_flip=2)
    assert difference(sums(tmp_path / "Turned")[0], theirs) < 1e-5
    halves_of(job, tmp_path / "Without", gain=Path("none"))
    assert difference(sums(tmp_path / "Without")[0], theirs) > 0.1


def test_hot_pixels_of_the_table(drifting: Simulated, motioncorr: Correct, tmp_path: Path) -> None:
    """RELION lists hot pixels and replaces them by a neighbour at random; here by the neighbours' mean."""
    frames = mrcfile.read(drifting.path).copy()
    frames[:, 100, 60] = 120
    save_movie(drifting.path, frames)
    job = motioncorr("out", ["Movies/a.mrcs"])
    assert "data_hot_pixels" in (job / "Movies" / "a.star").read_text()
    halves_of(job, tmp_path / "Halves")
    whole, theirs = sums(tmp_path / "Halves")[0], mrcfile.read(job / "Movies" / "a.mrc")
    assert whole.max() < 0.2 * frames[:, 100, 60].sum()
    assert difference(whole, theirs) < 0.05


def test_dose_weighting(drifting: Simulated, motioncorr: Correct, tmp_path: Path) -> None:
    """With one normalisation for all frames, as RELION has, our weights give RELION's sum.

    Ours has one for each half, so the whole sum differs from RELION's, by a few percent of noise.
    """
    dose = ("--dose_weighting", "--dose_per_frame", 1.3, "--preexposure", 2.0)
    job = motioncorr("out", ["Movies/a.mrcs"], "--skip_defect", *dose)
    theirs = mrcfile.read(job / "Movies" / "a.mrc")
    halves_of(job, tmp_path / "Halves", dose_weighting=True)
    whole, even, odd = sums(tmp_path / "Halves")
    np.testing.assert_allclose(even + odd, whole, atol=1e-4)
    assert np.corrcoef(whole.ravel(), theirs.ravel())[0, 1] > 0.998
    options = HalvesOptions(dose_weighting=True)
    (record,) = read_movies([job / "corrected_micrographs.star"], project=tmp_path).movies
    files = find_files(record, Folders(None, tmp_path), options)
    with open_with(files, options) as movie:
        settings = settle(movie, files, record, options)
        assert settings.doses == pytest.approx([2 + 1.3 * (i + 1) for i in range(FRAMES)])
        weights = DoseWeights(movie.shape, PIXEL_SIZE, settings.doses, [0] * FRAMES)
        total = HalfSums(movie.shape, movie.shape, weights)
        for index, shift in enumerate(settings.shifts):
            total.add(movie.read(index).astype(np.float32), index, 0, shift)
    # Each half is normalised to half the power of a frame, RELION's sum to that of a frame.
    assert difference(np.sqrt(2) * total.result(0), theirs) < 1e-5
    del drifting


def test_first_and_last_frame(drifting: Simulated, motioncorr: Correct, tmp_path: Path) -> None:
    """The frames that RELION aligned are those that are summed."""
    job = motioncorr("out", ["Movies/a.mrcs"], "--skip_defect", "--first_frame_sum", 2, "--last_frame_sum", 6)
    halves_of(job, tmp_path / "Halves")
    assert difference(sums(tmp_path / "Halves")[0], mrcfile.read(job / "Movies" / "a.mrc")) < 1e-5
    with open_movie(drifting.path) as movie:
        assert sums(tmp_path / "Halves")[1].sum() == pytest.approx(
            sum(movie.read(i).sum() for i in (1, 3, 5)), rel=1e-5
        )


def test_eer_movie_with_gain_and_motion(motioncorr: Correct, tmp_path: Path) -> None:
    """Fractions, motion and the response of the detector as RELION's table names them, on a Falcon's 4096² pixels."""
    shape, rng = (4096, 4096), np.random.default_rng(10)
    events = [random_events(rng, shape, 30_000) for _ in range(7)]
    write_eer(tmp_path / "a.eer", events, shape)
    with mrcfile.new(tmp_path / "response.mrc") as mrc:
        mrc.set_data(rng.uniform(0.7, 1.3, shape).astype(np.float32))
    job = motioncorr("out", ["a.eer"], "--skip_defect", "--eer_grouping", 2, "--gainref", "response.mrc")
    halves_of(job, tmp_path / "Halves")
    whole = sums(tmp_path / "Halves")[0]
    assert difference(whole, mrcfile.read(job / "a.mrc")) < 1e-5
