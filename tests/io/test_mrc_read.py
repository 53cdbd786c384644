"""Reading MRC files: against mrcfile, the statistics in real files' headers, and damage done by hand."""

import bz2
import gzip
import lzma
import struct
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
from PIL import Image
from star_builder import star_table

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc import read_header, read_mrc


def save(path: Path, data: np.ndarray[Any, Any], pixel_size: float = 1.25) -> Path:
    """Write with mrcfile, our reference."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = pixel_size
    return path


def pixels(dtype: str, shape: tuple[int, ...] = (61, 47)) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        return rng.normal(10, 3, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
def test_every_mode_as_mrcfile_wrote_it(tmp_path: Path, dtype: str) -> None:
    data = pixels(dtype)
    if dtype == "int8":
        data = np.minimum(data, 100)
    image = read_mrc(save(tmp_path / "a.mrc", data))
    assert image.data.dtype == data.dtype
    assert image.data.flags.writeable
    np.testing.assert_array_equal(image.data, data)
    assert image.pixel_size == 1.25
    assert image.warnings == []


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint16", "float16"])
def test_big_endian_files_are_read(tmp_path: Path, dtype: str) -> None:
    data = pixels(dtype).astype(np.dtype(dtype).newbyteorder(">"))
    image = read_mrc(save(tmp_path / "a.mrc", data))
    assert (tmp_path / "a.mrc").read_bytes()[212] == 0x11
    assert image.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.data, data)
    assert image.pixel_size == 1.25
    assert image.warnings == []


def test_a_wrong_machine_stamp_does_not_matter(tmp_path: Path) -> None:
    data = pixels("float32").astype(">f4")
    path = save(tmp_path / "a.mrc", data)
    content = bytearray(path.read_bytes())
    content[212:216] = b"\x44\x44\0\0"
    path.write_bytes(content)
    image = read_mrc(path)
    np.testing.assert_array_equal(image.data, data)
    assert "contradicts" in image.warnings[0]


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (gzip.compress, "")])
def test_compressed_files(tmp_path: Path, pack: Any, ending: str) -> None:
    data = pixels("float32", (300, 200))
    plain = save(tmp_path / "a.mrc", data)
    packed = tmp_path / f"b.mrc{ending}"
    packed.write_bytes(pack(plain.read_bytes()))
    np.testing.assert_array_equal(read_mrc(packed).data, data)
    assert read_header(packed).shape == (300, 200)
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b\.mrc.*cut short"):
        read_mrc(packed)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    packed.write_bytes(damaged)
    with pytest.raises(DataError, match=r"b\.mrc"):
        read_mrc(packed)
    packed.write_bytes(pack(plain.read_bytes()[:2000]))
    with pytest.raises(DataError, match=r"take 241024 bytes, found 2000"):
        read_mrc(packed)


def test_one_section_is_a_micrograph_and_many_are_not(tmp_path: Path) -> None:
    single = save(tmp_path / "single.mrc", pixels("float32", (1, 20, 30)))
    assert read_mrc(single).data.shape == (20, 30)
    stack = pixels("float32", (5, 20, 30))
    path = save(tmp_path / "stack.mrcs", stack)
    with pytest.raises(DataError, match=r"stack\.mrcs: holds 5 sections, but a micrograph has one"):
        read_mrc(path)
    with pytest.raises(DataError, match="holds 5 sections"):
        read_header(path)
    np.testing.assert_array_equal(read_mrc(path, ndim=3).data, stack)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "transform.mrc", np.ones((8, 8), np.complex64))
    with pytest.raises(DataError, match=r"mode 4 \(complex float32\)"):
        read_mrc(path)


@pytest.mark.parametrize("size", [0, 1, 500, 1023])
def test_a_truncated_header_is_refused(tmp_path: Path, size: int) -> None:
    path = save(tmp_path / "a.mrc", pixels("float32"))
    path.write_bytes(path.read_bytes()[:size])
    for read in (read_mrc, read_header):
        with pytest.raises(DataError, match=rf"a\.mrc: an MRC file has a header of 1024 bytes, .* after {size};"):
            read(path)


@pytest.mark.parametrize("read", [read_mrc, read_header])
def test_a_truncated_file_is_refused(tmp_path: Path, read: Any) -> None:
    path = save(tmp_path / "a.mrc", pixels("float32", (100, 100)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.mrc: is cut short: .* take 41024 bytes, found 41023"):
        read(path)


def test_bytes_beyond_the_end_give_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mrc", pixels("float32"))
    path.write_bytes(path.read_bytes() + b"x")
    assert "continues after" in read_mrc(path).warnings[0]


def test_files_of_other_formats_are_named(tmp_path: Path) -> None:
    """Files as their own libraries write them, under the name of an MRC file."""
    path = tmp_path / "a.mrc"
    data = pixels("uint16", (40, 30))
    for name in ("TIFF", "PNG", "JPEG"):
        Image.fromarray((data >> 8).astype(np.uint8)).save(path, format=name)
        with pytest.raises(DataError, match=rf"a\.mrc: is a {name} (image|picture), not MRC; (convert it|give)"):
            read_mrc(path)
    with h5py.File(path, "w") as file:
        file["data"] = data
    with pytest.raises(DataError, match=r"a\.mrc: is an HDF5 file, not MRC; convert it"):
        read_header(path)
    for pack, name in ((gzip.compress, "gzip"), (bz2.compress, "bzip2")):
        path.write_bytes(pack(pack(data.tobytes())))
        with pytest.raises(DataError, match=rf"is compressed with {name} twice, not MRC; unpack it"):
            read_mrc(path)
    path.write_bytes(lzma.compress(data.tobytes()))
    with pytest.raises(DataError, match="is compressed with xz, not MRC"):
        read_mrc(path)
    path.write_text(star_table({"rlnMicrographName": ["a.mrc"]}))
    with pytest.raises(DataError, match="is a STAR file, not MRC"):
        read_mrc(path)
    path.write_bytes(gzip.compress(b"II+\0" + bytes(4000)))  # the first bytes of BigTIFF, by its specification
    with pytest.raises(DataError, match="is a BigTIFF image or an EER movie, not MRC; .* motion-corrected sum"):
        read_mrc(path)


def test_a_file_of_no_known_format_is_not_mrc(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(b"<html>" * 1000)
    with pytest.raises(DataError, match=r"a\.mrc: not an MRC file: .* give MRC micrographs"):
        read_mrc(tmp_path / "a.mrc")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.mrc: not found"):
        read_mrc(tmp_path / "nowhere.mrc")
    with pytest.raises(DataError, match="directory"):
        read_mrc(tmp_path)


def test_a_header_without_pixel_size_gives_a_warning(tmp_path: Path) -> None:
    image = read_mrc(save(tmp_path / "a.mrc", pixels("float32"), 0.0))
    assert image.pixel_size is None
    assert "pixel size" in image.warnings[0]


def test_imods_flag_tells_signed_from_unsigned_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mrc", np.array([[-100, 100]], np.int8))
    content = bytearray(path.read_bytes())
    for flags, dtype in ((0, np.uint8), (1, np.int8)):
        content[152:160] = struct.pack("<2i", 1146047817, flags)
        path.write_bytes(content)
        assert read_mrc(path).data.dtype == dtype


def test_the_fei_micrograph(shared_data: Path) -> None:
    path = shared_data / "micrographs" / "fei-extended.mrc"
    image = read_mrc(path)
    with mrcfile.open(path, permissive=True) as reference:
        np.testing.assert_array_equal(image.data, reference.data)
        assert image.extended == reference.extended_header.tobytes()
        assert image.pixel_size == pytest.approx(float(reference.voxel_size.x), rel=1e-6)
    assert image.warnings == []


@pytest.mark.parametrize(
    ("name", "dtype", "warnings"),
    [
        ("k3_defects_mode0_4092x5760.mrc.gz", np.int8, 0),
        ("leginon_128x128.mrc", np.float32, 0),
        ("mode12_float16_particles.mrcs", np.float16, 0),
        ("no_map_id_stack.mrc", np.float32, 1),
        ("pre2014_no_stamp.mrc", np.uint8, 3),
    ],
)
def test_odd_files_match_the_statistics_their_programs_wrote(
    shared_data: Path, name: str, dtype: type, warnings: int
) -> None:
    image = read_mrc(shared_data / "mrc" / name, ndim=3)
    fields = image.header.fields
    assert image.data.dtype == dtype
    assert len(image.warnings) == warnings
    precision = 1e-3 if dtype is np.float16 else 1e-6
    assert float(image.data.min()) == pytest.approx(float(fields["dmin"]), rel=precision)
    assert float(image.data.max()) == pytest.approx(float(fields["dmax"]), rel=precision)
    if np.dtype(dtype).kind == "f":  # the means in the headers of the other two are of other images
        mean = float(image.data.mean(dtype=np.float64))
        assert mean == pytest.approx(float(fields["dmean"]), rel=1e-5, abs=precision)


def test_a_header_without_pixels_is_refused(shared_data: Path) -> None:
    for ndim in (2, 3):
        with pytest.raises(DataError, match=r"header_only\.mrc: holds a header and no pixels.*132096.*found 1024"):
            read_mrc(shared_data / "mrc" / "header_only.mrc", ndim=ndim)
