"""The calls that this package makes exist in the installed library."""

import pytest


def test_library_has_every_call_that_sessions_make() -> None:
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
