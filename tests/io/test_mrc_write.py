"""Writing MRC files: against mrcfile's validation and reading, and NumPy's statistics."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc import read_mrc, write_mrc
from n2n_deploy.io.mrc_output import statistics

LABEL = "n2n-deploy: provenance of this file"


def image(shape: tuple[int, ...] = (61, 47)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).normal(10, 3, shape).astype(np.float32)


def check(path: Path) -> None:
    with Path(os.devnull).open("w") as silent:
        assert mrcfile.validate(path, print_file=silent), path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(61, 47), (64, 64), (5, 16, 17)])
def test_mrcfile_finds_it_valid_and_true(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.mrc"
    data = image(shape)
    write_mrc(path, data, label=LABEL, pixel_size=0.66, dtype=dtype)
    check(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, data.astype(dtype))
        assert mrc.get_labels() == [LABEL]
        assert mrc.voxel_size.tolist() == pytest.approx((0.66, 0.66, 0.66), rel=1e-6)
        assert mrc.is_volume() == (len(shape) == 3)
        stored = mrc.data.astype(np.float64)
        assert float(mrc.header.dmean) == pytest.approx(stored.mean(), rel=1e-6)
        assert float(mrc.header.rms) == pytest.approx(stored.std(), rel=1e-6)
        assert (float(mrc.header.dmin), float(mrc.header.dmax)) == (stored.min(), stored.max())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_inputs_header_is_kept(tmp_path: Path, order: str) -> None:
    source, path = tmp_path / "a.mrc", tmp_path / "b.mrc"
    with mrcfile.new(source) as mrc:
        mrc.set_data(image().astype(f"{order}i2"))
        mrc.voxel_size = (0.834, 0.834, 2.0)
        mrc.nstart = (3, 4, 5)
        mrc.header.origin = (7.5, -8.5, 9.5)
        mrc.add_label("from the microscope")
        labels = mrc.get_labels()
    write_mrc(path, image(), like=read_mrc(source), label=LABEL)
    check(path)
    with mrcfile.open(path) as mrc, mrcfile.open(source) as before:
        assert mrc.data.dtype == np.float32
        for name in ("cella", "cellb", "origin", "nxstart", "nystart", "nzstart", "mx", "my", "mz", "mapc"):
            assert mrc.header[name] == before.header[name].astype(mrc.header[name].dtype), name
        assert mrc.get_labels() == [*labels, LABEL]


def test_the_oldest_of_ten_labels_is_dropped(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mrc", tmp_path / "b.mrc"
    with mrcfile.new(source) as mrc:
        mrc.set_data(image())
        mrc.header.label[:] = [f"label {number}".ljust(80) for number in range(10)]
        mrc.header.label[3] = "Ångström: not ASCII".encode("latin-1")
        mrc.header.nlabl = 10
    write_mrc(path, image(), like=read_mrc(source), label=LABEL)
    check(path)
    with mrcfile.open(path) as mrc:
        labels = [label.rstrip() for label in mrc.get_labels()]
    assert labels[0] == "label 1"
    assert labels[2] == "?ngstr?m: not ASCII"
    assert labels[9] == LABEL
    with pytest.raises(ValueError, match="at most 80"):
        write_mrc(path, image(), label="x" * 81)


def test_the_extended_header_is_kept(shared_data: Path, tmp_path: Path) -> None:
    source = read_mrc(shared_data / "micrographs" / "fei-extended.mrc")
    path = tmp_path / "b.mrc"
    write_mrc(path, source.data, like=source, label=LABEL)
    check(path)
    with mrcfile.open(path) as mrc, mrcfile.open(source.header.path, permissive=True) as before:
        assert mrc.header.exttyp == b"FEI1"
        assert mrc.indexed_extended_header["Pixel size X"][0] == before.indexed_extended_header["Pixel size X"][0]
        assert (mrc.voxel_size.x, mrc.voxel_size.y) == (before.voxel_size.x, before.voxel_size.y)
        np.testing.assert_array_equal(mrc.data, before.data)


@pytest.mark.parametrize(
    "name",
    [
        "k3_defects_mode0_4092x5760.mrc.gz",
        "leginon_128x128.mrc",
        "no_map_id_stack.mrc",
        "pre2014_no_stamp.mrc",
    ],
)
def test_odd_inputs_become_valid_outputs(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = read_mrc(shared_data / "mrc" / name, ndim=3)
    data = source.data if len(source.data) > 1 else source.data[0]
    write_mrc(tmp_path / "b.mrc", data, like=source, label=LABEL)
    check(tmp_path / "b.mrc")
    written = read_mrc(tmp_path / "b.mrc", ndim=3)
    assert written.pixel_size == source.pixel_size
    assert written.warnings == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    data = image()
    data[3, 4] = bad
    with pytest.raises(DataError, match="not finite"):
        write_mrc(tmp_path / "a.mrc", data, label=LABEL)
    assert list(tmp_path.iterdir()) == []


def test_float16_overflow_and_underflow_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    data = image()
    data[3, 4] = -70000
    with pytest.raises(DataError, match="70000, exceeds the range of float16; write float32"):
        write_mrc(path, data, label=LABEL, dtype="float16")
    with pytest.raises(DataError, match="too small for float16; write float32"):
        write_mrc(path, image() * 1e-7, label=LABEL, dtype="float16")
    data[3, 4] = 65504
    write_mrc(path, data, label=LABEL, dtype="float16", pixel_size=1)
    assert read_mrc(path).data.max() == 65504


def test_statistics_are_exact_where_float32_is_not() -> None:
    # Summed in float32, the spread of 1 is lost beside the mean of 1e6; float16 sums overflow.
    data = (1e6 + np.random.default_rng(3).normal(0, 1, (700, 901))).astype(np.float32)
    exact = data.astype(np.longdouble)
    assert statistics(data) == pytest.approx(
        (data.min(), data.max(), float(exact.mean()), float(exact.std())), rel=1e-12
    )
    assert statistics(np.full((300, 300), 60000, np.float16)) == (60000, 60000, 60000, 0)


def test_known_statistics_are_written_unchecked(tmp_path: Path) -> None:
    data = image((30, 40))
    write_mrc(tmp_path / "a.mrc", data, label=LABEL, statistics=(-1.0, 2.0, 0.5, 0.25))
    with mrcfile.open(tmp_path / "a.mrc", header_only=True) as file:
        assert [float(file.header[name]) for name in ("dmin", "dmax", "dmean", "rms")] == [-1.0, 2.0, 0.5, 0.25]
    # Those of float16 are of what was rounded.
    write_mrc(tmp_path / "a.mrc", data, label=LABEL, statistics=(-1.0, 2.0, 0.5, 0.25), dtype="float16")
    with mrcfile.open(tmp_path / "a.mrc", header_only=True) as file:
        assert float(file.header.dmax) == float(data.astype(np.float16).max())
    with pytest.raises(DataError, match="not finite"):
        write_mrc(tmp_path / "a.mrc", data, label=LABEL, statistics=(-1.0, 2.0, float("nan"), 0.25))


def test_relion_reads_what_is_written(tmp_path: Path, relion: Callable[..., str]) -> None:
    data = image((64, 48))
    write_mrc(tmp_path / "a.mrc", data, label=LABEL, pixel_size=1.5)
    told = relion("relion_image_handler", "--i", "a.mrc", "--stats", cwd=tmp_path)
    assert "48 x 64 x 1" in told
    assert "angpix = 1.5" in told
    assert float(told.split("stddev=")[1].split()[0]) == pytest.approx(data.std(), rel=1e-5)
    relion("relion_image_handler", "--i", "a.mrc", "--o", "b.mrc", "--multiply_constant", 2, cwd=tmp_path)
    np.testing.assert_allclose(read_mrc(tmp_path / "b.mrc").data, 2 * data, rtol=1e-6)


@pytest.mark.parametrize(("stated", "written"), [(0.0, 0.66), (1.0, 0.66), (0.66003, 0.66003), (0.661, 0.66)])
def test_the_pixel_size_that_was_used_is_written(tmp_path: Path, stated: float, written: float) -> None:
    """Where the input's header has none or another; one that agrees is kept to the last bit, with its own z."""
    source, path = tmp_path / "a.mrc", tmp_path / "b.mrc"
    with mrcfile.new(source) as mrc:
        mrc.set_data(image())
        mrc.voxel_size = (stated, stated, 2.0 * stated)
    write_mrc(path, image(), like=read_mrc(source), label=LABEL, pixel_size=0.66)
    check(path)
    with mrcfile.open(path) as mrc, mrcfile.open(source) as before:
        assert (mrc.voxel_size.x, mrc.voxel_size.y) == pytest.approx((written, written), rel=1e-6)
        assert (mrc.header.cella == before.header.cella) == (stated == written)
