"""What a lane's arrays take on a GPU, counted on a stand-in, against what is planned for them.

Work areas of cuFFT and networks, which the stand-in has not, only a real GPU tells: `tests/gpu`.
"""

from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import standin_cupy
from bundle_builder import one_layer_bundle

from n2n_deploy import Denoiser
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.device.cuda import cuda_device
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.restore import Merge

SHAPE, OPTICS, CTF = (1200, 1024), Optics(1.0, 300.0, 2.7, 0.1), CTFParameters(15000.0, 14000.0, 20.0)


class _Same:
    """A network that changes nothing and needs no memory."""

    name = "same"

    def __init__(self) -> None:
        self.device = cuda_device(0)

    def run(self, batch: Any) -> Any:
        return batch.copy()

    def memory(self, shape: tuple[int, int]) -> int:
        del shape
        return 0


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("merge", [None, Merge(20.0, 5.0)])
@pytest.mark.parametrize("resolution", [2.0, 3.4, 8.0])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_arrays_take_what_was_planned(
    standin_gpu: ModuleType,
    tmp_path: Path,
    dtype: str,
    resolution: float,
    merge: Merge | None,
    averaged: bool,
) -> None:
    del standin_gpu
    gpu = cuda_device(0)
    gpu.grids.clear()
    image = np.random.default_rng(0).normal(40, 6, SHAPE).astype(dtype)
    halves = (image, image) if averaged else None
    bundle = one_layer_bundle(tmp_path / "model.n2n", max_resolution=resolution, phase_flip=True)
    denoiser = Denoiser(bundle, session=_Same(), merge=merge)  # type: ignore[arg-type]
    fit = denoiser.fit_to_memory({(SHAPE, OPTICS.pixel_size): 1}, halves=averaged)
    planned = fit.device - gpu.fft_work(SHAPE)
    before = standin_cupy.taken["most"] = standin_cupy.taken["bytes"]
    denoiser.denoise(image, OPTICS, CTF, halves=halves)
    taken = standin_cupy.taken["most"] - before
    assert taken <= planned <= 2.5 * taken


def test_an_allocation_that_fails_costs_its_micrograph_alone(
    standin_gpu: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    del standin_gpu
    cuda_device(0).grids.clear()
    image = np.random.default_rng(0).normal(40, 6, (256, 240)).astype(np.float32)
    denoiser = Denoiser(bundle, session=_Same(), merge=Merge(20.0, 5.0))  # type: ignore[arg-type]
    expected = denoiser(image, OPTICS, CTF).copy()
    real, made, failing = standin_cupy.empty, 0, 0

    def empty(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        if made == failing:
            raise MemoryError("Out of memory allocating 1 GB")
        return real(*arguments)

    monkeypatch.setattr(standin_cupy, "empty", empty)
    denoiser(image, OPTICS, CTF)
    count = made
    assert count > 50
    for failing in range(1, count + 1):
        made = 0
        with suppress(MemoryError, HostError):  # the second where no smaller tiles would do for the network
            assert np.array_equal(denoiser(image, OPTICS, CTF), expected)
        assert made >= failing
        made = count
        assert np.array_equal(denoiser(image, OPTICS, CTF), expected)
