"""`OpenVinoSession`: the network on the CPU through OpenVINO, as a plugin of ONNX Runtime."""

import json
from typing import Any

from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
from n2n_deploy.engines.onnxruntime.library import import_onnxruntime, open_model
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.openvino.library import find_processor

_HINTS: dict[Precision, str] = {"bf16": "bf16", "fp32": "f32", "int8": "f32"}
"""What OpenVINO computes in where the graph does not say int8."""

# Of the live tensors: over 5 shapes and all presets OpenVINO's memory was at most 1.08 of them, and 70 MB.
_ARENA = 1.15
_FIXED = 96 * 2**20

_FIRST_SHAPE = (1, 1, 64, 64)


class OpenVinoSession(OnnxRuntimeSession):
    """A network on the CPU; see `Session`. It runs one batch at a time, whichever threads call it.

    The model is compiled for one shape at a time, which takes half a second for each change of shape. Compiled for all
    shapes at once it runs at half the speed and takes twice the memory.

    Args:
        model: bytes of a float32 ONNX model, or for int8 of a quantised one, as `n2n-deploy export` makes it.
        threads: CPU threads; by default all cores that this process may use.
        precision: to compute in; bf16 is much faster on processors that multiply it in hardware.

    Raises:
        HostError: ONNX Runtime or its OpenVINO plugin is not installed, or the plugin does not support the processor or
            the precision.
        BundleError: the model cannot be loaded.
    """

    name = "openvino"

    def __init__(self, model: bytes, threads: int | None = None, precision: Precision = "bf16") -> None:
        if precision not in _HINTS:
            raise HostError(f"OpenVINO runs the network in {', '.join(_HINTS)} on the CPU, not in {precision}")
        self._precision = precision
        self._shape: tuple[int, ...] = _FIRST_SHAPE
        super().__init__(model, threads)

    def memory(self, shape: tuple[int, int]) -> int:
        """Peak bytes that `run` needs beyond its input for one image (height, width); an upper bound."""
        live = self._bytes_per_pixel / (2 if self._precision == "bf16" else 1)
        return int(_ARENA * live * shape[0] * shape[1]) + _FIXED

    def _loaded(self, shape: tuple[int, ...]) -> Any:
        if self._session is None or shape != self._shape:
            self._session = None  # frees its memory before more is allocated
            self._shape = shape
            self._session = self._open()
        return self._session

    def _open(self) -> Any:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        batch, _, height, width = self._shape
        for name, length in {"batch": batch, "height": height, "width": width}.items():
            options.add_free_dimension_override_by_name(name, length)
        # ONNX Runtime would run what the plugin does not support on its own kernels, slowly and silently.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,  # processes side by side would pin their threads to the same cores
        }
        options.add_provider_for_devices([find_processor(runtime)], {"load_config": json.dumps({"CPU": settings})})
        return open_model(runtime, self._model, options)
