"""Peak memory of a graph: the tensors alive at the same time, per pixel of the input."""

from onnx import ModelProto, TensorProto, shape_inference

_SIDE = 64


def peak_bytes_per_pixel(model: ModelProto) -> float:
    """Return the bytes of all tensors alive at the most demanding node, per input pixel, for a batch of one.

    A tensor is alive from the node that makes it to the last one that reads it. A node's inputs and output exist
    together, except for Relu, which every runtime fuses or runs in place. The image counts too, weights do not. Every
    tensor's size is proportional to the image's, so the result holds for all shapes.

    Args:
        model: from `to_onnx`, with its nodes in the order in which they run.
    """
    sizes = _bytes(model)
    last_use = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    last_use |= {value.name: len(model.graph.node) for value in model.graph.output}
    alive = {value.name for value in model.graph.input}
    peak = 0
    for index, node in enumerate(model.graph.node):
        alive.add(node.output[0])
        counted = alive - {node.input[0]} if node.op_type == "Relu" else alive
        peak = max(peak, sum(sizes[name] for name in counted))
        alive -= {name for name in alive if last_use.get(name, index) <= index}
    return peak / _SIDE**2


def _bytes(model: ModelProto) -> dict[str, int]:
    """Bytes of every tensor for an input of `_SIDE`²."""
    concrete = ModelProto()
    concrete.CopyFrom(model)
    for value in concrete.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, (1, 1, _SIDE, _SIDE), strict=True):
            dimension.dim_value = size
    graph = shape_inference.infer_shapes(concrete, strict_mode=True, data_prop=True).graph
    sizes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        size = 2 if kind.elem_type == TensorProto.FLOAT16 else 4
        for dimension in kind.shape.dim:
            size *= dimension.dim_value or 1
        sizes[value.name] = size
    return sizes
