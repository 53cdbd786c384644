"""The host as a device: SciPy's transforms, blocks of rows, threads."""

import threading
from typing import Any

import numpy as np
import pytest
import scipy.fft

from n2n_deploy.device.arrays import device_of, irfft2, moments, rfft2, standard_deviation, to_host
from n2n_deploy.device.host import HOST, HostDevice, row_blocks

SHAPES = [(64, 64), (63, 64), (64, 63), (33, 51)]


def image(shape: tuple[int, int]) -> Any:
    return np.random.default_rng(0).normal(30, 5, shape).astype(np.float32)


def test_numpy_arrays_are_on_the_host() -> None:
    array = np.zeros(3)
    assert device_of(array) is HOST
    assert to_host(array) is array
    assert HOST.to_host(HOST.to_device(array), pinned=True) is array
    assert HOST.empty_host((2, 3), "int16").shape == (2, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_transforms_are_scipys(shape: tuple[int, int]) -> None:
    pixels = image(shape)
    spectrum = scipy.fft.rfft2(pixels)
    assert np.array_equal(rfft2(pixels), spectrum)
    assert rfft2(pixels).dtype == np.complex64
    np.testing.assert_allclose(irfft2(spectrum, shape), pixels, rtol=1e-5)
    rows = HOST.rfft_rows(pixels)
    np.testing.assert_allclose(HOST.fft_columns(rows), spectrum, rtol=0, atol=1e-5 * np.abs(spectrum).max())
    back = HOST.irfft_rows(HOST.ifft_columns(spectrum.copy()), shape[1])
    np.testing.assert_allclose(back, pixels, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5), (1000, 999), (7, 1 << 20)])
def test_row_blocks_cover_all_rows_once(shape: tuple[int, int]) -> None:
    rows = [row for block in row_blocks(shape) for row in range(block.start, block.stop)]
    assert rows == list(range(shape[0]))


def test_row_blocks_are_multiples() -> None:
    lengths = {block.stop - block.start for block in row_blocks((1000, 999), 16)}
    assert {length % 16 for length in lengths} == {0, 1000 % 16}


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_shared_by_as_many_threads_as_the_device_has_workers(workers: int) -> None:
    device, together, shape = HostDevice(workers), threading.Barrier(workers), (3 * 128, 1024)
    seen = set()

    def work(rows: slice) -> Any:
        together.wait(5)  # as many at once, or this fails
        seen.add(threading.get_ident())
        return np.full((rows.stop - rows.start, shape[1]), rows.start)

    with device.lane():
        assert scipy.fft.get_workers() == workers
        filled = device.from_rows(work, shape, np.int32)
    assert scipy.fft.get_workers() == 1
    assert len(seen) == workers
    assert filled.dtype == np.int32
    assert np.array_equal(filled[:, 0], np.repeat([0, 128, 256], 128))
    assert device.map_rows(lambda rows: rows.start, shape) == [0, 128, 256]


def test_moments_are_those_of_float64() -> None:
    pixels = image((1001, 999))
    total, squares = moments(pixels, 30.0)
    exact = pixels.astype(np.longdouble) - 30
    assert total == pytest.approx(float(exact.sum()), rel=1e-9)
    assert squares == pytest.approx(float((exact**2).sum()), rel=1e-12)
    assert standard_deviation(pixels - pixels.mean()) == pytest.approx(float(pixels.std(dtype=np.float64)), rel=1e-6)
