"""Denoisers made of functions, and bundles that stand in for trained models."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.evaluation.evaluate import MicrographEvaluation, evaluate
from n2n_deploy.io.star import read_micrographs

from .browser import open_browser

Image = NDArray[np.float32]
MakeModel = Callable[..., Path]


class Function:
    """A session made of a function of one image."""

    name, array_module = "function", "numpy"

    def __init__(self, function: Callable[[Image], Image]) -> None:
        self.function = function

    def run(self, batch: Image) -> Image:
        return np.stack([[self.function(image) for image in channels] for channels in batch]).astype(np.float32)

    def memory(self, shape: tuple[int, int]) -> int:
        return 8 * shape[0] * shape[1]

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A bundle with a recipe and no network in it: a session is given beside it."""

    def make(**recipe: object) -> Path:
        patch = np.zeros((1, 1, 32, 32), np.float32)
        golden = io.BytesIO()
        np.savez(golden, inputs=patch, outputs=patch)
        members = {"model.fp32.onnx": b"none", "model.fp16.onnx": b"none", "golden.npz": golden.getvalue()}
        tight = Deviation(max=1e-4, rms=1e-5)
        path = tmp_path_factory.mktemp("model") / "model.n2n"
        manifest = Manifest(preset="small", halo=0, tolerance={"fp32": tight, "fp16": tight})
        write_bundle(path, manifest, Recipe(**{"max_resolution": 12.0, **recipe}), members)
        return path

    return make


def measured(star: Path, model: Path, function: Callable[[Image], Image]) -> list[MicrographEvaluation]:
    with Denoiser(model, session=Function(function)) as denoiser:
        result = evaluate(read_micrographs(star, need_halves=True), denoiser, truth=star.parent / "truth")
    assert not result.failures
    return result.done


def write_convolution(path: Path, kernel: Image) -> Path:
    """A bundle whose network is one convolution with a kernel of odd sides, for ONNX Runtime."""
    pytest.importorskip("onnx", reason="onnx is not installed (pip install 'n2n-deploy[export]')")
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install 'n2n-deploy[cpu]')")
    from onnx import TensorProto, helper, numpy_helper

    axes = ["n", 1, "height", "width"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in ("image", "denoised")]
    halo = -(-(max(kernel.shape) // 2) // 8) * 8
    node = helper.make_node("Conv", ["image", "kernel"], ["denoised"], auto_pad="SAME_UPPER")
    weights = numpy_helper.from_array(kernel[None, None].astype(np.float32), "kernel")
    graph = helper.make_graph([node], "convolution", values[:1], values[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"bytes_per_pixel": "16"})
    content = model.SerializeToString()
    patch = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    outputs = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"image": patch})[0]
    golden = io.BytesIO()
    np.savez(golden, inputs=patch, outputs=outputs)
    tight = Deviation(max=1e-4, rms=1e-5)
    write_bundle(
        path,
        Manifest(preset="small", halo=halo, tolerance={"fp32": tight, "fp16": tight}),
        Recipe(max_resolution=12.0),
        {"model.fp32.onnx": content, "model.fp16.onnx": content, "golden.npz": golden.getvalue()},
    )
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, opened once."""
    yield from open_browser(tmp_path_factory.mktemp("profile"))
