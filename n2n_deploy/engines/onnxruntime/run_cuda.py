"""`OnnxRuntimeCudaSession`: the network on a GPU through ONNX Runtime, without a copy to the host."""

import re
import threading
from types import ModuleType
from typing import Any

import numpy

from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import HostError, OutOfMemoryError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.cuda import cuda_device
from n2n_deploy.engines.onnxruntime.library import (
    CUDA_PROVIDER,
    bytes_per_pixel,
    first_line,
    import_onnxruntime_cuda,
    open_model,
)

_ARENA = 2.0  # of the live tensors: convolution work areas, and blocks that do not fit each other
_FIXED = 256 * 2**20


class OnnxRuntimeCudaSession(Closing):
    """A network on one GPU; see `Session`. It runs one batch at a time, on a stream of its own.

    Args:
        model: bytes of an ONNX model as `n2n-deploy export` makes it.
        device: index of the GPU.

    Raises:
        HostError: ONNX Runtime with CUDA, or CuPy, is missing or does not start.
        BundleError: the model cannot be loaded.
    """

    name = "onnxruntime-cuda"

    def __init__(self, model: bytes, *, device: int = 0) -> None:
        self._lock = threading.Lock()
        runtime = import_onnxruntime_cuda()
        self.device = cuda_device(device)
        self._cupy = self.device.cupy
        with self.device.current():
            self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._session = _open(runtime, model, device, self._stream.ptr)
        self._quiet = runtime.RunOptions()
        # Events order the streams, so the host need not wait.
        self._quiet.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self._bytes_per_pixel = bytes_per_pixel(self._session)

    def run(self, batch: Array) -> Array:
        """Denoise (n, 1, height, width) float32 on this GPU; same shape back, ready on the current stream.

        Raises:
            HostError: the session is closed, or the GPU does not have enough memory.
        """
        if self._session is None:
            raise HostError("the session is closed; open another")
        cupy = self._cupy
        with self._lock, self.device.current():
            current = cupy.cuda.get_current_stream()
            source: Any = cupy.ascontiguousarray(batch, dtype=cupy.float32)
            result: Array = cupy.empty_like(source)
            target: Any = result
            binding = self._session.io_binding()
            for bind, name, array in (
                (binding.bind_input, self._input, source),
                (binding.bind_output, self._output, target),
            ):
                bind(name, "cuda", self.device.index, numpy.float32, array.shape, array.data.ptr)
            self._stream.wait_event(current.record())
            try:
                self._session.run_with_iobinding(binding, self._quiet)
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                kind = OutOfMemoryError if re.search("memory|alloc", str(error), re.IGNORECASE) else HostError
                # ONNX Runtime cannot use what CuPy's pool keeps; free it for the next attempt, in smaller tiles.
                cupy.get_default_memory_pool().free_all_blocks()
                raise kind(
                    f"{self.name} cannot run {batch.shape[2]}×{batch.shape[3]} pixels "
                    f"({first_line(error)}); set a lower --memory, so that they run in tiles"
                ) from error
            current.wait_event(self._stream.record())
            return result

    def memory(self, shape: tuple[int, int]) -> int:
        """GPU bytes that `run` needs beyond its input for one image (height, width); an estimate from the graph."""
        return int(_ARENA * self._bytes_per_pixel * shape[0] * shape[1]) + _FIXED

    def close(self) -> None:
        """Wait for the GPU, and free the network and its memory."""
        if self._session is not None:
            self._stream.synchronize()
            self._session = None


def _open(runtime: ModuleType, model: bytes, device: int, stream: int) -> Any:
    """Load the model onto the GPU."""
    options = runtime.SessionOptions()
    provider = {
        "device_id": str(device),
        "user_compute_stream": str(stream),
        "arena_extend_strategy": "kSameAsRequested",
        # A search for the fastest kernels would take time, and memory of its own, for each new shape.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    session = open_model(runtime, model, options, providers=[(CUDA_PROVIDER, provider)])
    # ONNX Runtime falls back to the CPU silently if CUDA or cuDNN does not load.
    if session.get_providers()[:1] != [CUDA_PROVIDER]:
        raise HostError("ONNX Runtime cannot start CUDA (CUDA or cuDNN does not load); see n2n-deploy doctor")
    return session
