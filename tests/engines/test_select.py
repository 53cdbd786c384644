"""Choosing a session: the golden vectors decide, and an engine or device that was named is never replaced silently."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.errors import BundleError, HostError, UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.gpus import driver
from n2n_deploy.engines.select import (
    ENGINES,
    candidates,
    choose_session,
    deviation,
    parse_device,
    verify,
)
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
def test_cpu_reproduces_pytorchs_golden_vectors(make_bundle: Callable[..., Bundle], device: str) -> None:
    choice = choose_session(make_bundle(), device, threads=1)
    with choice.session as session:
        assert session.name == "onnxruntime-cpu"
        assert choice.deviation.max < 1e-4
        assert verify(make_bundle(), session) == choice.deviation


def test_network_with_other_outputs_is_refused(make_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(BundleError, match="onnxruntime-cpu gives other results") as caught:
        choose_session(make_bundle(gain=1.01), threads=1)
    assert "\n" not in str(caught.value)


def test_missing_gpu_is_not_replaced_by_the_cpu(make_bundle: Callable[..., Bundle]) -> None:
    for device in ("gpu", "cuda", "cuda:1"):
        with pytest.raises(HostError, match=device):
            choose_session(make_bundle(), device)


def test_unknown_device_is_a_usage_error(make_bundle: Callable[..., Bundle]) -> None:
    for device in ("", "tpu", "cuda:", "cuda:x", "gpu:0"):
        with pytest.raises(UsageError, match="choose auto, cpu, gpu"):
            choose_session(make_bundle(), device)


@pytest.mark.parametrize(
    ("text", "device"),
    [("auto", "auto"), ("cpu", "cpu"), ("gpu", "gpu"), ("cuda", "gpu"), ("cuda:0", "cuda:0"), ("cuda:12", "cuda:12")],
)
def test_cuda_is_another_name_for_gpu(text: str, device: str) -> None:
    assert parse_device(text) == device
    assert candidates(text) == candidates(device)


def test_candidates_are_ordered_from_the_fastest_to_the_cpu() -> None:
    names = [engine.name for engine in candidates("auto")]
    assert names == ["tensorrt", "rtx", "tensorrt-lean", "onnxruntime-cuda", "openvino", "onnxruntime-cpu"]
    assert [engine.name for engine in candidates("cuda:1")] == names[:-2]
    assert [engine.name for engine in candidates("cpu")] == names[-2:]
    assert [engine.name for engine in candidates("auto", "rtx")] == ["rtx"]


@pytest.mark.parametrize(("device", "engine"), [("cpu", "tensorrt"), ("gpu", "onnxruntime-cpu"), ("auto", "magic")])
def test_engine_on_the_wrong_device_is_a_usage_error(device: str, engine: str) -> None:
    with pytest.raises(UsageError, match=engine):
        candidates(device, engine)


def test_without_a_driver_only_device_auto_uses_the_cpu(bundle: Bundle) -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU")
    choice = choose_session(bundle, "auto", threads=1)
    with choice.session:
        assert not choice.session.device.is_gpu
    assert "driver" in choice.rejected_engines["GPU"]
    for engine in (known.name for known in ENGINES if known.gpu):
        with pytest.raises(HostError, match="driver"):
            choose_session(bundle, "auto", engine=engine)
    with pytest.raises(HostError, match="fp32 or int8, not fp16"):
        choose_session(bundle, "cpu", precision="fp16")


def test_error_gives_the_reason_for_every_engine(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HostError, match=r"onnxruntime-cpu: .*n2n-deploy\[cpu\]"):
        choose_session(make_bundle())


def test_deviation_is_in_standard_deviations_of_the_reference() -> None:
    expected = np.array([[1.0, 3.0], [1.0, 3.0]], np.float32) * 10  # standard deviation 10
    off = expected + np.array([[5.0, 0.0], [0.0, 0.0]], np.float32)
    assert deviation(off, expected) == Deviation(max=0.5, rms=0.25)
    off[0, 0] = np.nan
    assert not deviation(off, expected).within(Deviation(max=1e20, rms=1e20))
