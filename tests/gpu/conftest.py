"""What needs a GPU: skipped, with the reason, where there is none. `make gpu-test` runs it all, and asks for one."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from n2n_deploy.bundle import GOLDEN, Bundle, write_bundle
from n2n_deploy.engines.gpus import driver
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.parity import TOLERANCE, golden_vectors
from n2n_deploy.manifest import Manifest
from n2n_deploy.recipe import Recipe
from n2n_deploy.train.model import build
from n2n_deploy.train.receptive_field import receptive_field

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests without a GPU, before any of their fixtures is made."""
    problem = driver().problem
    if problem is not None:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(scope="session")
def cupy() -> ModuleType:
    """CuPy, with a stream of its own, as lanes have."""
    return pytest.importorskip("cupy", reason="CuPy is not installed (extra gpu)")


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
    members = {
        "model.fp32.onnx": to_onnx(network, "fp32").SerializeToString(),
        "model.fp16.onnx": to_onnx(network, "fp16").SerializeToString(),
        GOLDEN: golden.getvalue(),
    }
    manifest = Manifest(preset="fast", halo=receptive_field(network), tolerance=TOLERANCE)
    path = tmp_path_factory.mktemp("gpu") / "model.n2n"
    return write_bundle(path, manifest, Recipe(max_resolution=6.0), members)
