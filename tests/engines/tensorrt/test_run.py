"""The TensorRT session: shapes, batches, executors, memory and graphs, on stand-ins for GPU and library."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from standin_gpu import install_cupy
from standin_streams import Stream
from standin_tensorrt import BYTES_PER_PIXEL, RuntimeCache, tensorrt_library

from n2n_deploy.bundle.engine_facts import EngineFacts
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.tensorrt import run as tensorrt
from n2n_deploy.engines.tensorrt.profiles import make_profiles
from n2n_deploy.engines.tensorrt.run import BEYOND, TensorRTSession
from n2n_deploy.engines.tiling import choose_tile

Graphs = Callable[[str, Precision], onnx.ModelProto]

PROFILES = make_profiles([(96, 128), (64, 64)], batch=2)
MODULE = tensorrt_library(PROFILES)
FACTS = EngineFacts(
    library="tensorrt",
    precision="fp32",
    tensorrt_version="10.13.3.9",
    compute_capabilities=("8.9",),
    hardware="none",
    profiles=PROFILES,
)


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in."""
    return install_cupy(monkeypatch)


@pytest.fixture
def session(graph: Graphs, cupy: ModuleType) -> Iterator[TensorRTSession]:
    del cupy
    with TensorRTSession(MODULE, graph("small", "fp32").SerializeToString(), FACTS) as opened:
        yield opened


def images(*shape: int) -> Any:
    import cupy

    return cupy.asarray(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 96, 128), (2, 1, 64, 64), (5, 1, 40, 56)])
def test_outputs_equal_the_networks_in_every_run(
    graph: Graphs, session: TensorRTSession, shape: tuple[int, ...]
) -> None:
    with OnnxRuntimeSession(graph("small", "fp32").SerializeToString(), threads=1) as cpu:
        for _ in range(3):
            batch = images(*shape) + np.float32(np.random.default_rng().normal())
            found = session.run(batch)
            assert np.array_equal(found.get(), cpu.run(batch.get()))


def test_result_is_not_overwritten_by_the_next(session: TensorRTSession) -> None:
    first = session.run(images(1, 1, 64, 64))
    before = first.copy()
    session.run(-images(1, 1, 64, 64))
    assert np.array_equal(first.get(), before.get())


def test_each_stream_and_shape_is_captured_once_and_replayed(session: TensorRTSession) -> None:
    lanes = [Stream(), Stream()]
    for _ in range(3):
        for lane in lanes:
            with lane:
                session.run(images(1, 1, 96, 128))
                session.run(images(1, 1, 64, 64))
    assert [lane.launches for lane in lanes] == [6, 6]
    assert session._engine.contexts == 4


def test_executors_of_a_stream_are_bounded(session: TensorRTSession) -> None:
    with Stream():
        for height in (64, 56, 48, 40, 32):
            session.run(images(1, 1, height, 64))
    assert len(session._executors) == tensorrt.EXECUTORS_PER_STREAM


def test_shapes_of_a_stream_share_the_activation_memory_of_the_largest(session: TensorRTSession) -> None:
    lanes = [Stream(), Stream()]
    for height in (32, 64, 32, 48):
        for lane in lanes:
            with lane:
                session.run(images(1, 1, height, 64))
    kept = [array.nbytes for array in session._activations.values()]
    assert kept == [BYTES_PER_PIXEL * 64 * 64] * len(lanes)


def test_executors_of_other_shapes_are_freed_if_memory_is_short(
    session: TensorRTSession, cupy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, real = {"executors": 1}, cupy.empty

    def empty(shape: Any, dtype: Any) -> Any:
        if len(session._executors) >= room["executors"] and session._lock.locked():
            raise MemoryError  # of an executor's buffers, which are allocated under the lock
        return real(shape, dtype)

    monkeypatch.setattr(cupy, "empty", empty)
    with Stream():
        for height in (64, 32):
            session.run(images(1, 1, height, 64))
        assert [shape for _, shape in session._executors] == [(1, 1, 32, 64)]
        room["executors"] = 0
        session._executors.clear()
        with pytest.raises(MemoryError):
            session.run(images(1, 1, 32, 64))


def test_memory_is_the_engines_and_tiles_fit_its_profiles(session: TensorRTSession) -> None:
    assert session.memory((64, 64)) == (BYTES_PER_PIXEL + 12) * 64 * 64
    assert session.memory((104, 128)) == BEYOND
    tile = choose_tile((256, 512), 24, 1 << 30, session.memory)
    assert session.memory(tile) < BEYOND
    assert any(profile.takes((1, 1, *tile)) for profile in PROFILES)


def test_shape_outside_all_profiles_is_refused(session: TensorRTSession) -> None:
    with pytest.raises(UsageError, match="compile it for these micrographs"):
        session.run(images(1, 1, 128, 96))


def test_engine_that_does_not_load_gives_the_reason() -> None:
    with pytest.raises(HostError, match="the plan is of another version"):
        TensorRTSession(MODULE, b"broken", FACTS)


def test_closed_session_does_not_run(session: TensorRTSession) -> None:
    session.close()
    session.close()
    with pytest.raises(HostError, match="closed"):
        session.run(images(1, 1, 64, 64))


def test_compiled_kernels_are_kept_and_found_again(graph: Graphs, tmp_path: Path) -> None:
    RuntimeCache.loaded.clear()
    module = tensorrt_library(PROFILES, "tensorrt_rtx")
    facts = FACTS.model_copy(update={"library": "rtx", "hardware": "listed"})
    engine = graph("small", "fp32").SerializeToString()
    for _ in range(2):
        TensorRTSession(module, engine, facts, kernels=tmp_path / "own.kernels").close()
    assert RuntimeCache.loaded == [b"kernels"]
