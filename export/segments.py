"""`split`: cut a network into a chain of small models that each run in cache-sized tiles with narrow halos.

On a CPU the network is bound by memory: a wide-activation convolution has 128 to 512 feature maps of every pixel, far
more than fit the caches. Tiles of the whole network would need its whole receptive field as their halo; tiles of a
segment need a few pixels. So the image passes one segment after the other, each tile by tile, and only the narrow
feature maps between segments are as large as the image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

from n2n_deploy.engines.onnxruntime.run_segments import METADATA, SegmentFacts

_HALO = 6
_FLOAT = 4


@dataclass(frozen=True)
class _Tensor:
    """Feature maps, and how often the image has been halved where they live."""

    channels: int
    level: int


def split(model: ModelProto) -> list[ModelProto]:
    """Cut a model into segments that, run one after the other, compute the same function.

    A segment reads the image or tensors that earlier segments computed, by name. Its metadata hold its `SegmentFacts`
    under `METADATA`.

    Args:
        model: from `to_onnx`, float32.
    """
    kernels = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = _depth_first(model)
    tensors = _tensors(model, nodes, kernels)
    return [_segment(model, part, tensors, kernels) for part in _parts(model, nodes, tensors, kernels)]


def _depth_first(model: ModelProto) -> list[NodeProto]:
    """Nodes in an order that keeps few tensors alive: the longer branch first, and pooling as early as possible."""
    makers = {node.output[0]: node for node in model.graph.node}
    depth: dict[str, int] = {}
    for node in model.graph.node:
        depth[node.output[0]] = 1 + max(depth.get(name, 0) for name in node.input)
    pools: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MaxPool":
            pools.setdefault(node.input[0], []).append(node)
    order: list[NodeProto] = []
    done: set[str] = set()

    def visit(name: str) -> None:
        if name in done or name not in makers:
            return
        done.add(name)
        for before in sorted(makers[name].input, key=lambda source: -depth.get(source, 0)):
            visit(before)
        order.append(makers[name])
        for pool in pools.get(name, []):
            visit(pool.output[0])

    visit(model.graph.output[0].name)
    return order


def _tensors(model: ModelProto, nodes: Sequence[NodeProto], kernels: dict[str, tuple[int, ...]]) -> dict[str, _Tensor]:
    """Channels and level of every tensor."""
    tensors = {model.graph.input[0].name: _Tensor(1, 0)}
    for node in nodes:
        first = tensors[node.input[0]]
        channels, level = first.channels, first.level
        stride, block = _stride(node), _attribute(node, "blocksize", 1)
        if node.op_type == "Conv":
            channels = kernels[node.input[1]][0]
        elif node.op_type == "Concat":
            channels = sum(tensors[name].channels for name in node.input)
        tensors[node.output[0]] = _Tensor(channels // block**2, level + stride.bit_length() - block.bit_length())
    return tensors


def _parts(
    model: ModelProto, nodes: list[NodeProto], tensors: dict[str, _Tensor], kernels: dict[str, tuple[int, ...]]
) -> Iterable[list[NodeProto]]:
    """Runs of nodes, each as long as its halo stays within `_HALO` pixels of its finest tensor.

    A cut follows a sum or an upsampling where only tensors as narrow as the first of their level are alive. After an
    upsampling there is always a cut, unless no halo follows: a halo costs the most there.
    """
    width: dict[int, int] = {}
    for node in nodes:
        made = tensors[node.output[0]]
        width.setdefault(made.level, made.channels)
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    last_use[model.graph.output[0].name] = len(nodes)

    def crossing(start: int, stop: int) -> list[str]:
        made = [node.output[0] for node in nodes[start:stop]]
        return [name for name in made if last_use[name] >= stop]

    start = cut = 0
    for stop in range(1, len(nodes) + 1):
        new = crossing(cut, stop)
        narrow = all(tensors[name].channels <= width[tensors[name].level] for name in new) and len(new) <= 2
        if stop < len(nodes) and not (narrow and nodes[stop - 1].op_type in ("Add", "DepthToSpace")):
            continue
        shuffled = nodes[cut - 1].op_type == "DepthToSpace" and _halo(nodes[cut:stop], new, tensors, kernels) > 0
        if cut > start and (shuffled or _reach(nodes[start:stop], crossing(start, stop), tensors, kernels) > _HALO):
            yield nodes[start:cut]
            start = cut
        cut = stop
    yield nodes[start:]


def _reach(
    nodes: list[NodeProto], outputs: list[str], tensors: dict[str, _Tensor], kernels: dict[str, tuple[int, ...]]
) -> int:
    """The halo in pixels of the finest tensor."""
    levels = [tensors[name].level for name in _names(nodes, tensors)]
    return int(_halo(nodes, outputs, tensors, kernels)) << (max(levels) - min(levels))


def _halo(
    nodes: list[NodeProto], outputs: list[str], tensors: dict[str, _Tensor], kernels: dict[str, tuple[int, ...]]
) -> int:
    """Cells needed of any tensor beyond one cell of the outputs, traced back node by node."""
    coarsest = max(tensors[name].level for name in _names(nodes, tensors))
    needed = {name: (0, _pixels(coarsest, tensors[name])) for name in outputs}
    for node in reversed(nodes):
        first, last = needed[node.output[0]]
        if node.op_type == "Conv":
            size, stride, before = kernels[node.input[1]][2], _stride(node), _attribute(node, "pads", [0])[0]
            first, last = first * stride - before, (last - 1) * stride - before + size
        elif node.op_type == "MaxPool":
            first, last = first * _stride(node), last * _stride(node)
        elif node.op_type == "DepthToSpace":
            block = _attribute(node, "blocksize", 1)
            first, last = first // block, -(-last // block)
        for name in node.input:
            if name in tensors:
                low, high = needed.get(name, (first, last))
                needed[name] = min(low, first), max(high, last)
    cell = {name: _pixels(coarsest, tensors[name]) for name in needed}
    return max(
        max(-(first // cell[name]), -((cell[name] - last) // cell[name])) for name, (first, last) in needed.items()
    )


def _segment(
    model: ModelProto, nodes: list[NodeProto], tensors: dict[str, _Tensor], kernels: dict[str, tuple[int, ...]]
) -> ModelProto:
    """The model of one run of nodes, with its facts."""
    inside = {node.output[0] for node in nodes}
    inputs = [name for name in _names(nodes, tensors) if name not in inside]
    after = {name for node in model.graph.node if node.output[0] not in inside for name in node.input}
    after |= {value.name for value in model.graph.output}
    outputs = [node.output[0] for node in nodes if node.output[0] in after]
    level = max(tensors[name].level for name in _names(nodes, tensors))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        [_value(name, tensors[name]) for name in inputs],
        [_value(name, tensors[name]) for name in outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    part = helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
    facts = SegmentFacts(
        level=level,
        levels={name: tensors[name].level for name in (*inputs, *outputs)},
        halo=_halo(nodes, outputs, tensors, kernels),
        bytes_per_cell=max(
            sum(
                _FLOAT * tensors[name].channels * _pixels(level, tensors[name]) ** 2
                for name in (*node.input, *node.output)
                if name in tensors
            )
            for node in nodes
        ),
    )
    helper.set_model_props(part, {METADATA: facts.model_dump_json()})
    return part


def _names(nodes: Iterable[NodeProto], tensors: dict[str, _Tensor]) -> list[str]:
    """The tensors (not weights) that the nodes read or make, each once, in order."""
    return list(dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name in tensors))


def _pixels(level: int, tensor: _Tensor) -> int:
    """Pixels of a tensor along one side of a cell at `level`."""
    return int(2 ** (level - tensor.level))


def _value(name: str, tensor: _Tensor) -> Any:
    shape: list[str | int | None] = ["batch", tensor.channels, f"height_{tensor.level}", f"width_{tensor.level}"]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _stride(node: NodeProto) -> int:
    return int(_attribute(node, "strides", [1])[0])


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or `default` if the node does not state it."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
