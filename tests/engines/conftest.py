"""Networks as bundles carry them, for the tests of what runs them."""

from collections.abc import Callable
from functools import cache

import onnx
import pytest
import torch

from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.tensorrt_graph import to_bfloat16
from n2n_deploy.manifest import Precision
from n2n_deploy.train.model import build


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
