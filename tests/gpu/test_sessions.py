"""Each session against ONNX Runtime on the CPU; the order of streams; memory as stated."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.gpus import gpus
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.select import ENGINES, choose_session, deviation
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tiling import run_tiled

LEAN = "tensorrt-lean"
GPU_ENGINES = [engine.name for engine in ENGINES if engine.gpu and engine.name != LEAN]
CASES: list[Any] = [
    *((name, "fp32") for name in GPU_ENGINES),
    *(pytest.param(name, "fp16", marks=pytest.mark.real_gpu) for name in GPU_ENGINES),
    *(pytest.param(name, "bf16", marks=pytest.mark.real_gpu) for name in ("tensorrt", "rtx")),
]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("N2N_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def opened(bundle: Bundle, engine: str, precision: Precision = "fp16") -> Session:
    try:
        return choose_session(bundle, "gpu", engine=engine, precision=precision).session
    except HostError as error:
        pytest.skip(str(error))


def images(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("engine", "precision"), CASES)
@pytest.mark.parametrize("shape", [(1, 1, 512, 512), (1, 1, 264, 1016), (3, 1, 64, 96)])
def test_sessions_agree_with_the_cpu(
    cupy: ModuleType, stream: Any, gpu_bundle: Bundle, engine: str, precision: Precision, shape: tuple[int, ...]
) -> None:
    del stream
    batch = images(shape)
    with OnnxRuntimeSession(gpu_bundle.onnx("fp32")) as cpu:
        expected = cpu.run(batch)
    with opened(gpu_bundle, engine, precision) as session:
        for _ in range(3):  # set-up, capture, replay
            found = session.run(cupy.asarray(batch))
            assert deviation(cupy.asnumpy(found), expected).within(gpu_bundle.manifest.tolerance[precision])


def test_a_gpu_index_too_high_is_reported_once(gpu_bundle: Bundle) -> None:
    count = len(gpus())
    with pytest.raises(HostError) as refused:
        choose_session(gpu_bundle, f"cuda:{count}")
    assert str(refused.value).count(f"there is no GPU {count}: this process may use {count}") == 1


@pytest.mark.real_gpu
def test_the_lean_runtime_runs_a_portable_engine(cupy: ModuleType, stream: Any, portable_bundle: Bundle) -> None:
    del stream
    batch = images((1, 1, 512, 640))
    with OnnxRuntimeSession(portable_bundle.onnx("fp32")) as cpu:
        expected = cpu.run(batch)
    with opened(portable_bundle, LEAN) as session:
        for _ in range(3):
            found = cupy.asnumpy(session.run(cupy.asarray(batch)))
            assert deviation(found, expected).within(portable_bundle.manifest.tolerance["fp16"])


@pytest.mark.real_gpu
def test_a_shipped_engine_is_run_and_none_is_built(
    portable_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N2N_DEPLOY_CACHE", str(tmp_path))
    with opened(portable_bundle, "tensorrt") as session:
        assert session.name == "tensorrt"
    assert not list(tmp_path.glob("*.engine"))


@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_a_session_waits_for_the_kernels_before_it_and_holds_up_those_after(
    cupy: ModuleType, gpu_bundle: Bundle, engine: str
) -> None:
    batch = images((1, 1, 512, 512))
    # The input becomes right, and the output is read, only if the streams' order holds: no synchronisation between.
    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }', "spin"
    )
    with opened(gpu_bundle, engine) as session:
        expected = cupy.asnumpy(session.run(cupy.asarray(batch)))
        for stream in (cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)):
            with stream:
                late = cupy.zeros(batch.shape, cupy.float32)
                right = cupy.asarray(batch)
                session.run(right)
                spin((1,), (1,), (200_000_000,))
                late += right
                result = session.run(late)
                late.fill(0)
                copy = result * 1
                session.run(late)
                found = cupy.asnumpy(copy)
            # Kernels may differ in their rounding from one context to another; half an input would show in every pixel.
            assert deviation(found, expected).max < 0.02


@pytest.mark.real_gpu
@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_tiles_equal_the_whole_image(cupy: ModuleType, stream: Any, gpu_bundle: Bundle, engine: str) -> None:
    del stream
    image = cupy.asarray(images((1024, 1280)))
    halo = gpu_bundle.manifest.halo
    with opened(gpu_bundle, engine, "fp32") as session:
        whole = run_tiled(session, image, halo, (1024, 1280))
        tiled = run_tiled(session, image, halo, (512, 640))
        assert float(abs(tiled - whole).max()) < 1e-4 * float(whole.std())


@pytest.mark.real_gpu
@pytest.mark.gpu_memory
@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_memory_is_not_more_than_stated(cupy: ModuleType, stream: Any, gpu_bundle: Bundle, engine: str) -> None:
    shape = (1016, 1520)
    pool = cupy.get_default_memory_pool()
    with opened(gpu_bundle, engine) as session:
        batch = cupy.asarray(images((1, 1, *shape)))
        stream.synchronize()
        pool.free_all_blocks()
        before = cupy.cuda.runtime.memGetInfo()[0]
        result = session.run(batch)
        stream.synchronize()
        taken = before - cupy.cuda.runtime.memGetInfo()[0]
        # The context's own code and the pool's rounding come on top.
        assert taken <= session.memory(shape) + (64 << 20)
        assert session.memory(shape) < 4 * max(taken, 64 << 20)
        assert result.shape == batch.shape
