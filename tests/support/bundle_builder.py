"""Bundles whose network is one layer, such as the identity; every test folder makes such bundles with this."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.members import GOLDEN
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.recipe import Recipe, RecipeRange


def one_layer(operator: str = "Identity", kernel: NDArray[np.floating] | None = None, **attributes: Any) -> bytes:
    """An ONNX model with one node, from "image" to "denoised", both (n, 1, height, width) float32.

    Args:
        operator: of ONNX.
        kernel: (ky, kx), the second input of a `Conv`.
        attributes: of the node.
    """
    axes = ["n", 1, "height", "width"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in ("image", "denoised")]
    weights = [] if kernel is None else [numpy_helper.from_array(kernel[None, None].astype(np.float32), "kernel")]
    inputs = ["image", *(tensor.name for tensor in weights)]
    node = helper.make_node(operator, inputs, ["denoised"], **attributes)
    graph = helper.make_graph([node], operator, ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"bytes_per_pixel": "8" if kernel is None else "16"})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def general_stand_in(path: Path, network: bytes | None = None) -> Path:
    """Write a bundle that takes the recipes of the general model: 4 to 12 Å, by default 8 Å, phases flipped or not."""
    accepts = RecipeRange(max_resolution=(4.0, 12.0), either_phase=True)
    return one_layer_bundle(path, network, accepts=accepts, phase_flip=True)


def one_layer_bundle(
    path: Path, network: bytes | None = None, *, halo: int = 0, accepts: RecipeRange | None = None, **recipe: Any
) -> Path:
    """Write a bundle with golden vectors computed by ONNX's reference implementation.

    Args:
        path: the file.
        network: an ONNX model; None for the identity.
        halo: pixels that the network sees around a pixel, a multiple of 8.
        accepts: the recipes that it takes; None for its own alone.
        recipe: fields of the recipe; by default max_resolution 8 Å without phase flipping.
    """
    network = network or one_layer()
    patch = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    (outputs,) = ReferenceEvaluator(onnx.load_model_from_string(network)).run(None, {"image": patch})
    golden = io.BytesIO()
    np.savez(golden, inputs=patch, outputs=outputs)
    tight = Deviation(max=1e-4, rms=1e-5)
    write_bundle(
        path,
        Manifest(preset="small", accepts=accepts, halo=halo, tolerance={"fp32": tight, "fp16": tight}),
        Recipe(**{"max_resolution": 8.0, "phase_flip": False, **recipe}),
        {"model.fp32.onnx": network, "model.fp16.onnx": network, GOLDEN: golden.getvalue()},
    )
    return path
