"""The TensorRT session's bookkeeping: shapes, batches, plans, memory and graphs, on a stand-in for GPU and library.

The stand-in keeps to the documented rules of TensorRT and CUDA graphs (addresses, memory and shapes are set before work
is enqueued; captured work runs when the graph is launched, not before) and computes with ONNX _Runtime, so that outputs
are the network's. What the real library does with it is for `make gpu-test`.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from n2n_deploy.engine_facts import EngineFacts, Profile
from n2n_deploy.engines import tensorrt
from n2n_deploy.engines.onnxruntime import OnnxRuntimeSession
from n2n_deploy.engines.profiles import plan_profiles
from n2n_deploy.engines.tensorrt import BEYOND, TensorRTSession
from n2n_deploy.engines.tiling import plan_tiles
from n2n_deploy.errors import HostError, UsageError
from n2n_deploy.manifest import Precision

Graphs = Callable[[str, Precision], onnx.ModelProto]

PROFILES = plan_profiles([(96, 128), (64, 64)], batch=2)
BYTES_PER_PIXEL = 10


class _GpuArray(np.ndarray):  # type: ignore[type-arg]
    """An array with an address, as CuPy's have."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


class _Stream:
    current: "_Stream"

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr
        self.captured: list[Callable[[], None]] | None = None
        self.launches = 0

    def __enter__(self) -> None:
        self.before, _Stream.current = _Stream.current, self

    def __exit__(self, *_: object) -> None:
        _Stream.current = self.before

    def begin_capture(self) -> None:
        assert self.ptr != 0, "the legacy default stream cannot be captured"
        self.captured = []

    def end_capture(self) -> Any:
        work, self.captured = self.captured, None

        def launch(stream: _Stream) -> None:
            stream.launches += 1
            for step in work or []:
                step()

        return SimpleNamespace(launch=launch)

    def synchronize(self) -> None:
        assert self.captured is None


_Stream.current = _Stream(0)
STREAMS: dict[int, _Stream] = {}


def new_stream(**_: object) -> _Stream:
    stream = _Stream(len(STREAMS) + 1)
    STREAMS[stream.ptr] = stream
    return stream


class _Device(contextlib.nullcontext[None]):
    def synchronize(self) -> None:
        pass


CUPY = SimpleNamespace(
    float32=np.float32,
    uint8=np.uint8,
    empty=lambda shape, dtype: np.full(shape, 7, dtype).view(_GpuArray),
    get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
    cuda=SimpleNamespace(
        Device=_Device,
        Stream=new_stream,
        get_current_stream=lambda: _Stream.current,
        runtime=SimpleNamespace(CUDARuntimeError=RuntimeError),
    ),
)


class _Context:
    def __init__(self, engine: "_Engine") -> None:
        self.engine, self.profile = engine, -1
        self.shape: tuple[int, ...] = ()
        self.memory = 0
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        del stream
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, int, int, int]) -> bool:
        assert name == "image"
        self.shape = shape
        return self.engine.profiles[self.profile].takes(shape)

    def update_device_memory_size_for_shapes(self) -> int:
        return BYTES_PER_PIXEL * int(np.prod(self.shape))

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        self.memory = size

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory >= self.update_device_memory_size_for_shapes()
        shape, addresses = self.shape, dict(self.addresses)

        def work() -> None:
            view = [
                np.ctypeslib.as_array(ctypes.cast(addresses[name], ctypes.POINTER(ctypes.c_float)), shape)
                for name in ("image", "denoised")
            ]
            view[1][...] = self.engine.network.run(view[0].copy())

        captured = STREAMS[stream].captured
        if captured is None:
            work()
        else:
            captured.append(work)
        return True


class _Engine:
    def __init__(self, network: OnnxRuntimeSession, profiles: tuple[Profile, ...]) -> None:
        self.network, self.profiles = network, profiles
        self.num_optimization_profiles = len(profiles)
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return ("denoised", "image")[index]  # their order is nowhere promised

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name={"image": "INPUT", "denoised": "OUTPUT"}[name])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert name == "image"
        profile = self.profiles[index]
        return [profile.minimum, profile.optimum, profile.maximum]

    def create_execution_context(self, strategy: str) -> _Context:
        assert strategy == "user managed"
        self.contexts += 1
        return _Context(self)


class _Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, engine: bytes) -> _Engine | None:
        if engine == b"broken":
            self.logger.log("error", "the plan is of another version")
            return None
        return _Engine(OnnxRuntimeSession(engine, threads=1), PROFILES)


class _Logger:
    Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal error")


MODULE: Any = SimpleNamespace(
    __name__="tensorrt",
    __version__="10.13.3.9",
    ILogger=_Logger,
    Runtime=_Runtime,
    ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
)
FACTS = EngineFacts(
    flavour="tensorrt",
    precision="fp32",
    tensorrt_version="10.13.3.9",
    compute_capabilities=("8.9",),
    hardware="none",
    profiles=PROFILES,
)


@pytest.fixture
def session(graph: Graphs, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRTSession]:
    monkeypatch.setattr(tensorrt, "import_cupy", lambda: CUPY)
    with TensorRTSession(MODULE, graph("small", "fp32").SerializeToString(), FACTS) as opened:
        yield opened


def images(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32).view(_GpuArray)


