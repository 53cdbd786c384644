"""Movies against mrcfile, tifffile and RELION's own conversion, EER against the encoder's truth, and damage."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from eer_encoder import counts, random_events, write_eer

from n2n_deploy.core.errors import DataError, HostError
from n2n_deploy.io.movie_files import Movie, open_movie

Stack = npt.NDArray[np.generic]
RNG = np.random.default_rng(7)
FRAMES = RNG.integers(0, 15, (5, 60, 97), np.uint8)


def save(path: Path, stack: Stack) -> Path:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(stack)
        mrc.voxel_size = 1.25
    return path


def pack(path: Path, frames: npt.NDArray[np.uint8]) -> Path:
    """Write mode 101: two pixels in a byte, the left one in the low bits."""
    count, ny, nx = frames.shape
    save(path, np.zeros((count, ny, nx), np.int8))
    header = bytearray(path.read_bytes()[:1024])
    struct.pack_into("<i", header, 12, 101)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, nx % 2)))
    path.write_bytes(bytes(header) + (padded[:, :, 0::2] | padded[:, :, 1::2] << 4).tobytes())
    return path


def frames_of(movie: Movie) -> Stack:
    with movie:
        return np.stack([movie.read(index) for index in range(movie.frames)])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
def test_mrc_movies_of_every_mode(tmp_path: Path, dtype: str) -> None:
    path = save(tmp_path / "movie.mrcs", FRAMES.astype(dtype))
    with open_movie(path) as movie:
        assert (movie.frames, movie.shape, movie.pixel_size) == (5, (60, 97), 1.25)
        assert not movie.is_flipped
    np.testing.assert_array_equal(frames_of(open_movie(path)), mrcfile.read(path))


@pytest.mark.parametrize("width", [96, 97])
def test_packed_movies(tmp_path: Path, width: int) -> None:
    frames = FRAMES[:, :, :width]
    np.testing.assert_array_equal(frames_of(open_movie(pack(tmp_path / "movie.mrc", frames))), frames)


def test_packed_movies_as_relion_reads_them(tmp_path: Path, relion: Callable[..., str]) -> None:
    frames = FRAMES[:, :, :96]
    pack(tmp_path / "packed.mrcs", frames)
    relion("relion_convert_to_tiff", "--i", "packed.mrcs", "--o", "out/", "--compression", "lzw", cwd=tmp_path)
    np.testing.assert_array_equal(frames_of(open_movie(tmp_path / "out" / "packed.tif")), frames)


@pytest.mark.parametrize(("dtype", "bigtiff"), [("uint8", False), ("uint16", True), ("int16", False)])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_tiff_movies_have_their_rows_flipped(
    tmp_path: Path, dtype: str, bigtiff: bool, compression: str | None
) -> None:
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, FRAMES.astype(dtype), compression=compression, bigtiff=bigtiff)
    movie = open_movie(path)
    assert movie.is_flipped
    assert movie.pixel_size is None
    np.testing.assert_array_equal(frames_of(movie), FRAMES[:, ::-1])


def test_tiff_movies_of_relion(tmp_path: Path, relion: Callable[..., str]) -> None:
    path = save(tmp_path / "movie.mrcs", FRAMES.astype(np.int16))
    relion("relion_convert_to_tiff", "--i", path.name, "--o", "out/", "--compression", "lzw", cwd=tmp_path)
    movie = open_movie(tmp_path / "out" / "movie.tif")
    assert movie.pixel_size == pytest.approx(1.25, rel=1e-5)
    np.testing.assert_array_equal(frames_of(movie), FRAMES)


@pytest.mark.parametrize("codec", [65000, 65001, 65002])
@pytest.mark.parametrize("upsampling", [1, 2])
def test_eer_movies(tmp_path: Path, codec: int, upsampling: int) -> None:
    """Sparse enough for runs longer than a number holds, with events in the corners of the frame."""
    shape = (64, 96)
    corners = np.array([(0, 0), (0, 383), (255, 2), (255, 383)])
    events = [random_events(RNG, shape, count) for count in (3, 300, 0, 1, 500, 20)] + [corners]
    movie = open_movie(
        write_eer(tmp_path / "movie.eer", events, shape, codec), eer_grouping=2, eer_upsampling=upsampling
    )
    assert movie.frames == 3
    assert "the last 1 are left out" in movie.notes[0]
    truth = [counts(events[index : index + 2], shape, upsampling) for index in (0, 2, 4)]
    np.testing.assert_array_equal(frames_of(movie), truth)


@pytest.mark.parametrize("codec", [65000, 65001])
def test_eer_movies_as_relion_reads_them(tmp_path: Path, relion: Callable[..., str], codec: int) -> None:
    """RELION takes the size of a Falcon camera only, and does not know the third codec."""
    shape = (4096, 4096)
    events = [random_events(RNG, shape, 2000) for _ in range(5)]
    path = write_eer(tmp_path / "movie.eer", events, shape, codec)
    options = ("--eer_grouping", 2, "--eer_upsampling", 2, "--compression", "lzw")
    relion("relion_convert_to_tiff", "--i", path.name, "--o", "out/", *options, cwd=tmp_path)
    theirs = frames_of(open_movie(tmp_path / "out" / "movie.tif"))
    ours = frames_of(open_movie(path, eer_grouping=2, eer_upsampling=2))
    np.testing.assert_array_equal(ours, theirs)


def test_cut_movies_are_refused(tmp_path: Path) -> None:
    events = [random_events(RNG, (64, 96), 300) for _ in range(5)]
    whole = [
        save(tmp_path / "a.mrcs", FRAMES.astype(np.int8)),
        pack(tmp_path / "b.mrcs", FRAMES),
        tmp_path / "c.tif",
        tmp_path / "d.tif",
        write_eer(tmp_path / "e.eer", events, (64, 96)),
    ]
    tifffile.imwrite(whole[2], FRAMES, compression="lzw")
    with tifffile.TiffWriter(whole[3]) as tiff:
        for frame in FRAMES:  # each frame's tags stand before the next frame's pixels
            tiff.write(frame, contiguous=False)
    for path in whole:
        open_movie(path, eer_grouping=1).close()
        content = path.read_bytes()
        for share in (0.5, 0.99):
            path.write_bytes(content[: int(share * len(content))])
            with pytest.raises(DataError, match=f"{path.name}: .*cut short"):
                open_movie(path, eer_grouping=1)


def test_damaged_events_are_refused(tmp_path: Path) -> None:
    path = write_eer(tmp_path / "movie.eer", [random_events(RNG, (64, 96), 300)], (64, 96), 65000)
    content = bytearray(path.read_bytes())
    content[16:116] = bytes(100)
    path.write_bytes(content)
    with open_movie(path, eer_grouping=1) as movie, pytest.raises(DataError, match="EER frame 1 is damaged"):
        movie.read(0)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, match in (
        ("x.png", "is not a movie by its name"),
        ("x.tif", "not found"),
        ("x.eer", "not found"),
        ("x.mrcs", "not found"),
    ):
        with pytest.raises(DataError, match=match):
            open_movie(tmp_path / name)
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(DataError, match="cannot be read as TIFF"):
        open_movie(tmp_path / "text.tif")
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="expected grey images"):
        open_movie(tmp_path / "colour.tif")
    tifffile.imwrite(tmp_path / "plain.eer", FRAMES)
    with pytest.raises(DataError, match="compression 1, expected EER's"):
        open_movie(tmp_path / "plain.eer")


@pytest.mark.parametrize("library", ["tifffile", "imagecodecs"])
def test_a_missing_library_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    path = write_eer(tmp_path / "movie.eer", [random_events(RNG, (64, 96), 3)], (64, 96))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(HostError, match=rf"needs {library}; pip install 'n2n-deploy\[movies\]'"):
        open_movie(path)
