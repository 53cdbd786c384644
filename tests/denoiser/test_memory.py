"""What denoising takes: measured with tracemalloc on the host, and sums done by hand."""

import tracemalloc
from typing import Any

import numpy as np
import psutil
import pytest
from standin_gpu import MEMORY, install_cupy

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.memory import MemoryBudget, memory_budget, memory_requirement, network_memory
from n2n_deploy.device.cuda import cuda_device
from n2n_deploy.device.host import HOST, HostDevice
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.imaging.restore import Merge, restore

from .test_memory_fit import PerPixel

CTF = CTFParameters(14000.0, 12500.0, 25.0, 10.0)
RECIPE = Recipe(max_resolution=4.5)


@pytest.mark.parametrize("merge", [None, Merge(8.0, 2.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("pixel_size", [0.7, 1.5, 3.0])
@pytest.mark.parametrize("margin", [0, 100])
def test_memory_stays_under_the_requirement(
    merge: Merge | None, dtype: type[Any], pixel_size: float, margin: int
) -> None:
    image = np.random.default_rng(0).normal(50, 6, (2048, 2000)).astype(dtype)
    image[:margin] = 0
    optics = Optics(pixel_size, 300.0, 2.7, 0.1)
    HOST.grids.clear()
    tracemalloc.start()
    try:
        prepared = preprocess(image, optics, CTF, RECIPE, keep_spectrum=merge is not None)
        restored = restore(prepared.image.copy(), prepared, merge=merge)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert restored.shape == image.shape
    found = memory_requirement(HostDevice(1), RECIPE, (2048, 2000), pixel_size, merge=merge is not None)
    assert found.pixels == 4 * image.size
    assert 0.5 * found.work < peak < found.work


def test_pinned_memory_is_counted_as_cupy_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool rounds 94 MB of a K3 micrograph up to 128 MiB; there are the input, the result and two small images."""
    install_cupy(monkeypatch)
    k3 = memory_requirement(cuda_device(0), RECIPE, (4092, 5760), 0.83)
    assert k3.size == (1512, 2128)
    assert k3.pixels == 2 * 2**27 + 2 * 4 * 1512 * 2128


def test_a_window_adds_its_input_and_output_unless_it_is_the_image() -> None:
    session = PerPixel()
    assert network_memory((96, 128), (96, 128), session) == 8 * 96 * 128 + session.memory((96, 128))
    assert network_memory((96, 128), (64, 80), session) == 8 * 96 * 128 + 8 * 64 * 80 + session.memory((64, 80))


def test_the_budget_is_what_is_free_less_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cupy(monkeypatch)
    on_gpu = memory_budget(cuda_device(0), 3 * 10**9).at_start(gpus=2)
    assert (on_gpu.host, on_gpu.gpus) == (3 * 10**9, 2)
    assert 0.8 * MEMORY < (on_gpu.device or 0) < MEMORY
    host: MemoryBudget = memory_budget(HOST)
    assert host.device is None
    assert host.process == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert host.process < host.host < host.process + psutil.virtual_memory().total
