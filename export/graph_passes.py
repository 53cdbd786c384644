"""Graph passes: each returns an ONNX model that computes the same function faster, or in another float type."""

import copy
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from n2n_deploy.core.errors import BundleError

_LARGEST_HALF = float(np.finfo(np.float16).max)


def pad_channels(model: ModelProto, multiple: int = 8) -> ModelProto:
    """Pad the width between two consecutive convolutions with zero weights to a multiple.

    The added feature maps are zero and have zero weights in the next convolution, so the function stays the same.
    Padded widths fill SIMD registers and tensor cores (25 → 32, 102 → 104).
    """
    model = copy.deepcopy(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    makers = {node.output[0]: node for node in model.graph.node if node.op_type == "Conv"}
    for node in model.graph.node:
        before = makers.get(node.input[0])
        if node.op_type != "Conv" or before is None or uses[node.input[0]] != 1:
            continue
        extra = -weights[node.input[1]].shape[1] % multiple
        _, kernel, bias = before.input
        weights[kernel] = _zeros_after(weights[kernel], 0, extra)
        weights[bias] = _zeros_after(weights[bias], 0, extra)
        weights[node.input[1]] = _zeros_after(weights[node.input[1]], 1, extra)
    return _with_weights(model, weights)


def add_before_shuffling(model: ModelProto) -> ModelProto:
    """Where the graph shuffles two branches from depth to space and adds them, add them first and shuffle once.

    Shuffling only moves values, so the outputs stay the same to the bit.
    """
    model = copy.deepcopy(model)
    uses = Counter(name for node in model.graph.node for name in node.input)
    shuffles = {node.output[0]: node for node in model.graph.node if node.op_type == "DepthToSpace"}
    dropped: set[str] = set()
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        branches = [shuffles.get(name) for name in node.input]
        if (
            node.op_type == "Add"
            and all(branch is not None and uses[branch.output[0]] == 1 for branch in branches)
            and len({str(branch.attribute) for branch in branches if branch is not None}) == 1
        ):
            first, second = (branch for branch in branches if branch is not None)
            total, result = f"{node.name}.deep", node.output[0]
            nodes.append(helper.make_node("Add", [first.input[0], second.input[0]], [total], total))
            shuffle = copy.deepcopy(first)
            shuffle.name, shuffle.input[0], shuffle.output[0] = node.name, total, result
            nodes.append(shuffle)
            dropped |= {first.output[0], second.output[0]}
        else:
            nodes.append(node)
    kept = [node for node in nodes if node.output[0] not in dropped]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def to_half(model: ModelProto) -> ModelProto:
    """Compute in float16 between the input and the output, which stay float32.

    Raises:
        BundleError: a weight is beyond the largest float16.
    """
    for tensor in model.graph.initializer:
        largest = np.abs(numpy_helper.to_array(tensor)).max(initial=0)
        if largest > _LARGEST_HALF:
            raise BundleError(f"{tensor.name} reaches {largest:.3g}, beyond the largest float16; train again")
    return in_type(model, TensorProto.FLOAT16, np.float16)


def in_type(model: ModelProto, kind: TensorProto.DataType, dtype: npt.DTypeLike) -> ModelProto:
    """Compute in another float type between the input and the output: `kind` to ONNX, `dtype` to NumPy."""
    model = copy.deepcopy(model)
    source, result = model.graph.input[0].name, model.graph.output[0].name
    rename = {source: f"{source}.low", result: f"{result}.low"}
    for node in model.graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    nodes = [_cast(source, rename[source], kind), *model.graph.node]
    nodes.append(_cast(rename[result], result, TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return _with_weights(model, {name: values.astype(dtype) for name, values in weights.items()})


def _zeros_after(values: npt.NDArray[np.float32], axis: int, count: int) -> npt.NDArray[np.float32]:
    return np.pad(values, [(0, count if axis == along else 0) for along in range(values.ndim)])


def _cast(source: str, result: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [result], f"{result}.cast", to=kind)


def _with_weights(model: ModelProto, weights: dict[str, npt.NDArray[Any]]) -> ModelProto:
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    return model
