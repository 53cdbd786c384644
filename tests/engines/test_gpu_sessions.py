"""Choosing among engines for GPUs: order, reasons, shipped engines; and the libraries' interfaces that sessions use."""

import sys

import pytest

from n2n_deploy.bundle.archive import Bundle, extend_bundle
from n2n_deploy.bundle.engine_facts import EngineFacts
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.device.cuda import import_cupy
from n2n_deploy.device.gpus import GPU, Driver, driver
from n2n_deploy.engines.gpu_sessions import NODE_PROFILES, find_gpu, open_tensorrt, shipped
from n2n_deploy.engines.select import ENGINES, candidates, choose_session
from n2n_deploy.engines.tensorrt.profiles import plan_profiles
from n2n_deploy.export.tensorrt_graph import LARGEST_TENSOR, largest_tensor
from n2n_deploy.train.model import PRESETS

ADA = GPU(0, "NVIDIA RTX 6000 Ada", "8.9", 48 << 30)


def without_gpu() -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU")


def test_engines_are_tried_from_the_fastest_to_the_cpu() -> None:
    names = [engine.name for engine in candidates("auto")]
    assert names == ["tensorrt", "rtx", "tensorrt-lean", "onnxruntime-cuda", "openvino", "onnxruntime-cpu"]
    assert [engine.name for engine in candidates("cuda:1")] == names[:-2]
    assert [engine.name for engine in candidates("cpu")] == names[-2:]
    assert [engine.name for engine in candidates("auto", "rtx")] == ["rtx"]


@pytest.mark.parametrize(("device", "engine"), [("cpu", "tensorrt"), ("gpu", "onnxruntime-cpu"), ("auto", "magic")])
def test_an_engine_that_cannot_run_there_is_a_usage_error(device: str, engine: str) -> None:
    with pytest.raises(UsageError, match=engine):
        candidates(device, engine)


def test_without_a_driver_the_cpu_runs_only_where_that_is_allowed(bundle: Bundle) -> None:
    without_gpu()
    choice = choose_session(bundle, "auto", threads=1)
    with choice.session:
        assert not choice.session.device.is_gpu
    assert "driver" in choice.rejected_engines["GPU"]
    for engine in (known.name for known in ENGINES if known.gpu):
        with pytest.raises(HostError, match="driver"):
            choose_session(bundle, "auto", engine=engine)
    with pytest.raises(HostError, match="fp32, not fp16"):
        choose_session(bundle, "cpu", precision="fp16")


def test_a_gpu_that_is_not_there_is_named() -> None:
    without_gpu()
    with pytest.raises(HostError, match="driver"):
        find_gpu(0)


def test_a_gpu_that_rtx_has_no_kernels_for_is_passed_over(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = Driver("580.65.06", "13.0", (GPU(0, "NVIDIA H200", "9.0", 141 << 30),), None)
    monkeypatch.setattr("n2n_deploy.engines.gpu_sessions.driver", lambda: hopper)
    with pytest.raises(HostError, match=r"7\.5, .* 12\.1, and NVIDIA H200 has 9\.0"):
        open_tensorrt(bundle, "rtx", 0, None)
    choice = choose_session(bundle, "auto", threads=1)
    with choice.session:
        assert not choice.session.device.is_gpu
    assert "NVIDIA H200" in choice.rejected_engines["rtx"]


def test_cupy_without_a_gpu_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(HostError, match=r"n2n-deploy\[gpu\]"):
        import_cupy()


def facts(**changes: object) -> EngineFacts:
    given: dict[str, object] = {
        "flavour": "rtx",
        "precision": "fp32",
        "tensorrt_version": "1.7.1.116",
        "compute_capabilities": ("8.9", "12.0"),
        "hardware": "listed",
        "profiles": plan_profiles([(512, 512)]),
    }
    return EngineFacts.model_validate(given | changes)


def test_shipped_engines_that_fit_come_first_by_precision(bundle: Bundle) -> None:
    engines = [
        facts(),
        facts(precision="bf16"),
        facts(precision="fp16"),
        facts(precision="fp16", compute_capabilities=("8.6",)),
        facts(precision="fp16", tensorrt_version="1.6.1.120"),
    ]
    known = {engine.key: engine.model_dump(mode="json") for engine in engines}
    members = {bundle.manifest.engine_member(key): b"engine" for key in known}
    extended = extend_bundle(bundle, members, facts={"engines": known})
    fitting, others = shipped(extended, "rtx", "1.7.1.116", ADA)
    assert [engine.precision for engine in fitting] == ["fp16", "bf16", "fp32"]
    assert "not 8.9" in others[engines[3].key]
    assert "built by rtx 1.6.1.120" in others[engines[4].key]
    assert shipped(extended, "tensorrt", "10.13.3.9", ADA)[0] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_node_builds_for_itself_is_within_the_limits(graph, preset: str) -> None:  # type: ignore[no-untyped-def]
    assert largest_tensor(graph(preset, "fp32"), NODE_PROFILES[0].maximum)[1] < LARGEST_TENSOR


def test_the_library_has_every_call_that_sessions_make() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra rtx)")
    used = {
        trt.Runtime: "deserialize_cuda_engine engine_host_code_allowed",
        trt.ICudaEngine: "create_execution_context create_runtime_config num_optimization_profiles get_tensor_name "
        "get_tensor_mode get_tensor_profile_shape device_memory_size_v2 create_engine_inspector",
        trt.IExecutionContext: "set_optimization_profile_async set_input_shape set_device_memory set_tensor_address "
        "update_device_memory_size_for_shapes execute_async_v3",
        trt.IRuntimeConfig: "set_execution_context_allocation_strategy cuda_graph_strategy create_runtime_cache "
        "set_runtime_cache get_runtime_cache dynamic_shapes_kernel_specialization_strategy",
        trt.IRuntimeCache: "serialize deserialize",
        trt.EngineInspector: "get_engine_information",
        trt.ExecutionContextAllocationStrategy: "USER_MANAGED",
        trt.CudaGraphStrategy: "WHOLE_GRAPH_CAPTURE",
        trt.DynamicShapesKernelSpecializationStrategy: "EAGER",
        trt.TensorIOMode: "INPUT",
        trt.HardwareCompatibilityLevel: "AMPERE_PLUS",
        trt.IBuilderConfig: "hardware_compatibility_level create_timing_cache set_timing_cache",
    }
    missing = [
        f"{kind.__name__}.{name}" for kind, names in used.items() for name in names.split() if not hasattr(kind, name)
    ]
    assert missing == []
