"""A machine with two GPUs for the length of a test: NVIDIA's driver, CuPy, TensorRT, ONNX Runtime with CUDA.

It shows that what is asked of a GPU is right and in the right order, by CuPy's and CUDA's rules as they are documented.
How real kernels round, how much memory they take and how fast they are, `make gpu-test` and the benchmarks ask a GPU.
"""

import ctypes
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import scipy.fft
import standin_cupy
from standin_cupy import ndarray
from standin_kernels import compile_kernels
from standin_streams import STREAMS, CUDARuntimeError, Device, Event, Stream, get_current_stream
from standin_tensorrt import VERSIONS, tensorrt_library

from n2n_deploy.device import cuda, gpus
from n2n_deploy.engines.tensorrt import open as tensorrt_open
from n2n_deploy.imaging import cuda_ops

MEMORY = 80 << 30
CUDA = "CUDAExecutionProvider"

_own = threading.local()


@pytest.fixture(scope="module")
def standin_gpu() -> Any:
    """Install it; everything is as before at the end."""
    with pytest.MonkeyPatch.context() as patch:
        cupy = install_cupy(patch)
        _install_driver(patch)
        for name in VERSIONS:
            patch.setitem(sys.modules, name, tensorrt_library(tensorrt_open.NODE_PROFILES, name))  # type: ignore[misc]
        patch.setattr(tensorrt_open, "build_engine", lambda graph, _: (graph, None))
        inference = onnxruntime.InferenceSession
        patch.setattr(onnxruntime, "InferenceSession", lambda *given, **how: _session(inference, *given, **how))
        patch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
        _forget()
        yield cupy
        _forget()


def install_cupy(patch: pytest.MonkeyPatch) -> ModuleType:
    """Put CuPy in the place of what is or is not installed."""
    _own.plans = {}
    patch.setattr(cuda, "_devices", {})
    names = ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.fft")
    cupy, cupyx, signal, transforms = modules = [ModuleType(name) for name in names]
    for name, module in zip(names, modules, strict=True):
        module.__spec__ = ModuleSpec(name, None)  # some look for it
        patch.setitem(sys.modules, name, module)  # type: ignore[misc]
    own = "ndarray empty asarray ascontiguousarray asnumpy nonzero"
    vars(cupy).update({name: getattr(standin_cupy, name) for name in own.split()})
    vars(cupy).update(
        __getattr__=_of_numpy,
        RawModule=_RawModule,
        RawKernel=_Delay,
        cuda=SimpleNamespace(
            Device=Device,
            Event=Event,
            Stream=Stream,
            get_current_stream=get_current_stream,
            is_available=lambda: True,
            nvtx=_Ranges(),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                memGetInfo=lambda: (MEMORY - standin_cupy.taken["bytes"], MEMORY),
                pointerGetAttributes=lambda address: SimpleNamespace(type=int(standin_cupy.is_pinned(address))),
            ),
        ),
        fft=SimpleNamespace(
            config=SimpleNamespace(get_plan_cache=_plan_cache),
            fftfreq=lambda n, step: standin_cupy.asarray(np.fft.fftfreq(n, step)),
            rfftfreq=lambda n, step: standin_cupy.asarray(np.fft.rfftfreq(n, step)),
        ),
        get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None, free_bytes=lambda: 0),
        get_default_pinned_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
    )
    vars(cupyx).update(empty_pinned=standin_cupy.empty_pinned, scipy=signal)
    vars(signal).update(fft=transforms)
    for name in ["fft", "ifft", "rfft", "irfft", "rfft2", "irfft2"]:
        setattr(transforms, name, _transform(name))
    return cupy


def _of_numpy(name: str) -> Any:
    """What CuPy takes from NumPy as it is, types and numbers; or a function."""
    value = getattr(np, name)
    return standin_cupy.function_of(name) if callable(value) and not isinstance(value, type) else value


def _transform(name: str) -> Callable[..., ndarray]:
    function = getattr(scipy.fft, name)

    def transform(array: ndarray, *, overwrite_x: bool = False, **options: Any) -> ndarray:
        _plan_cache().plan(8 * array.size)
        result = standin_cupy.apply(lambda values: function(values, **options), array)
        if overwrite_x:
            array.fill(np.nan)
        return result

    return transform


class _Ranges:
    """NVTX: the ranges that were marked, in order; each thread closes what it opened."""

    available = True

    def __init__(self) -> None:
        self.marked: list[str] = []
        self._own = threading.local()

    @property
    def depth(self) -> int:
        """How many ranges this thread has open."""
        return getattr(self._own, "depth", 0)

    def RangePush(self, name: str) -> None:  # noqa: N802
        self._own.depth = self.depth + 1
        self.marked.append(name)

    def RangePop(self) -> None:  # noqa: N802
        assert self.depth > 0
        self._own.depth -= 1


