"""ONNX Runtime's session on a GPU: the order of its stream and its caller's, on a stand-in."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx
import pytest
from standin_streams import Stream

from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.onnxruntime.run_cuda import OnnxRuntimeCudaSession


@pytest.mark.parametrize("early", [False, True])
def test_the_two_streams_wait_for_each_other(
    standin_gpu: ModuleType, graph: Callable[..., onnx.ModelProto], early: bool
) -> None:
    cupy, model = standin_gpu, graph("small", "fp32").SerializeToString()
    batch = np.random.default_rng(0).standard_normal((1, 1, 64, 96)).astype(np.float32)
    expected = OnnxRuntimeSession(model, threads=1).run(batch + 1)
    with OnnxRuntimeCudaSession(model) as session, Stream(non_blocking=True):
        session._stream.early = early
        for _ in range(2):
            assert np.array_equal(session.run(cupy.asarray(batch) + 1).get(), expected)