@pytest.mark.parametrize("shape", [(1, 1, 96, 128), (2, 1, 64, 64), (5, 1, 40, 56)])
def test_the_outputs_are_the_networks_however_often_it_runs(
    graph: Graphs, session: TensorRTSession, shape: tuple[int, ...]
) -> None:
    with OnnxRuntimeSession(graph("small", "fp32").SerializeToString(), threads=1) as cpu:
        for _ in range(3):
            batch = images(*shape) + np.float32(np.random.default_rng().normal())
            found = session.run(batch)
            assert np.array_equal(np.asarray(found), cpu.run(np.asarray(batch)))


def test_a_result_is_not_overwritten_by_the_next(session: TensorRTSession) -> None:
    first = session.run(images(1, 1, 64, 64))
    before = first.copy()
    session.run(-images(1, 1, 64, 64))
    assert np.array_equal(first, before)


def test_each_stream_and_shape_is_captured_once_and_replayed(session: TensorRTSession) -> None:
    lanes = [new_stream(), new_stream()]
    for _ in range(3):
        for lane in lanes:
            with lane:
                session.run(images(1, 1, 96, 128))
                session.run(images(1, 1, 64, 64))
    assert [lane.launches for lane in lanes] == [6, 6]
    assert session._engine.contexts == 4


def test_plans_are_bounded_for_each_stream(session: TensorRTSession) -> None:
    with new_stream():
        for height in (64, 56, 48, 40, 32):
            session.run(images(1, 1, height, 64))
    assert len(session._plans) == tensorrt.PLANS_PER_STREAM


def test_the_shapes_of_a_stream_share_the_activation_memory_of_the_largest(session: TensorRTSession) -> None:
    lanes = [new_stream(), new_stream()]
    for height in (32, 64, 32, 48):
        for lane in lanes:
            with lane:
                session.run(images(1, 1, height, 64))
    kept = [array.nbytes for array in session._activations.values()]
    assert kept == [BYTES_PER_PIXEL * 64 * 64] * len(lanes)


def test_where_memory_is_short_what_is_kept_for_other_shapes_goes_first(
    session: TensorRTSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = {"plans": 1}

    def empty(shape: Any, dtype: Any) -> Any:
        if len(session._plans) >= room["plans"] and session._lock.locked():
            raise MemoryError  # of a plan's buffers, for those are made under the lock
        return np.full(shape, 7, dtype).view(_GpuArray)

    monkeypatch.setattr(CUPY, "empty", empty)
    with new_stream():
        for height in (64, 32):
            session.run(images(1, 1, height, 64))
        assert [shape for _, shape in session._plans] == [(1, 1, 32, 64)]
        room["plans"] = 0
        session._plans.clear()
        with pytest.raises(MemoryError):
            session.run(images(1, 1, 32, 64))


def test_memory_is_the_engines_and_tiles_stay_within_its_profiles(session: TensorRTSession) -> None:
    assert session.memory((64, 64)) == (BYTES_PER_PIXEL + 12) * 64 * 64
    assert session.memory((104, 128)) == BEYOND
    tile = plan_tiles((256, 512), 24, 1 << 30, session)
    assert session.memory(tile) < BEYOND
    assert any(profile.takes((1, 1, *tile)) for profile in PROFILES)


def test_a_shape_no_profile_takes_is_refused(session: TensorRTSession) -> None:
    with pytest.raises(UsageError, match="compile it for these micrographs"):
        session.run(images(1, 1, 128, 96))


def test_an_engine_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "import_cupy", lambda: CUPY)
    with pytest.raises(HostError, match="the plan is of another version"):
        TensorRTSession(MODULE, b"broken", FACTS)


def test_a_closed_session_does_not_run(session: TensorRTSession) -> None:
    session.close()
    session.close()
    with pytest.raises(HostError, match="closed"):
        session.run(images(1, 1, 64, 64))


def test_compiled_kernels_are_kept_and_found_again(
    graph: Graphs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[bytes] = []

    class Cache:
        def deserialize(self, content: bytes) -> None:
            loaded.append(content)

        def serialize(self) -> bytes:
            return b"kernels"

    class Config:
        def __init__(self) -> None:
            self.cache: Cache | None = None

        def set_execution_context_allocation_strategy(self, strategy: str) -> None:
            assert strategy == "user managed"

        def create_runtime_cache(self) -> Cache:
            return Cache()

        def set_runtime_cache(self, cache: Cache) -> None:
            self.cache = cache

        def get_runtime_cache(self) -> Cache | None:
            return self.cache

    monkeypatch.setattr(tensorrt, "import_cupy", lambda: CUPY)
    monkeypatch.setattr(_Engine, "create_runtime_config", lambda _: Config(), raising=False)
    strategies = {
        "CudaGraphStrategy": SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
        "DynamicShapesKernelSpecializationStrategy": SimpleNamespace(EAGER="eager"),
    }
    module: Any = SimpleNamespace(**vars(MODULE) | {"__name__": "tensorrt_rtx"} | strategies)
    facts = FACTS.model_copy(update={"flavour": "rtx", "hardware": "listed"})
    engine = graph("small", "fp32").SerializeToString()
    for _ in range(2):
        TensorRTSession(module, engine, facts, kernels=tmp_path / "own.kernels").close()
    assert loaded == [b"kernels"]
