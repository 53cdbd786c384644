"""From the PyTorch network to an ONNX model: one node per layer, float32 in and out, any height and width."""

import operator
from collections.abc import Mapping
from typing import Any, Literal

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import fx, nn

from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.version import __version__
from n2n_deploy.engines.onnxruntime.library import BYTES_PER_PIXEL
from n2n_deploy.export.graph_passes import add_before_shuffling, pad_channels, to_half
from n2n_deploy.export.liveness import peak_bytes_per_pixel

INPUT, OUTPUT = "image", "denoised"

_OPSET = 17
_IR_VERSION = 8  # the oldest that the opset allows: older ONNX Runtime and TensorRT refuse newer ones

_FUNCTIONS: dict[Any, tuple[str, dict[str, Any]]] = {
    torch.relu: ("Relu", {}),
    operator.add: ("Add", {}),
    torch.cat: ("Concat", {"axis": 1}),
    nn.functional.max_pool2d: ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
}


def to_onnx(
    network: nn.Module,
    precision: Literal["fp32", "fp16"] = "fp32",
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """Convert a network of `n2n_deploy.train.model` without weight normalisation.

    The graph consists of Conv, Relu, Add, MaxPool, Concat and DepthToSpace only (and two Casts if it computes in
    float16). It is written layer by layer instead of by `torch.onnx.export`, so that nothing depends on how an exporter
    writes pixel shuffling and asymmetric padding. Inner widths are padded to multiples of 8 with zero weights.

    Args:
        network: (n, 1, h, w) float32 → (n, 1, h, w) float32, h and w multiples of 8.
        precision: of the weights and of all layers between the input and the output.
        metadata: strings for the model's `metadata_props`, beside the memory that it needs.

    Returns:
        The model: input "image", output "denoised", float32 in every precision.

    Raises:
        BundleError: the network has a layer that the conversion does not support, or weights beyond float16.
    """
    model = add_before_shuffling(pad_channels(_convert(network)))
    if precision == "fp16":
        model = to_half(model)
    helper.set_model_props(model, {BYTES_PER_PIXEL: f"{peak_bytes_per_pixel(model):.1f}", **(metadata or {})})
    onnx.checker.check_model(model, full_check=True)
    return model


class _Layers(fx.Tracer):
    """Traces the forward pass down to PyTorch's own layers and those derived from them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.PixelShuffle) or super().is_leaf_module(m, module_qualified_name)


def _convert(network: nn.Module) -> ModelProto:
    """The float32 model, one node per layer."""
    modules = dict(network.eval().named_modules())
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    names: dict[fx.Node, str] = {}
    for step in _Layers().trace(network).nodes:
        if step.op == "placeholder":
            names[step] = INPUT
            continue
        arguments = step.args[0] if isinstance(step.args[0], list | tuple) else step.args
        inputs = [names[argument] for argument in arguments if isinstance(argument, fx.Node)]
        if step.op == "output":
            nodes[-1].output[0] = OUTPUT
            continue
        names[step] = str(step.target) if step.op == "call_module" else step.name
        layer = modules.get(str(step.target))
        if step.op == "call_module" and isinstance(layer, nn.Conv2d):
            weights += _weights(names[step], layer)
            inputs += [f"{names[step]}.weight", f"{names[step]}.bias"]
            kind, attributes = "Conv", _convolution(layer)
        elif step.op == "call_module" and isinstance(layer, nn.ReLU):
            kind, attributes = "Relu", {}
        elif step.op == "call_module" and isinstance(layer, nn.PixelShuffle):
            kind, attributes = "DepthToSpace", {"blocksize": layer.upscale_factor, "mode": "CRD"}
        elif step.op == "call_function" and step.target in _FUNCTIONS:
            kind, attributes = _FUNCTIONS[step.target]
        else:
            raise BundleError(f"the network has a layer {step.target}, which the export to ONNX does not support")
        nodes.append(helper.make_node(kind, inputs, [names[step]], names[step], **attributes))
    return _model(nodes, weights)


def _convolution(layer: nn.Conv2d) -> dict[str, Any]:
    """Attributes of a Conv node; an even kernel's uneven margins become the node's padding."""
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise BundleError(f"the export to ONNX does not support convolutions like {layer}")
    left, right, top, bottom = getattr(layer, "margins", None) or (0, 0, 0, 0)
    along_y, along_x = layer.padding
    return {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.stride),
        "dilations": list(layer.dilation),
        "pads": [top + along_y, left + along_x, bottom + along_y, right + along_x],
    }


def _weights(name: str, layer: nn.Conv2d) -> list[TensorProto]:
    """The kernel (out, in, y, x) and bias of a convolution."""
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
    return [
        numpy_helper.from_array(value.detach().float().cpu().contiguous().numpy(), f"{name}.{part}")
        for part, value in (("weight", layer.weight), ("bias", bias))
    ]


def _model(nodes: list[NodeProto], weights: list[TensorProto]) -> ModelProto:
    shape: list[str | int | None] = ["batch", 1, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "n2n_deploy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="n2n-deploy",
        producer_version=__version__,
    )
