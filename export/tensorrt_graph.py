"""ONNX graphs for TensorRT: the bfloat16 variant, and limits that are checked before TensorRT is called."""

import copy
import math
from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, shape_inference

from n2n_deploy.bundle.engine_facts import Profile, TensorRTLibrary
from n2n_deploy.core.errors import UsageError
from n2n_deploy.export.graph_passes import in_type
from n2n_deploy.imaging.fourier import MULTIPLE

OPERATORS = frozenset({"Add", "Cast", "Concat", "Conv", "DepthToSpace", "MaxPool", "Relu"})
"""All operators that the export writes; TensorRT converts each one to one."""

OPSETS = range(9, 23)
"""ONNX operator sets that the parsers of TensorRT 10.12 and TensorRT for RTX 1.0 and later read."""

LARGEST_TENSOR = 2**31 - 1
"""Elements; TensorRT indexes a tensor with 32 bits."""

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_BFLOAT16_OPSET, _BFLOAT16_IR = 22, 10


def to_bfloat16(model: ModelProto) -> ModelProto:
    """Compute in bfloat16 between the input and the output, which stay float32.

    bfloat16 has float32's range and 8 bits of precision. The operator set is raised to 22, the first in which
    ONNX allows it for convolutions.

    Args:
        model: the fp32 model of a bundle.

    Returns:
        A model of the same interface.
    """
    model = in_type(model, TensorProto.BFLOAT16, ml_dtypes.bfloat16)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", _BFLOAT16_OPSET))
    model.ir_version = _BFLOAT16_IR
    onnx.checker.check_model(model, full_check=True)
    return model


def check_limits(model: ModelProto, profiles: Iterable[Profile], library: TensorRTLibrary) -> None:
    """Refuse graphs and shapes that TensorRT would refuse later or compute wrongly, and advise what to do.

    Args:
        model: the graph to be built.
        profiles: the shapes it is to be built for.
        library: that is to build it.

    Raises:
        UsageError: an operator, operator set, element type, interface or shape that cannot be built.
    """
    name = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}[library]
    if problem := next(_problems(model, profiles), None):
        raise UsageError(f"{name} cannot build this graph: {problem}")


def _problems(model: ModelProto, profiles: Iterable[Profile]) -> Iterator[str]:
    """Yield one sentence per problem."""
    graph = model.graph
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"operators of the domain {opset.domain}; export without a runtime's own optimisations"
        elif opset.version not in OPSETS:
            yield f"operator set {opset.version}, not {OPSETS[0]} to {OPSETS[-1]}; export with this package"
    if unknown := sorted({node.op_type for node in graph.node} - OPERATORS):
        yield f"operator {', '.join(unknown)}; the export writes only {', '.join(sorted(OPERATORS))}"
    for tensor in graph.initializer:
        if tensor.external_data:
            yield f"the weight {tensor.name} lies in another file; save the model with its weights inside"
        elif tensor.data_type not in _FLOATS:
            kind = TensorProto.DataType.Name(tensor.data_type)
            yield f"the weight {tensor.name} is {kind}; export in fp32, fp16 or bf16"
    yield from _interface_problems(model)
    for profile in profiles:
        for shape in (profile.minimum, profile.optimum, profile.maximum):
            if shape[1] != 1 or shape[2] % MULTIPLE or shape[3] % MULTIPLE:
                yield f"a profile of {shape}; it must be (n, 1, height, width) in multiples of {MULTIPLE}"
        name, elements = largest_tensor(model, profile.maximum)
        if elements > LARGEST_TENSOR:
            pixels = math.prod(profile.maximum) * LARGEST_TENSOR / elements
            side = MULTIPLE * int(math.sqrt(pixels) / MULTIPLE)
            yield (
                f"at {profile.maximum} its tensor {name} has {elements} elements, more than {LARGEST_TENSOR}; "
                f"build for exact tiles instead: --tile {side}x{side} or smaller, or a smaller --batch"
            )


def _interface_problems(model: ModelProto) -> Iterator[str]:
    """Yield one sentence per problem of the inputs and outputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        yield f"{len(inputs)} inputs and {len(model.graph.output)} outputs, not one each; export it again"
        return
    for value in (*inputs, *model.graph.output):
        kind = value.type.tensor_type
        if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
            yield f"{value.name} is not (n, 1, h, w) float32; export it again"
        elif value is inputs[0] and any(kind.shape.dim[axis].dim_value for axis in (0, 2, 3)):
            yield f"{value.name} has a fixed size; export with free batch, height and width"


def largest_tensor(model: ModelProto, shape: tuple[int, int, int, int]) -> tuple[str, int]:
    """Return name and number of elements of the largest tensor in the graph for an input of `shape`.

    Raises:
        UsageError: the network does not accept the shape.
    """
    concrete = copy.deepcopy(model)
    for dimension, size in zip(concrete.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    for dimension in concrete.graph.output[0].type.tensor_type.shape.dim:
        dimension.Clear()
    try:
        graph = shape_inference.infer_shapes(concrete, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise UsageError(f"the network does not accept {shape}: {error}") from error
    sizes = {
        value.name: int(np.prod([d.dim_value for d in value.type.tensor_type.shape.dim], dtype=np.int64))
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    name = max(sizes, key=lambda tensor: sizes[tensor])
    return name, sizes[name]
