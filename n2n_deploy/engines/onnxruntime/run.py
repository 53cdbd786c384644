"""`OnnxRuntimeSession`: the network on the CPU, through ONNX Runtime."""

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import BundleError, HostError, N2NError, OutOfMemoryError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.host import HOST
from n2n_deploy.engines.onnxruntime.library import (
    bytes_per_pixel,
    first_line,
    import_onnxruntime,
    is_memory_error,
    open_model,
    thread_count,
    too_large,
)

# ONNX Runtime's arena takes memory in regions of powers of two, and no tensor spans two regions. Over 30 shapes and
# all presets its peak lay between 0.7 and 1.84 times the live tensors, depending on how the sizes happened to fit.
_ARENA = 2.0
_FIXED = 16 * 2**20  # the smallest regions, scratch memory of the threads


class OnnxRuntimeSession(Closing):
    """A network on the CPU; see `Session`. It runs one batch at a time, whichever threads call it.

    The session keeps its memory from one run to the next, which saves a third of the time. It frees the memory when it
    is closed, and before an image larger than any before: outgrown regions would otherwise add up.

    Args:
        model: bytes of an ONNX model as `n2n-deploy export` makes it.
        threads: CPU threads; by default all cores that this process may use.

    Raises:
        HostError: ONNX Runtime is not installed, or does not load.
        BundleError: the model cannot be loaded.
    """

    name = "onnxruntime-cpu"
    device = HOST

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        self.threads = thread_count(threads)
        self._model = model
        self._lock = threading.Lock()
        self._closed = False
        self._largest = 0
        self._session: Any = self._open()
        self._bytes_per_pixel = bytes_per_pixel(self._session)

    def run(self, batch: Array) -> NDArray[np.float32]:
        """Denoise (n, 1, height, width) float32, sides multiples of 8; same shape back.

        Raises:
            OutOfMemoryError: there is not enough memory.
            BundleError: ONNX Runtime cannot run the model on this shape.
        """
        with self._lock:
            return self._run(HOST.to_host(batch))

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._closed:
            raise HostError("the session is closed; open another")
        try:
            session = self._loaded(batch.shape)
            (output,) = session.run(None, {session.get_inputs()[0].name: batch})
        except OutOfMemoryError as error:
            raise self._too_large(batch.shape) from error
        except N2NError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            if is_memory_error(error):
                raise self._too_large(batch.shape) from error
            raise BundleError(f"ONNX Runtime cannot run the model on {batch.shape}: {first_line(error)}") from error
        return np.asarray(output, dtype=np.float32)

    def memory(self, shape: tuple[int, int]) -> int:
        """Peak bytes that `run` needs beyond its input for one image (height, width); an upper bound."""
        return int(_ARENA * self._bytes_per_pixel * shape[0] * shape[1]) + _FIXED

    def _too_large(self, shape: tuple[int, ...]) -> OutOfMemoryError:
        return too_large(shape, shape[0] * self.memory((shape[-2], shape[-1])))

    def close(self) -> None:
        """Free the network and all its memory."""
        self._closed = True
        self._session = None

    def _loaded(self, shape: tuple[int, ...]) -> Any:
        """The model, ready for a batch of this shape; loaded again for a larger one than any before."""
        size = math.prod(shape)
        if self._session is None or 0 < self._largest < size:
            self._session = None  # frees its memory before more is allocated
            self._session = self._open()
        self._largest = max(self._largest, size)
        return self._session

    def _open(self) -> Any:
        """Load the model into a fresh ONNX Runtime session."""
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Memory patterns would add one planned block to the regions that the first run of a shape took.
        options.enable_mem_pattern = False
        return open_model(runtime, self._model, options, providers=["CPUExecutionProvider"])
