"""Graph passes and segments: the same function as the untransformed graph, through ONNX Runtime."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from n2n_deploy.engines.onnxruntime.run_segments import METADATA, SegmentedSession
from n2n_deploy.export.graph_passes import add_before_shuffling
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.segments import split

from .conftest import MakeNetwork, noise, run


def two_branches(mode: str) -> ModelProto:
    """Two convolutions to four feature maps each, shuffled and summed; the second shuffle's mode is `mode`."""
    rng = np.random.default_rng(0)
    kernels = [numpy_helper.from_array(rng.standard_normal((4, 1, 3, 3)).astype(np.float32), f"k{i}") for i in (0, 1)]
    nodes = [helper.make_node("Conv", ["image", f"k{i}"], [f"deep{i}"], pads=[1, 1, 1, 1]) for i in (0, 1)]
    nodes += [
        helper.make_node("DepthToSpace", [f"deep{i}"], [f"wide{i}"], blocksize=2, mode=("CRD", mode)[i]) for i in (0, 1)
    ]
    nodes.append(helper.make_node("Add", ["wide0", "wide1"], ["denoised"], "sum"))
    shapes = [["n", 1, "h", "w"], ["n", 1, "h2", "w2"]]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("image", "denoised"), shapes, strict=True)
    ]
    graph = helper.make_graph(nodes, "two branches", values[:1], values[1:], kernels)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_adding_before_shuffling_gives_the_same_bits() -> None:
    model = two_branches("CRD")
    changed = add_before_shuffling(model)
    onnx.checker.check_model(changed, full_check=True)
    assert Counter(node.op_type for node in changed.graph.node)["DepthToSpace"] == 1
    np.testing.assert_array_equal(run(changed, noise(2, 1, 6, 10)), run(model, noise(2, 1, 6, 10)))


def test_different_shuffles_stay_apart() -> None:
    model = two_branches("DCR")
    assert add_before_shuffling(model).graph.node == model.graph.node


@pytest.mark.parametrize("preset", ["paper", "fast", "small"])
def test_segments_in_tiles_equal_the_whole_network(make_network: MakeNetwork, preset: str) -> None:
    model = to_onnx(make_network(preset))
    segments = split(model)
    for segment in segments:
        onnx.checker.check_model(segment, full_check=True)
    batch = noise(2, 1, 136, 200)
    expected = run(model, batch)
    for tile_bytes in (1, 2**18):
        with SegmentedSession([each.SerializeToString() for each in segments], 2, tile_bytes) as session:
            found = session.run(batch)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.std())


@pytest.mark.parametrize("preset", ["paper", "fast", "small"])
def test_segments_hold_every_node_once_and_have_narrow_halos(make_network: MakeNetwork, preset: str) -> None:
    model = to_onnx(make_network(preset))
    segments = split(model)
    assert len(segments) >= 6
    names = Counter(node.name for segment in segments for node in segment.graph.node)
    assert names == Counter(node.name for node in model.graph.node)
    for segment in segments:
        facts = json.loads({entry.key: entry.value for entry in segment.metadata_props}[METADATA])
        finest = facts["level"] - min(facts["levels"].values())
        assert facts["halo"] << finest <= 6
