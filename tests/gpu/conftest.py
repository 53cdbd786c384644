"""What runs on a GPU, or on a stand-in, which shows that the right work is asked for in the right order.

What a real GPU alone can show is skipped without one, with the reason. `make gpu-test` runs it all, and asks for one.
"""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from standin_gpu import standin_gpu

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Manifest
from n2n_deploy.bundle.members import GOLDEN
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.cuda import CudaDevice, cuda_device
from n2n_deploy.device.gpus import driver
from n2n_deploy.engines.tensorrt.profiles import make_profiles
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.parity import TOLERANCE, golden_vectors
from n2n_deploy.export.tensorrt_engine import compile_bundle
from n2n_deploy.export.tensorrt_graph import to_bfloat16
from n2n_deploy.train.model import build
from n2n_deploy.train.receptive_field import receptive_field

__all__ = ["standin_gpu"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what only a real GPU shows, before any of its fixtures is made."""
    problem = driver().problem
    if problem is not None:
        for item in items:
            if HERE in item.path.parents and item.get_closest_marker("real_gpu"):
                item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(scope="module", autouse=True)
def _gpu(request: pytest.FixtureRequest) -> None:
    """This machine's, or the stand-in."""
    if driver().problem is not None:
        request.getfixturevalue("standin_gpu")


@pytest.fixture
def cupy() -> ModuleType:
    """CuPy, or its stand-in."""
    return pytest.importorskip("cupy", reason="CuPy is not installed (extra gpu)")


@pytest.fixture
def gpu(cupy: ModuleType) -> CudaDevice:
    """The first GPU."""
    del cupy
    return cuda_device(0)


@pytest.fixture
def stream(cupy: ModuleType) -> Iterator[Any]:
    """A lane's stream, current during the test."""
    with cupy.cuda.Stream(non_blocking=True) as own:
        yield own
        own.synchronize()


@pytest.fixture(scope="session")
def gpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network `fast` with fresh weights, with phase flipping."""
    torch.manual_seed(0)
    network = build("fast")
    inputs, outputs = golden_vectors(network)
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=outputs)
    graph = to_onnx(network, "fp32")
    members = {
        "model.fp32.onnx": graph.SerializeToString(),
        "model.bf16.onnx": to_bfloat16(graph).SerializeToString(),
        "model.fp16.onnx": to_onnx(network, "fp16").SerializeToString(),
        GOLDEN: golden.getvalue(),
    }
    manifest = Manifest(preset="fast", halo=receptive_field(network), tolerance=TOLERANCE)
    path = tmp_path_factory.mktemp("gpu") / "model.n2n"
    return write_bundle(path, manifest, Recipe(max_resolution=6.0), members)


@pytest.fixture(scope="session")
def portable_bundle(gpu_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with a version-compatible engine of TensorRT, which its lean runtime runs."""
    path = tmp_path_factory.mktemp("portable") / "model.n2n"
    shutil.copy(gpu_bundle.path, path)
    try:
        compile_bundle(Bundle.open(path), "tensorrt", ["fp16"], make_profiles([(1024, 1280)]), portable=True)
    except HostError as error:
        pytest.skip(str(error))
    return Bundle.open(path)
