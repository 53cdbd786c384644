"""Building engines with TensorRT for RTX, which needs no GPU, and reading back what they are."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from torch import nn

from n2n_deploy.bundle.engine_facts import EngineFacts, header_capabilities, header_version
from n2n_deploy.bundle.manifest import Precision
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.device.gpus import driver
from n2n_deploy.engines.tensorrt.build import (
    BuildOptions,
    _configure,
    _read_engine,
    build_engine,
)
from n2n_deploy.engines.tensorrt.library import import_tensorrt, make_logger
from n2n_deploy.engines.tensorrt.profiles import make_profiles
from n2n_deploy.train.model import PRESETS, build

Graphs = Callable[[str, Precision], onnx.ModelProto]

PROFILES = make_profiles([(512, 640)])
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


@pytest.fixture(scope="module", autouse=True)
def library() -> str:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra rtx)")
    return version("tensorrt_rtx")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_in_every_precision(graph: Graphs, library: str, preset: str, precision: Precision) -> None:
    options = BuildOptions("rtx", precision, PROFILES, ("8.6", "8.9", "12.0"))
    model = graph(preset, precision)
    engine, facts = build_engine(model.SerializeToString(), options)
    assert (facts.library, facts.precision, facts.tensorrt_version) == ("rtx", precision, library)
    assert facts.compute_capabilities == ("8.6", "8.9", "12.0")
    assert {"tensorrt_version", "compute_capabilities"} <= set(facts.read_back)
    assert facts.profiles == PROFILES
    kind = {"fp32": "float", "fp16": "half", "bf16": "bf16"}[precision]
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert convolutions == sum(isinstance(layer, nn.Conv2d) for layer in build(preset).modules())
    assert facts.layers[kind] > convolutions
    assert sum(facts.layers.values()) - facts.layers[kind] == (precision != "fp32")
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert len(engine) > weights


@pytest.mark.parametrize("capabilities", [("7.5",), ("8.0", "12.1"), ("8.9",)])
def test_header_holds_the_compute_capabilities(graph: Graphs, capabilities: tuple[str, ...]) -> None:
    options = BuildOptions("rtx", "fp16", PROFILES, capabilities)
    engine, _ = build_engine(graph("small", "fp16").SerializeToString(), options)
    assert header_capabilities(engine) == capabilities
    assert header_version(engine) == import_tensorrt("rtx").__version__
    assert header_version(engine[1:]) is None
    assert header_capabilities(b"ftrt" + engine[4:]) is None


def test_facts_not_read_back_are_listed_with_the_reason(graph: Graphs) -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU: the engine itself can be asked")
    options = BuildOptions("rtx", "fp32", PROFILES, ("8.6",))
    _, facts = build_engine(graph("small", "fp32").SerializeToString(), options)
    assert set(facts.not_read_back) == {
        "hardware",
        "version_compatible",
        "profiles",
        "layers",
        "activation_bytes",
    }
    assert all("driver" in reason for reason in facts.not_read_back.values())
    assert EngineFacts.model_validate_json(facts.model_dump_json()) == facts


@pytest.mark.parametrize(
    ("precision", "capabilities", "says"),
    [
        ("fp16", ("9.0",), "not 9.0.*--target tensorrt"),
        ("fp16", ("8.9", "banana"), "not banana"),
        ("bf16", ("7.5",), "sm75.*b16"),
    ],
)
def test_unsupported_targets_are_refused(
    graph: Graphs, precision: Precision, capabilities: tuple[str, ...], says: str
) -> None:
    options = BuildOptions("rtx", precision, PROFILES, capabilities)
    with pytest.raises(UsageError, match=says):
        build_engine(graph("small", precision).SerializeToString(), options)


def test_invalid_graph_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="refuses the graph") as caught:
        build_engine(b"no graph at all", BuildOptions("rtx", "fp32", PROFILES, ("8.6",)))
    assert "\n" not in str(caught.value)


def test_missing_library_names_the_extra_that_installs_it(graph: Graphs, tmp_path: Path) -> None:
    try:
        version("tensorrt")
        pytest.skip("TensorRT is installed here")
    except PackageNotFoundError:
        options = BuildOptions("tensorrt", "fp32", PROFILES, timing_cache=tmp_path / "timings")
        with pytest.raises(HostError, match=r"pip install 'n2n-deploy\[tensorrt\]'"):
            build_engine(graph("small", "fp32").SerializeToString(), options)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("portable", [False, True])
def test_builder_flags_follow_the_options(precision: Precision, portable: bool) -> None:
    """On the library's own configuration: TensorRT for RTX has the classes of TensorRT, which needs a GPU."""
    trt = import_tensorrt("rtx")
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    network.add_input("image", trt.float32, (-1, 1, -1, -1))
    profiles = make_profiles([(512, 640), (64, 1024)])
    options = BuildOptions("tensorrt", precision, profiles, portable=portable, optimization_level=2)
    config = _configure(trt, builder, network, options)
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE) == portable
    assert config.get_flag(trt.BuilderFlag.TF32) == (precision != "fp32")
    assert config.builder_optimization_level == 2
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config.num_optimization_profiles == 2


def inspected(information: str) -> Any:
    """An engine on a GPU, with what its inspector says."""
    shapes = [(1, 1, 32, 32), (1, 1, 512, 640), (1, 1, 512, 640)]
    return SimpleNamespace(
        num_optimization_profiles=1,
        device_memory_size_v2=12345,
        hardware_compatibility_level=SimpleNamespace(name="AMPERE_PLUS"),
        get_tensor_name=lambda _: "image",
        get_tensor_profile_shape=lambda _name, _index: shapes,
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda _: information),
    )


@pytest.mark.parametrize(
    ("information", "layers"),
    [
        ('{"Layers": [{"Outputs": [{"Format/Datatype": "Half"}, {"Name": "b"}]}, {}], "Bindings": []}', {"Half": 1}),
        ('{"Layers": ["conv_1", "conv_2"]}', None),
        ('{"Layers": [{"Metadata": "{"kernel": 3}"}]}', None),
        ("", None),
    ],
)
def test_facts_are_read_from_an_engine_as_far_as_it_states_them(
    information: str, layers: dict[str, int] | None
) -> None:
    """The second is what TensorRT writes for engines built without details, the third what some releases write."""
    found = _read_engine(import_tensorrt("rtx"), inspected(information), "tensorrt")
    assert found.get("layers") == layers
    assert found["profiles"] == PROFILES
    assert (found["hardware"], found["activation_bytes"]) == ("ampere_plus", 12345)
