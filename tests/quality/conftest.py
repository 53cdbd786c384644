"""Denoisers made of functions, and bundles that stand in for trained models."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy.bundle import write_bundle
from n2n_deploy.manifest import Deviation, Manifest
from n2n_deploy.recipe import Recipe

Image = NDArray[np.float32]


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
