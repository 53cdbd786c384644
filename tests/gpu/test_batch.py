"""A whole batch on the GPU against the CPU's, with lanes; and no leak over 500 micrographs."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import psutil
import pytest

from n2n_deploy import Denoiser, denoise
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import DataError, HostError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.device.gpus import gpus
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.restore import Merge
from n2n_deploy.simulate import simulate

OPTICS, CTF = Optics(1.0, 300.0, 2.7, 0.1), CTFParameters(15000.0, 14000.0, 20.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N2N_DEPLOY_CACHE", str(tmp_path_factory.getbasetemp() / "gpu-cache"))


def gpu_denoiser(bundle: Bundle, lanes: int = 1, **options: Any) -> Denoiser:
    try:
        return Denoiser(bundle, compute=ComputeOptions(device="gpu", lanes=lanes), **options)
    except HostError as error:
        pytest.skip(str(error))


def test_a_batch_is_the_cpus(gpu_bundle: Bundle, tmp_path: Path) -> None:
    gpu_denoiser(gpu_bundle).close()
    table = simulate(tmp_path / "data", micrographs=4, size=(600, 512), pixel_size=1.5, seed=1)
    outputs = {}
    for device, engine in (("cpu", "onnxruntime-cpu"), ("gpu", None)):
        options = DenoiseOptions(device=device, engine=engine, lanes=3)
        summary = denoise(table, gpu_bundle, tmp_path / device, options=options)
        assert not summary.failures
        outputs[device] = sorted((tmp_path / device).rglob("*.mrc"))
    assert len(outputs["cpu"]) == len(outputs["gpu"]) == 4
    for one, other in zip(outputs["cpu"], outputs["gpu"], strict=True):
        expected, found = mrcfile.read(one), mrcfile.read(other)
        assert np.abs(found - expected).max() < 0.05 * expected.std()
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.005 * expected.std()
        with mrcfile.open(other, header_only=True) as file:
            told = [float(file.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        assert told == pytest.approx(
            [found.min(), found.max(), found.mean(dtype=float), found.std(dtype=float)], rel=1e-5
        )


def test_a_batch_on_all_gpus_is_the_cpus(gpu_bundle: Bundle, tmp_path: Path) -> None:
    if len(gpus()) < 2:
        pytest.skip("this process may use one GPU")
    gpu_denoiser(gpu_bundle).close()
    table = simulate(tmp_path / "data", micrographs=8, size=(600, 512), pixel_size=1.5, seed=2)
    chosen = tuple(gpu.index for gpu in gpus())
    for name, options in (("cpu", DenoiseOptions(engine="onnxruntime-cpu")), ("gpus", DenoiseOptions(gpus=chosen))):
        said: list[str] = []
        assert denoise(table, gpu_bundle, tmp_path / name, options=options, say=said.append).denoised == 8
    assert len(said) == 2, "GPUs of a kind speak once of their memory and once of the host's"
    for one in sorted((tmp_path / "cpu").rglob("*.mrc")):
        expected, found = mrcfile.read(one), mrcfile.read(tmp_path / "gpus" / one.relative_to(tmp_path / "cpu"))
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.005 * expected.std()


def test_input_that_is_not_2d_is_rejected(gpu_bundle: Bundle) -> None:
    with gpu_denoiser(gpu_bundle) as denoiser:
        for image in (np.ones(64), np.ones((2, 64, 64)), np.ones((64, 64), complex), np.ones((0, 64))):
            with pytest.raises(DataError, match="2-D image"):
                denoiser(image, OPTICS, CTF)


@pytest.mark.parametrize("flip_back", [False, True])
def test_halves_and_views_are_averaged_as_on_the_cpu(gpu_bundle: Bundle, flip_back: bool) -> None:
    rng = np.random.default_rng(0)
    even, odd = (rng.normal(20, 4, (511, 600)).astype(np.float32) for _ in range(2))
    even[5, 7] = np.nan
    options: dict[str, Any] = {"tta": True, "merge": Merge(9.0, 3.0), "flip_back": flip_back, "lowpass": 5.0}
    with (
        gpu_denoiser(gpu_bundle, **options) as there,
        Denoiser(gpu_bundle, compute=ComputeOptions(engine="onnxruntime-cpu"), **options) as here,
    ):
        found, expected = (
            denoiser.denoise(even + odd, OPTICS, CTF, halves=(even, odd)).image for denoiser in (there, here)
        )
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.01 * expected.std()


@pytest.mark.real_gpu
@pytest.mark.gpu_memory
@pytest.mark.parametrize("shape", [(2046, 2880), (1023, 1001), (1019, 997)])
@pytest.mark.parametrize("merge", [None, Merge(9.0, 3.0)])
def test_lanes_take_no_more_than_was_planned(gpu_bundle: Bundle, shape: tuple[int, int], merge: Merge | None) -> None:
    import cupy

    image = np.random.default_rng(0).normal(40, 6, shape).astype(np.float32)
    with gpu_denoiser(gpu_bundle, merge=merge) as denoiser:
        fit = denoiser.fit_to_memory({(shape, OPTICS.pixel_size): 2})
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before, host = cupy.cuda.runtime.memGetInfo()[0], psutil.Process().memory_info().rss
        for _ in range(2):
            denoiser(image, OPTICS, CTF)
        # The library's own code, loaded with the first run of a shape, comes on top.
        assert before - cupy.cuda.runtime.memGetInfo()[0] <= fit.device + (64 << 20)
        assert psutil.Process().memory_info().rss - host <= fit.host - fit.budget.process + (64 << 20)


@pytest.mark.real_gpu
@pytest.mark.gpu_memory
def test_nothing_leaks_over_500_micrographs(gpu_bundle: Bundle) -> None:
    import cupy

    rng = np.random.default_rng(0)
    images = [rng.normal(40, 6, shape).astype(np.float32) for shape in ((512, 512), (511, 600))]
    host, device = [], []
    with gpu_denoiser(gpu_bundle) as denoiser:
        for number in range(500):
            denoiser(images[number % 2], OPTICS, CTF)
            if number in (100, 499):
                host.append(psutil.Process().memory_info().rss)
                device.append(cupy.cuda.runtime.memGetInfo()[0])
    assert host[1] - host[0] < 32 << 20
    assert device[0] - device[1] < 32 << 20
