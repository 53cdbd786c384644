"""The runtimes of TensorRT and TensorRT for RTX without a GPU, by their documented rules.

Addresses, memory and shapes are set before work is enqueued; captured work runs when the graph is launched, not before.
An "engine" is an ONNX model, which ONNX Runtime computes, so that outputs are the network's.
"""

import ctypes
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from standin_streams import STREAMS

from n2n_deploy.bundle.engine_facts import Profile
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession

BYTES_PER_PIXEL = 10


VERSIONS = {"tensorrt": "10.13.3.9", "tensorrt_rtx": "1.7.1.116"}


def tensorrt_library(profiles: tuple[Profile, ...], name: str = "tensorrt") -> ModuleType:
    """The module of this name; its engines all have these profiles."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # some look for it
    vars(module).update(
        __version__=VERSIONS[name],
        ILogger=Logger,
        Runtime=lambda logger: Runtime(logger, profiles),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )
    return module


class Logger:
    """What an application's logger is made from."""

    Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal error")


class Context:
    """An execution context."""

    def __init__(self, engine: "Engine") -> None:
        self.engine, self.profile = engine, -1
        self.shape: tuple[int, ...] = ()
        self.activations = (0, 0)
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in STREAMS
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, int, int, int]) -> bool:
        assert name == self.engine.names[0]
        self.shape = shape
        return self.engine.profiles[self.profile].takes(shape)

    def update_device_memory_size_for_shapes(self) -> int:
        return BYTES_PER_PIXEL * int(np.prod(self.shape))

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        self.activations = address, size

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        (address, size), needed = self.activations, self.update_device_memory_size_for_shapes()
        assert size >= needed
        source, target = (_array(self.addresses[name], self.shape) for name in self.engine.names)
        scratch = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)), (needed,))

        def work() -> None:
            scratch.fill(0xFF)
            target[...] = self.engine.network.run(source.copy())

        STREAMS[stream].add(work)
        return True


class Engine:
    """A network, and how many contexts were made of it."""

    def __init__(self, graph: bytes, profiles: tuple[Profile, ...]) -> None:
        self.network, self.profiles = OnnxRuntimeSession(graph, threads=1), profiles
        self.num_optimization_profiles = len(profiles)
        self.names = ("image", "denoised")
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return self.names[1 - index]  # their order is nowhere promised

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name={"image": "INPUT", "denoised": "OUTPUT"}[name])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert name == "image"
        profile = self.profiles[index]
        return [profile.minimum, profile.optimum, profile.maximum]

    def create_runtime_config(self) -> "RuntimeConfig":
        return RuntimeConfig()

    def create_execution_context(self, how: "str | RuntimeConfig") -> Context:
        assert (how.strategy if isinstance(how, RuntimeConfig) else how) == "user managed"
        self.contexts += 1
        return Context(self)


class RuntimeCache:
    """TensorRT for RTX: the kernels that it compiled for this GPU, and those that it was given."""

    loaded: ClassVar[list[bytes]] = []

    def deserialize(self, content: bytes) -> None:
        self.loaded.append(content)

    def serialize(self) -> bytes:
        return b"kernels"


class RuntimeConfig:
    """TensorRT for RTX: how contexts are made."""

    strategy = ""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        self.cache = cache

    def get_runtime_cache(self) -> RuntimeCache:
        return self.cache


class Runtime:
    """Loads engines."""

    def __init__(self, logger: Any, profiles: tuple[Profile, ...]) -> None:
        self.logger, self.profiles = logger, profiles

    def deserialize_cuda_engine(self, engine: bytes) -> Engine | None:
        if engine == b"broken":
            self.logger.log("error", "the plan is of another version")
            return None
        return Engine(engine, self.profiles)


def _array(address: int, shape: tuple[int, ...]) -> Any:
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)
