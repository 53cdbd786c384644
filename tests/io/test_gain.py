"""Gain references and defects, against RELION's own orientation and its gain of EER movies."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from eer_encoder import random_events, write_eer
from star_builder import star_loop

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.defects import read_defects
from n2n_deploy.io.gain import read_gain
from n2n_deploy.io.movie_files import Movie, open_movie

RNG = np.random.default_rng(3)
GAIN = RNG.uniform(0.8, 1.2, (64, 96)).astype(np.float32)


def save(path: Path, values: npt.NDArray[np.generic]) -> Path:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(values)
    return path


def movie_of(folder: Path, shape: tuple[int, int]) -> Movie:
    return open_movie(save(folder / "movie.mrcs", np.ones((3, *shape), np.int8)))


def eer_of(folder: Path, shape: tuple[int, int], upsampling: int = 1) -> Movie:
    path = write_eer(folder / "movie.eer", [random_events(RNG, shape, 5)], shape)
    return open_movie(path, eer_grouping=1, eer_upsampling=upsampling)


@pytest.mark.parametrize("rotation", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [0, 1, 2])
def test_orientation_is_that_of_relion(tmp_path: Path, relion: Callable[..., str], rotation: int, flip: int) -> None:
    if not rotation and not flip:
        return  # RELION then uses the file itself
    gain = RNG.uniform(0.8, 1.2, (256, 256)).astype(np.float32)
    save(tmp_path / "reference.mrc", gain)
    save(tmp_path / "movie.mrcs", RNG.poisson(4, (4, 256, 256)).astype(np.int8))
    optics = {
        "rlnOpticsGroupName": ["one"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": 1.0,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
    }
    movies = star_loop("movies", {"rlnMicrographMovieName": ["movie.mrcs"], "rlnOpticsGroup": 1})
    (tmp_path / "movies.star").write_text(star_loop("optics", optics) + movies)
    options = (
        "--patch_x",
        1,
        "--patch_y",
        1,
        "--gainref",
        "reference.mrc",
        "--gain_rot",
        rotation,
        "--gain_flip",
        flip,
    )
    relion("relion_run_motioncorr", "--i", "movies.star", "--o", "out/", "--use_own", *options, cwd=tmp_path)
    ours = read_gain(tmp_path / "reference.mrc", rotation=rotation, flip=flip)
    np.testing.assert_array_equal(ours.values, mrcfile.read(tmp_path / "out" / "gain.mrc"))


@pytest.mark.parametrize("ending", ["mrc", "tif"])
def test_gain_of_eer_movies_is_that_of_relion(tmp_path: Path, relion: Callable[..., str], ending: str) -> None:
    """The detector's response, which counts are divided by; a TIFF file's rows are flipped."""
    response = RNG.uniform(0.8, 1.2, (4096, 4096)).astype(np.float32)
    response[10:20, 30:900] = 0
    path = tmp_path / f"response.{ending}"
    if ending == "mrc":
        save(path, response)
    else:
        tifffile.imwrite(path, response)
    with eer_of(tmp_path, (4096, 4096)) as movie:
        options = ("--eer_grouping", 1, "--gain", path.name)
        relion("relion_convert_to_tiff", "--i", movie.path.name, "--o", "out/", *options, cwd=tmp_path)
        theirs = mrcfile.read(tmp_path / "out" / "gain-reference.mrc")
        np.testing.assert_allclose(read_gain(path).factor(movie), theirs, rtol=1e-6)


def test_a_gain_file_multiplies_and_is_not_flipped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "camera.gain", GAIN)
    with eer_of(tmp_path, (64, 96)) as movie:
        np.testing.assert_array_equal(read_gain(tmp_path / "camera.gain").factor(movie), GAIN)


def test_gain_of_eer_movies_on_another_grid(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "camera.gain", GAIN)
    gain = read_gain(tmp_path / "camera.gain")
    with eer_of(tmp_path, (64, 96), upsampling=2) as movie:
        np.testing.assert_array_equal(gain.factor(movie)[::2, 1::2], GAIN)
    with eer_of(tmp_path, (32, 48)) as movie:
        np.testing.assert_allclose(gain.factor(movie)[3, 5], GAIN[6:8, 10:12].mean(), rtol=1e-6)


def test_a_gain_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    gain = read_gain(save(tmp_path / "gain.mrc", GAIN))
    assert gain.factor(movie_of(tmp_path, (64, 96))) is gain.values
    with pytest.raises(DataError, match="it is transposed; give --gain-rotation 1 or 3"):
        gain.factor(movie_of(tmp_path, (96, 64)))
    turned = read_gain(tmp_path / "gain.mrc", rotation=1)
    assert turned.factor(movie_of(tmp_path, (96, 64))).shape == (96, 64)
    with pytest.raises(DataError, match=r"96 × 64 pixels, the frames of .* have 100 × 64"):
        gain.factor(movie_of(tmp_path, (64, 100)))


def test_what_is_no_gain_is_refused(tmp_path: Path) -> None:
    for values, match in (
        (np.zeros_like(GAIN), "100% of the gain reference is zero"),
        (np.where(GAIN > 0.9, 0, GAIN).astype(np.float32), "of the gain reference is zero"),
        (-GAIN, "negative or not finite"),
        (np.where(GAIN > 1, np.nan, GAIN).astype(np.float32), "negative or not finite"),
    ):
        with pytest.raises(DataError, match=match):
            read_gain(save(tmp_path / "gain.mrc", values))
    with pytest.raises(DataError, match="dm2mrc"):
        read_gain(tmp_path / "gain.dm4")
    for options in ({"rotation": 4}, {"flip": 3}):
        with pytest.raises(UsageError, match="does not exist"):
            read_gain(tmp_path / "gain.mrc", **options)


def test_defects_from_text_and_maps(tmp_path: Path) -> None:
    text = tmp_path / "defects.txt"
    text.write_text("# x y w h\n10 20 3 2\n\n95 0 1 64\n")
    truth = np.zeros((64, 96), np.bool_)
    truth[20:22, 10:13] = truth[:, 95] = True
    np.testing.assert_array_equal(read_defects(text, (64, 96)), truth)
    np.testing.assert_array_equal(read_defects(save(tmp_path / "map.mrc", truth.astype(np.int8)), (64, 96)), truth)
    tifffile.imwrite(tmp_path / "map.tif", truth.astype(np.uint8))
    np.testing.assert_array_equal(read_defects(tmp_path / "map.tif", (64, 96)), truth[::-1])


def test_what_are_no_defects_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "defects.txt"
    for content, match in (
        ("1 2 3", "line 1 is '1 2 3', expected four integers"),
        ("1 2 3 4\n90 0 7 1", "line 2 marks x 90 to 97 .* outside the frames of 96 × 64"),
        ("CameraSizeX 96", "SerialEM's defect list"),
    ):
        text.write_text(content)
        with pytest.raises(DataError, match=match):
            read_defects(text, (64, 96))
    with pytest.raises(DataError, match="cannot be read"):
        read_defects(tmp_path / "missing.txt", (64, 96))
    with pytest.raises(DataError, match="100 × 64|64 × 100"):
        read_defects(save(tmp_path / "map.mrc", np.zeros((100, 64), np.int8)), (64, 96))
    with pytest.raises(DataError, match="marks 100% of the pixels"):
        read_defects(save(tmp_path / "map.mrc", np.ones((64, 96), np.int8)), (64, 96))
