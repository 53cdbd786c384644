"""Choosing a session: the golden vectors decide, and what was asked for is never silently replaced."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from n2n_deploy.bundle.archive import Bundle, write_bundle
from n2n_deploy.bundle.manifest import Deviation, Manifest, Precision
from n2n_deploy.core.errors import BundleError, HostError, UsageError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.engines.select import choose_session, deviation, open_session, verify
from n2n_deploy.train.model import build

Graph = Callable[[str, Precision], onnx.ModelProto]


@pytest.fixture
def make_bundle(graph: Graph, tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle of the small network; its golden outputs are PyTorch's times `gain`."""
    torch.manual_seed(0)
    network = build("small").eval()
    inputs = np.random.default_rng(0).standard_normal((2, 1, 32, 40)).astype(np.float32)
    with torch.no_grad():
        outputs = network(torch.from_numpy(inputs)).numpy()

    def make(gain: float = 1.0) -> Bundle:
        golden = io.BytesIO()
        np.savez(golden, inputs=inputs, outputs=outputs * np.float32(gain))
        tolerance: dict[Precision, Deviation] = {"fp32": Deviation(max=1e-3, rms=1e-4)}
        return write_bundle(
            tmp_path / "model.n2n",
            Manifest(preset="small", halo=104, tolerance=tolerance),
            Recipe(),
            {
                "model.fp32.onnx": graph("small", "fp32").SerializeToString(),
                "model.fp16.onnx": graph("small", "fp16").SerializeToString(),
                "golden.npz": golden.getvalue(),
            },
        )

    return make


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_cpu_passes_the_golden_vectors_that_pytorch_made(make_bundle: Callable[..., Bundle], device: str) -> None:
    choice = choose_session(make_bundle(), device, threads=1)
    with choice.session as session:
        assert session.name == "onnxruntime-cpu"
        assert choice.deviation.max < 1e-4
        assert verify(make_bundle(), session) == choice.deviation


def test_a_network_that_does_something_else_is_refused(make_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(BundleError, match="onnxruntime-cpu gives other results") as caught:
        open_session(make_bundle(gain=1.01), threads=1)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_cpu(make_bundle: Callable[..., Bundle]) -> None:
    for device in ("gpu", "cuda", "cuda:1"):
        with pytest.raises(HostError, match=device):
            open_session(make_bundle(), device)


def test_an_unknown_device_is_a_usage_error(make_bundle: Callable[..., Bundle]) -> None:
    for device in ("", "tpu", "cuda:", "cuda:x"):
        with pytest.raises(UsageError, match="choose auto, cpu, gpu"):
            open_session(make_bundle(), device)


def test_where_nothing_works_every_engine_says_why(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HostError, match=r"onnxruntime-cpu: .*n2n-deploy\[cpu\]"):
        open_session(make_bundle())


def test_deviation_is_in_standard_deviations_of_the_reference() -> None:
    expected = np.array([[1.0, 3.0], [1.0, 3.0]], np.float32) * 10  # standard deviation 10
    off = expected + np.array([[5.0, 0.0], [0.0, 0.0]], np.float32)
    assert deviation(off, expected) == Deviation(max=0.5, rms=0.25)
    off[0, 0] = np.nan
    assert not deviation(off, expected).within(Deviation(max=1e20, rms=1e20))
