"""ONNX Runtime's session: its memory against what the system saw, and its errors."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from n2n_deploy.bundle.manifest import Precision
from n2n_deploy.core.errors import BundleError, HostError, UsageError
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.train.wide import WideNetwork

Graph = Callable[[str, Precision], onnx.ModelProto]

MEASURE = """
import re, sys, numpy, psutil
sys.modules["onnx"] = sys.modules["torch"] = None
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
with OnnxRuntimeSession(open(sys.argv[1], "rb").read(), threads=1) as session:
    for text in sys.argv[2:]:
        shape = tuple(map(int, text.split("x")))
        batch = numpy.ones((1, 1, *shape), numpy.float32)
        if text is sys.argv[2]:
            before = psutil.Process().memory_info().rss
        session.run(batch)
    peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
    print(peak - before, session.memory(shape))
after = psutil.Process().memory_info().rss
print(after - before)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network that needs much more memory than the presets for CPUs do: what is measured is not the fixed part."""
    path = tmp_path / "wide.onnx"
    path.write_bytes(to_onnx(WideNetwork(16, 3)).SerializeToString())
    return path


@pytest.mark.parametrize("shapes", [["424x440"], ["608x552"], ["128x128", "256x264", "312x320", "480x488"]])
def test_memory_is_an_upper_bound_and_is_freed(model: Path, shapes: list[str]) -> None:
    # These shapes split the arena's regions worst; the last ones come one after another, each larger.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, model, *shapes], capture_output=True, text=True, check=True, timeout=120
    )
    used, estimate, kept = map(int, done.stdout.split())
    assert used <= estimate
    assert used > estimate / 4
    assert kept < 0.5 * used


def test_threads_share_a_session(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((1, 1, side, 64)).astype(np.float32) for side in range(32, 128, 8)]
    model = graph("small", "fp32").SerializeToString()
    with OnnxRuntimeSession(model, threads=1) as session, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(session.run, batches))  # each is larger, so that the network is loaded again
    plain = onnxruntime.InferenceSession(model)
    for batch, output in zip(batches, found, strict=True):
        (expected,) = plain.run(None, {plain.get_inputs()[0].name: batch})
        np.testing.assert_allclose(output, expected, atol=1e-5 * expected.std())


def test_batch_equals_its_images_one_by_one(graph: Graph) -> None:
    batch = np.random.default_rng(0).standard_normal((3, 1, 40, 56)).astype(np.float32)
    with OnnxRuntimeSession(graph("small", "fp32").SerializeToString(), threads=1) as session:
        together = session.run(batch)
        single = np.concatenate([session.run(image[None]) for image in batch])
    assert together.shape == batch.shape
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, single, atol=1e-5 * single.std())


def test_larger_image_in_between_does_not_change_the_result(graph: Graph) -> None:
    image = np.random.default_rng(0).standard_normal((1, 1, 64, 72)).astype(np.float32)
    with OnnxRuntimeSession(graph("small", "fp32").SerializeToString(), threads=1) as session:
        before = session.run(image)
        session.run(np.ones((1, 1, 128, 128), np.float32))
        np.testing.assert_array_equal(session.run(image), before)


def test_closed_session_does_not_run(graph: Graph) -> None:
    session = OnnxRuntimeSession(graph("small", "fp32").SerializeToString())
    session.close()
    with pytest.raises(HostError, match="closed"):
        session.run(np.zeros((1, 1, 8, 8), np.float32))


def test_sides_must_be_multiples_of_8(graph: Graph) -> None:
    with OnnxRuntimeSession(graph("small", "fp32").SerializeToString()) as session:
        with pytest.raises(BundleError) as caught:
            session.run(np.zeros((1, 1, 20, 24), np.float32))
        assert "\n" not in str(caught.value)


def test_invalid_model_is_refused(graph: Graph) -> None:
    with pytest.raises(BundleError, match="cannot load"):
        OnnxRuntimeSession(b"no model")
    bare = onnx.load_from_string(graph("small", "fp32").SerializeToString())
    helper.set_model_props(bare, {})
    with pytest.raises(BundleError, match="bytes_per_pixel"):
        OnnxRuntimeSession(bare.SerializeToString())


def test_0_threads_are_refused(graph: Graph) -> None:
    with pytest.raises(UsageError, match="threads"):
        OnnxRuntimeSession(graph("small", "fp32").SerializeToString(), threads=0)


def test_missing_onnx_runtime_names_the_extra_that_installs_it(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HostError, match=r"n2n-deploy\[cpu\]"):
        OnnxRuntimeSession(graph("small", "fp32").SerializeToString())
