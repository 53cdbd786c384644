"""Networks as bundles carry them, for the tests of what runs them."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from standin_gpu import standin_gpu

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Manifest
from n2n_deploy.bundle.members import GOLDEN
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.options import Precision
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.parity import TOLERANCE, golden_vectors
from n2n_deploy.export.tensorrt_graph import to_bfloat16
from n2n_deploy.train.model import build
from n2n_deploy.train.receptive_field import receptive_field

__all__ = ["standin_gpu"]


@cache
def _graph(preset: str, precision: Precision) -> onnx.ModelProto:
    if precision == "bf16":
        return to_bfloat16(_graph(preset, "fp32"))
    torch.manual_seed(0)
    return to_onnx(build(preset), precision)


@pytest.fixture(scope="session")
def graph() -> Callable[[str, Precision], onnx.ModelProto]:
    """The ONNX graph of a preset with fresh weights, in a precision."""
    return _graph


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with a small network with fresh weights, which flips no phases."""
    torch.manual_seed(0)
    network = build("small")
    inputs, outputs = golden_vectors(network)
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=outputs)
    return write_bundle(
        tmp_path / "model.n2n",
        Manifest(preset="small", halo=receptive_field(network), tolerance=TOLERANCE),
        Recipe(max_resolution=8.0, phase_flip=False),
        {
            "model.fp32.onnx": _graph("small", "fp32").SerializeToString(),
            "model.fp16.onnx": _graph("small", "fp16").SerializeToString(),
            GOLDEN: golden.getvalue(),
        },
    )
