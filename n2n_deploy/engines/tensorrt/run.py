"""`TensorRTSession`: an engine on a GPU, through TensorRT, its lean runtime or TensorRT for RTX.

Work is enqueued on CuPy's current stream and nothing waits for it: a lane's copies, kernels and network run in order
because they are on the lane's stream. Each stream and shape has an executor: an execution context with its buffers,
whose work is captured as a CUDA graph the first time and replayed from then on. Activation memory comes from CuPy's
pool; the executors of a stream share it, because they run one after the other.
"""

import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from n2n_deploy.bundle.engine_facts import EngineFacts, Profile, Shape, TensorRTLibrary
from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import HostError, OutOfMemoryError, UsageError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.cuda import CudaDevice, cuda_device
from n2n_deploy.engines.tensorrt.library import last_error, make_logger
from n2n_deploy.engines.tensorrt.profiles import choose_profile
from n2n_deploy.files.atomic import atomic_write

BEYOND = 1 << 62
"""What `memory` returns for a shape outside all profiles: more than any GPU has, so that tiles are used instead."""

EXECUTORS_PER_STREAM = 2
"""The whole image and one kind of tile; each keeps a context, a graph and buffers for an image and its result."""


class TensorRTSession(Closing):
    """A network on one GPU; see `Session`. Threads may run it concurrently, each on a CuPy stream of its own.

    Args:
        module: `tensorrt`, `tensorrt_lean` or `tensorrt_rtx`.
        engine: serialised; its bytes must be trusted, because loading it runs code.
        facts: what it was built for.
        device: index of the GPU.
        kernels: for TensorRT for RTX: file that keeps the kernels it compiles for this GPU between starts.

    Raises:
        HostError: CuPy is missing, or the library cannot load the engine.
    """

    def __init__(
        self,
        module: ModuleType,
        engine: bytes,
        facts: EngineFacts,
        *,
        device: int = 0,
        kernels: Path | None = None,
    ) -> None:
        self.name = module.__name__.replace("_", "-")
        self._trt = module
        self._library: TensorRTLibrary = facts.library
        self.device = cuda_device(device)
        self._cupy = self.device.cupy
        self._kernels = kernels
        self._lock = threading.Lock()
        self._executors: OrderedDict[tuple[int, Shape], _Executor] = OrderedDict()
        self._activations: dict[int, Any] = {}  # by stream
        self._memory: dict[Shape, int] = {}
        self._probes: dict[int, Any] = {}  # profile → a context without memory, to be asked for sizes
        self._logger = make_logger(module)
        with self._cupy.cuda.Device(device):
            self._runtime = module.Runtime(self._logger)
            if facts.version_compatible:
                # Such an engine carries the lean runtime of the version that built it.
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                errors = last_error(self._logger)
                raise HostError(f"{self.name} {module.__version__} cannot load the engine: {errors}")
            self._config = self._runtime_config()
            self._own = self._cupy.cuda.Stream()
        names = [self._engine.get_tensor_name(index) for index in range(2)]
        self._input, self._output = sorted(names, key=lambda name: self._engine.get_tensor_mode(name).name != "INPUT")
        self.profiles = tuple(
            Profile(minimum=low, optimum=best, maximum=high)
            for index in range(self._engine.num_optimization_profiles)
            for low, best, high in [map(tuple, self._engine.get_tensor_profile_shape(self._input, index))]
        )

    def run(self, batch: Array) -> Array:
        """Denoise (n, 1, height, width) float32 on this GPU; same shape back, a new array, on the current stream.

        Raises:
            UsageError: this height and width are outside all profiles of the engine.
            HostError: the library cannot run it.
        """
        if self._engine is None:
            raise HostError("the session is closed; open another")
        with self.device.current():
            stream = self._cupy.cuda.get_current_stream()
            # The legacy default stream cannot be captured; a blocking stream is ordered with it by itself.
            with self._own if stream.ptr == 0 else stream:
                return self._run(batch)

    def _run(self, batch: Array) -> Array:
        one = (1, 1, int(batch.shape[2]), int(batch.shape[3]))
        index = self._profile(one)
        most = self.profiles[index].maximum[0]
        result: Array = self._cupy.empty(batch.shape, dtype=self._cupy.float32)
        for start in range(0, batch.shape[0], most):
            images = batch[start : start + most]
            result[start : start + most] = self._executor((len(images), *one[1:])).run(images)
        return result

    def memory(self, shape: tuple[int, int]) -> int:
        """GPU bytes that a stream needs for one image (height, width): what the engine states, and the buffers."""
        one = (1, 1, *shape)
        index = choose_profile(self.profiles, one)
        if index is None:
            return BEYOND
        with self._lock:
            if one not in self._memory:
                with self.device.current():
                    if index not in self._probes:
                        self._probes[index] = self._context(one, self._own)
                    self._probes[index].set_input_shape(self._input, one)
                    self._memory[one] = self._activation_bytes(self._probes[index])
            return self._memory[one] + 3 * 4 * shape[0] * shape[1]

    def close(self) -> None:
        """Wait for the GPU, save the compiled kernels, and free the engine and its memory."""
        if self._engine is None:
            return
        with self._lock, CudaDevice.capture_lock, self.device.current():
            self.device.synchronize_all()
            self._executors.clear()
            self._activations.clear()
            self._probes.clear()
            self._keep_kernels()
            self._config = self._engine = self._runtime = None

    def _profile(self, shape: Shape) -> int:
        index = choose_profile(self.profiles, shape)
        if index is None:
            taken = ", ".join(f"{p.maximum[2]}×{p.maximum[3]}" for p in self.profiles)
            raise UsageError(
                f"the engine takes up to {taken} pixels, not {shape[2]}×{shape[3]}; compile it for these micrographs"
            )
        return index

    def _executor(self, shape: Shape) -> "_Executor":
        """The executor of the current stream for a shape; the least recently used is dropped if there are too many."""
        stream = self._cupy.cuda.get_current_stream()
        key = (int(stream.ptr), shape)
        with self._lock:
            if key in self._executors:
                self._executors.move_to_end(key)
                return self._executors[key]
            mine = [other for other in self._executors if other[0] == key[0]]
            if len(mine) >= EXECUTORS_PER_STREAM:
                stream.synchronize()
                del self._executors[mine[0]]
            try:
                executor = self._make_executor(shape, stream)
            except MemoryError:
                # Free what this stream keeps for other shapes, and try again.
                self._forget(stream)
                self._cupy.get_default_memory_pool().free_all_blocks()
                executor = self._make_executor(shape, stream)
            self._executors[key] = executor
            return executor

    def _make_executor(self, shape: Shape, stream: Any) -> "_Executor":
        context = self._context(shape, stream)
        needed = self._activation_bytes(context)
        if int(stream.ptr) not in self._activations or self._activations[int(stream.ptr)].nbytes < needed:
            self._forget(stream)  # graphs hold addresses
            self._activations[int(stream.ptr)] = self._cupy.empty(needed, dtype=self._cupy.uint8)
        activations = self._activations[int(stream.ptr)]
        context.set_device_memory(activations.data.ptr, activations.nbytes)
        # TensorRT for RTX captures by itself.
        capture = self._library == "tensorrt"
        return _Executor(self._cupy, context, self._input, self._output, shape, stream, capture)

    def _activation_bytes(self, context: Any) -> int:
        """GPU bytes that a context needs for its shapes."""
        needed = int(context.update_device_memory_size_for_shapes())
        if needed <= 0:
            errors = last_error(self._logger)
            raise HostError(f"{self.name} does not state the memory it needs: {errors}")
        return needed

    def _forget(self, stream: Any) -> None:
        """Free the executors of a stream, and their memory, once the GPU has finished with them."""
        stream.synchronize()
        for key in [key for key in self._executors if key[0] == int(stream.ptr)]:
            del self._executors[key]
        self._activations.pop(int(stream.ptr), None)

    def _context(self, shape: Shape, stream: Any) -> Any:
        """An execution context for one shape, without memory yet."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(self._config or strategy)
        if context is None or not (
            context.set_optimization_profile_async(self._profile((1, *shape[1:])), stream.ptr)
            and context.set_input_shape(self._input, shape)
        ):
            errors = last_error(self._logger)
            kind = OutOfMemoryError if "memory" in errors.lower() else HostError
            raise kind(f"{self.name} cannot prepare for {shape[2]}×{shape[3]} pixels: {errors}")
        return context

    def _runtime_config(self) -> Any:
        """For TensorRT for RTX: CUDA graphs, memory given by us, and the kernels of earlier starts; else None."""
        if self._library != "rtx":
            return None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # By default the first runs of a shape use slower kernels, which round differently, until others are compiled.
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        if self._kernels is not None and self._kernels.is_file():
            cache.deserialize(self._kernels.read_bytes())
        config.set_runtime_cache(cache)
        return config

    def _keep_kernels(self) -> None:
        if self._config is None or self._kernels is None:
            return
        compiled = self._config.get_runtime_cache().serialize()
        if compiled is None:
            return
        content = bytes(compiled)
        # With a full or read-only disk the next start compiles again; this run must not fail because of it.
        with suppress(HostError), atomic_write(self._kernels) as file:
            file.write(content)


class _Executor:
    """A context for one shape on one stream, with its memory: fixed buffers, and a CUDA graph of its work."""

    def __init__(
        self, cupy: ModuleType, context: Any, source: str, result: str, shape: Shape, stream: Any, capture: bool
    ) -> None:
        self._context, self._stream = context, stream
        self._input = cupy.empty(shape, dtype=cupy.float32)
        self._output = cupy.empty(shape, dtype=cupy.float32)
        context.set_tensor_address(source, self._input.data.ptr)
        context.set_tensor_address(result, self._output.data.ptr)
        self._graph = None
        if capture:
            # The first run with a shape sets the context up, which must not be part of the graph.
            self._enqueue()
            self._graph = self._captured(cupy)

    def run(self, images: Array) -> Any:
        """The output's buffer; it is valid until the next run, in the stream's order."""
        self._input[...] = images
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch(self._stream)
        return self._output

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.ptr):
            raise HostError("TensorRT could not start the network on the GPU; run with --debug to see its log")

    def _captured(self, cupy: ModuleType) -> Any:
        """The work as a CUDA graph; None where this engine cannot be captured."""
        with CudaDevice.capture_lock:
            self._stream.begin_capture()
            try:
                done = self._context.execute_async_v3(self._stream.ptr)
            finally:
                try:
                    graph = self._stream.end_capture()
                except cupy.cuda.runtime.CUDARuntimeError:
                    graph = None
        return graph if done else None
