"""Tilt stacks read image by image and written again: against mrcfile, with SerialEM's extended header as it was."""

import gzip
import os
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc import read_mrc, write_stack

LABEL = "n2n-deploy: provenance of this file"
COUNT, SHAPE = 5, (33, 46)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A stack as SerialEM leaves it: int16, an entry of 10 bytes for each image with its tilt angle, sampled in z."""
    path = tmp_path / "TS_01_EVN.st"
    rng = np.random.default_rng(1)
    with mrcfile.new(path) as mrc:
        mrc.set_data(rng.integers(-300, 2000, (COUNT, *SHAPE), dtype=np.int16))
        mrc.set_image_stack()
        mrc.set_extended_header(np.frombuffer(tilt_entries(), np.uint8))
        mrc.header.exttyp = b"SERI"
        mrc.voxel_size = 2.5
        mrc.header.origin = (1.5, -2.5, 3.5)
        mrc.header.extra1 = b"\0\0\x0a\0\x01\0\0\0"
        mrc.add_label("SerialEM: acquired")
    return path


def tilt_entries() -> bytes:
    return b"".join(struct.pack("<5h", 6000 - 300 * image, image, 2 * image, 7, 11) for image in range(COUNT))


def test_each_section_is_read_alone(stack: Path, tmp_path: Path) -> None:
    with mrcfile.open(stack) as mrc:
        expected = mrc.data.copy()
    packed = tmp_path / "packed.mrc.gz"
    packed.write_bytes(gzip.compress(stack.read_bytes()))
    for path in (stack, packed):
        for section in range(COUNT):
            image = read_mrc(path, section=section)
            np.testing.assert_array_equal(image.data, expected[section])
            assert (image.pixel_size, image.header.sections, image.extended) == (2.5, COUNT, tilt_entries())
            assert image.warnings == []


def test_sections_that_do_not_exist_are_refused(stack: Path) -> None:
    for section in (-1, COUNT):
        with pytest.raises(DataError, match=rf"TS_01_EVN\.st: has no section {section}; its 5 sections"):
            read_mrc(stack, section=section)
    with pytest.raises(DataError, match="holds 5 sections, but a micrograph has one"):
        read_mrc(stack)
    stack.write_bytes(stack.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        read_mrc(stack, section=0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_stack_is_written_with_its_header(stack: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "out" / "TS_01.st"
    like = read_mrc(stack, section=2)
    images = (read_mrc(stack, section=section).data / np.float32(1024) for section in range(COUNT))
    write_stack(out, images, like=like, label=LABEL, dtype=dtype)  # type: ignore[arg-type]
    with Path(os.devnull).open("w") as silent:
        assert mrcfile.validate(out, print_file=silent)
    with mrcfile.open(out) as mrc, mrcfile.open(stack) as before:
        np.testing.assert_array_equal(mrc.data, (before.data / np.float32(1024)).astype(dtype))
        assert mrc.is_image_stack()
        assert mrc.extended_header.tobytes() == tilt_entries()
        same = ("nx", "ny", "nz", "mx", "my", "mz", "cella", "origin", "ispg", "exttyp", "extra1", "nsymbt")
        for name in same:
            assert mrc.header[name] == before.header[name], name
        assert mrc.get_labels() == [*before.get_labels(), LABEL]
        stored = mrc.data.astype(np.float64)
        assert float(mrc.header.dmean) == pytest.approx(stored.mean(), rel=1e-6)
        assert float(mrc.header.rms) == pytest.approx(stored.std(), rel=1e-6)
        assert (float(mrc.header.dmin), float(mrc.header.dmax)) == (stored.min(), stored.max())


def test_the_pixel_size_that_was_used_is_written(stack: Path, tmp_path: Path) -> None:
    like = read_mrc(stack, section=0)
    write_stack(tmp_path / "a.st", [like.data] * COUNT, like=like, label=LABEL, pixel_size=1.35)
    with mrcfile.open(tmp_path / "a.st") as mrc:
        assert mrc.voxel_size.x == pytest.approx(1.35, rel=1e-6)
        assert mrc.is_image_stack()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (COUNT - 1, "4 sections to write, expected 5"),
        (COUNT + 1, "6 sections to write, expected 5"),
        ([np.zeros(SHAPE)] * (COUNT - 1) + [np.zeros((33, 45))], r"section 4 has the shape \(33, 45\), expected"),
        ([np.zeros(SHAPE)] * (COUNT - 1) + [np.full(SHAPE, np.nan)], "not finite"),
    ],
)
def test_nothing_is_left_of_a_stack_that_is_not_complete(
    stack: Path, tmp_path: Path, images: int | list[np.ndarray], message: str
) -> None:
    sections = [np.ones(SHAPE)] * images if isinstance(images, int) else images
    out = tmp_path / "out"
    with pytest.raises(DataError, match=message):
        write_stack(out / "a.st", sections, like=read_mrc(stack, section=0), label=LABEL)
    assert list(out.iterdir()) == []
