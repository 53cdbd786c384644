"""The ONNX graphs: ONNX Runtime gives the same outputs as PyTorch for every preset, on any shape."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper, shape_inference
from torch import nn

from n2n_deploy.core.errors import BundleError
from n2n_deploy.export.graph_passes import to_half
from n2n_deploy.export.liveness import peak_bytes_per_pixel
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.train.layers import SameConv2d
from n2n_deploy.train.model import add_weight_norm, fold_weight_norm

from .conftest import MakeNetwork, noise, run


def torch_output(network: nn.Module, batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("preset", ["paper", "fast", "small"])
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 2e-5), ("fp16", 2e-2)])
def test_every_preset_and_shape_gives_what_pytorch_gives(
    make_network: MakeNetwork, preset: str, precision: str, largest: float
) -> None:
    network = make_network(preset)
    model = to_onnx(network, precision)
    for shape in ((1, 1, 32, 32), (1, 1, 24, 56), (2, 1, 40, 8)):
        batch = noise(*shape)
        expected = torch_output(network, batch)
        assert expected.std() > 0.02
        found = run(model, batch)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=largest * expected.std())


def test_graph_has_plain_operators_and_dynamic_shapes(make_network: MakeNetwork) -> None:
    model = to_onnx(make_network("paper"), metadata={"preset": "paper"})
    onnx.checker.check_model(model, full_check=True)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Conv"] == 96  # the paper's number of layers
    assert set(counts) == {"Conv", "Relu", "Add", "MaxPool", "Concat", "DepthToSpace"}
    assert model.opset_import[0].version >= 17
    for value, name in ((model.graph.input[0], "image"), (model.graph.output[0], "denoised")):
        dimensions = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert value.name == name
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert dimensions == ["batch", 1, "height", "width"]
    assert {entry.key: entry.value for entry in model.metadata_props}["preset"] == "paper"


@pytest.mark.parametrize(("preset", "outer"), [("paper", {1}), ("small", {1, 4})])
def test_all_inner_widths_are_multiples_of_8(make_network: MakeNetwork, preset: str, outer: set[int]) -> None:
    """But for the image, and the four pixels that the last layer makes of one."""
    weights = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in to_onnx(make_network(preset)).graph.initializer
        if tensor.name.endswith("weight")
    }
    widths = {size for name, array in weights.items() for size in array.shape[:2]}
    assert {width for width in widths if width % 8} == outer


def test_half_precision_weights_are_half_the_size(make_network: MakeNetwork) -> None:
    fine, coarse = (to_onnx(make_network("small"), precision) for precision in ("fp32", "fp16"))
    assert {tensor.data_type for tensor in coarse.graph.initializer} == {TensorProto.FLOAT16}
    assert len(coarse.SerializeToString()) < 0.6 * len(fine.SerializeToString())


def test_float16_refuses_weights_that_it_cannot_hold(make_network: MakeNetwork) -> None:
    network = make_network("small")
    with torch.no_grad():
        network.first.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(BundleError, match=r"first\.weight reaches 1e\+05"):
        to_half(to_onnx(network))


def test_folded_weight_normalisation_is_exported_as_it_was_trained(make_network: MakeNetwork) -> None:
    network = make_network("small")
    add_weight_norm(network)
    batch = noise(1, 1, 32, 40)
    expected = torch_output(network, batch)
    fold_weight_norm(network)
    np.testing.assert_allclose(run(to_onnx(network), batch), expected, rtol=0, atol=2e-5 * expected.std())


def test_even_kernel_pads_exactly_as_in_pytorch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(SameConv2d(1, 3, 4), nn.ReLU(), SameConv2d(3, 1, 4))
    batch = noise(1, 1, 8, 16)
    np.testing.assert_allclose(run(to_onnx(network), batch), torch_output(network, batch), rtol=0, atol=1e-5)


def test_unknown_layers_are_refused_by_name() -> None:
    with pytest.raises(BundleError, match="does not support"):
        to_onnx(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid()))
    with pytest.raises(BundleError, match="does not support"):
        to_onnx(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")))


def test_live_memory_of_a_chain_equals_a_count_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 1, 1))
    # 8 and 16 maps of float32 at once, then 16 and 1.
    assert peak_bytes_per_pixel(to_onnx(network)) == (8 + 16) * 4
    skip = nn.Sequential(nn.Conv2d(1, 32, 1), nn.PixelShuffle(2), nn.Conv2d(8, 1, 1))
    # 32 maps before and, the same bytes, 8 maps of four times the pixels after the shuffle.
    assert peak_bytes_per_pixel(to_onnx(skip)) == 2 * 32 * 4


def test_live_memory_is_never_below_the_largest_layer(make_network: MakeNetwork) -> None:
    model = to_onnx(make_network("paper"))
    concrete = ModelProto()
    concrete.CopyFrom(model)
    for dim, size in zip(concrete.graph.input[0].type.tensor_type.shape.dim, (1, 1, 8, 8), strict=True):
        dim.dim_value = size
    values = shape_inference.infer_shapes(concrete, strict_mode=True, data_prop=True).graph.value_info
    largest = max(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim]) for value in values)
    assert peak_bytes_per_pixel(model) >= 4 * largest / 64