class _PlanCache:
    """A thread's cache of FFT plans: it refuses those larger than its bound."""

    def __init__(self) -> None:
        self._bound, self._held = -1, 0

    def set_memsize(self, size: int) -> None:
        self._bound = size

    def get_memsize(self) -> int:
        return self._bound

    def get_curr_memsize(self) -> int:
        return self._held

    def clear(self) -> None:
        self._held = 0

    def plan(self, size: int) -> None:
        """Plan a transform that needs a work area of this size; the last one stays."""
        if 0 <= self._bound < size:
            raise RuntimeError("the plan memsize is too large")
        self._held = size


def _plan_cache() -> _PlanCache:
    if not hasattr(_own, "plans"):  # in another thread
        _own.plans = {}
    return _own.plans.setdefault(Device().id, _PlanCache())  # type: ignore[no-any-return]


class _RawModule:
    """The kernels, compiled for the CPU; a launch must have a thread for each value of the output."""

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        assert code.isascii()
        assert options == cuda_ops.OPTIONS
        with tempfile.TemporaryDirectory() as folder:
            self._library = compile_kernels(code, Path(folder))

    def get_function(self, name: str) -> Callable[..., None]:
        """One kernel, to be launched with grid, block and arguments."""
        kernel = getattr(self._library, name.removesuffix("_kernel"))

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
            arrays = [each for each in arguments if isinstance(each, ndarray)]
            assert all(each.flags.c_contiguous for each in arrays)
            assert name == "band_kernel" or grid[0] * block[0] >= arrays[-1].size
            passed = [_passed(each) for each in arguments]
            get_current_stream().add(lambda: kernel(*(_address(each) for each in passed)))

        return launch


def _passed(argument: Any) -> Any:
    """An array on the GPU as its memory, a structure by value."""
    return argument.memory if isinstance(argument, ndarray) else argument.copy()


def _address(argument: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(argument.ctypes.data if isinstance(argument, np.ndarray) else int(argument))


class _Delay:
    """A kernel that only takes time: all work is late here."""

    def __init__(self, code: str, name: str) -> None:
        del code
        assert name == "spin"

    def __call__(self, *launch: Any) -> None:
        """Nothing to do."""


class _Driver:
    """NVIDIA's driver with two GPUs of compute capability 8.9."""

    def __init__(self) -> None:
        self.cuInit = lambda _: 0
        self.cuDriverGetVersion = lambda out: _store(out, 13000)
        self.cuDeviceGetCount = lambda out: _store(out, 2)
        self.cuDeviceGet = _store
        self.cuDeviceGetName = lambda name, _, __: setattr(name, "value", b"stand-in")
        self.cuDeviceTotalMem_v2 = lambda out, _: _store(out, MEMORY)
        self.cuDeviceGetAttribute = lambda out, which, _: _store(out, {75: 8, 76: 9}[which])


def _store(out: Any, value: int) -> int:
    out._obj.value = value
    return 0


def _install_driver(patch: pytest.MonkeyPatch) -> None:
    load = ctypes.CDLL
    patch.setattr(ctypes, "CDLL", lambda name, *how: _Driver() if name == "libcuda.so.1" else load(name, *how))


def _session(inference: Any, model: Any, options: Any = None, *, providers: Any = None, **how: Any) -> Any:
    if providers is None or isinstance(providers[0], str):
        return inference(model, options, providers=providers, **how)
    return _CudaSession(inference(model, providers=["CPUExecutionProvider"]), providers[0][1])


class _CudaSession:
    """ONNX Runtime's session on the GPU: it works on the stream that it was given."""

    def __init__(self, session: Any, provider: dict[str, str]) -> None:
        self._session, self._stream = session, STREAMS[int(provider["user_compute_stream"])]
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.get_modelmeta = session.get_modelmeta

    def get_providers(self) -> list[str]:
        return [CUDA]

    def io_binding(self) -> Any:
        bound: list[tuple[Any, ...]] = []
        bind = lambda *where: bound.append(where)  # noqa: E731
        return SimpleNamespace(bind_input=bind, bind_output=bind, bound=bound)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        (name, *source), (_, *target) = binding.bound

        def work() -> None:
            (output,) = self._session.run(None, {name: _array(*source).copy()})
            _array(*target)[...] = output

        self._stream.add(work)


def _array(kind: str, device: int, dtype: Any, shape: tuple[int, ...], address: int) -> Any:
    del device
    assert (kind, dtype) == ("cuda", np.float32)
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)


def _forget() -> None:
    gpus.driver.cache_clear()
