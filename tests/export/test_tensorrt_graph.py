"""The bfloat16 graph, and the limits of TensorRT that are met with advice before it is called."""

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from n2n_deploy.core.errors import UsageError
from n2n_deploy.engines.tensorrt.profiles import make_profiles
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.tensorrt_graph import check_limits, largest_tensor, to_bfloat16
from n2n_deploy.train.model import build
from n2n_deploy.train.wide import WideNetwork

PROFILES = make_profiles([(512, 512)])


@pytest.fixture(scope="module")
def model() -> ModelProto:
    torch.manual_seed(0)
    return to_onnx(WideNetwork(16, 3))


@pytest.fixture
def copy(model: ModelProto) -> ModelProto:
    return onnx.load_from_string(model.SerializeToString())


def test_bfloat16_weights_are_rounded_as_pytorch_rounds(model: ModelProto) -> None:
    lowered = to_bfloat16(model)
    assert len(lowered.graph.initializer) == len(model.graph.initializer)
    for fine, coarse in zip(model.graph.initializer, lowered.graph.initializer, strict=True):
        expected = torch.from_numpy(numpy_helper.to_array(fine).copy()).bfloat16().float().numpy()
        assert coarse.data_type == TensorProto.BFLOAT16
        assert np.array_equal(numpy_helper.to_array(coarse).astype(np.float32), expected)


def test_bfloat16_graph_has_the_same_layers_between_two_casts(model: ModelProto) -> None:
    lowered = to_bfloat16(model)
    first, *layers, last = lowered.graph.node
    assert [node.op_type for node in layers] == [node.op_type for node in model.graph.node]
    assert (first.op_type, first.input[0], last.op_type, last.output[0]) == ("Cast", "image", "Cast", "denoised")
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(lowered, strict_mode=True).graph.value_info
    }
    assert {types[name] for node in layers for name in node.output} == {TensorProto.BFLOAT16}
    assert lowered.graph.input == model.graph.input
    assert lowered.graph.output == model.graph.output


def test_exported_graph_is_within_the_limits(model: ModelProto) -> None:
    for graph in (model, to_onnx(build("small"), "fp16"), to_bfloat16(model)):
        check_limits(graph, PROFILES, "tensorrt")


def test_largest_tensor_is_counted(model: ModelProto) -> None:
    # The first level's expansion: 4 × 16 feature maps at full size.
    assert largest_tensor(model, (1, 1, 512, 256)) == ("down.0.wide.0.expand", 64 * 512 * 256)


def test_tensors_beyond_32_bits_are_refused_and_tiles_advised(model: ModelProto) -> None:
    check_limits(model, make_profiles([(5792, 5792)]), "rtx")
    with pytest.raises(UsageError, match="--tile 5792x5792"):
        check_limits(model, make_profiles([(5800, 5792)]), "rtx")
    with pytest.raises(UsageError, match="a smaller --batch"):
        check_limits(model, make_profiles([(2048, 2048)], batch=16), "rtx")


def test_other_graphs_are_refused_with_advice(copy: ModelProto) -> None:
    def refuses(says: str) -> None:
        with pytest.raises(UsageError, match=says):
            check_limits(copy, PROFILES, "tensorrt")

    copy.graph.node[1].op_type = "Einsum"
    refuses("operator Einsum")
    copy.opset_import[0].version = 23
    refuses("operator set 23, not 9 to 22")
    copy.opset_import[0].domain = "com.microsoft"
    refuses("without a runtime's own optimisations")


def test_other_interfaces_are_refused(copy: ModelProto) -> None:
    fixed = onnx.load_from_string(copy.SerializeToString())
    fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 512
    with pytest.raises(UsageError, match="fixed size"):
        check_limits(fixed, PROFILES, "rtx")
    copy.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, 8, 8]))
    with pytest.raises(UsageError, match="2 inputs and 1 outputs"):
        check_limits(copy, PROFILES, "rtx")


def test_other_weights_are_refused(copy: ModelProto) -> None:
    weight = copy.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))
    with pytest.raises(UsageError, match="is DOUBLE; export in fp32"):
        check_limits(copy, PROFILES, "rtx")


def test_shapes_must_be_multiples_of_the_stride(model: ModelProto) -> None:
    with pytest.raises(UsageError, match="multiples of 8"):
        check_limits(model, make_profiles([(512, 500)]), "rtx")
