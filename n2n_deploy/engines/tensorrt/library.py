"""The libraries of the TensorRT family: `tensorrt`, its lean runtime, and TensorRT for RTX."""

import importlib
from types import ModuleType
from typing import Any

from n2n_deploy.bundle.engine_facts import RTX_CAPABILITIES, TensorRTLibrary
from n2n_deploy.core.errors import HostError
from n2n_deploy.device.gpus import GPU

MODULES: dict[TensorRTLibrary, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
OLDEST: dict[TensorRTLibrary, tuple[int, int]] = {"tensorrt": (10, 12), "rtx": (1, 0)}


def import_tensorrt(library: TensorRTLibrary) -> ModuleType:
    """Import TensorRT or TensorRT for RTX.

    Raises:
        HostError: it is not installed, cannot be loaded, or is too old.
    """
    module = _import(MODULES[library], f"'n2n-deploy[{library}]'")
    version = tuple(int(part) for part in module.__version__.split(".")[:2])
    if version < OLDEST[library]:
        oldest = ".".join(map(str, OLDEST[library]))
        raise HostError(f"{module.__name__} {module.__version__} is too old; update it to {oldest} or later")
    return module


def import_lean() -> ModuleType:
    """Import TensorRT's lean runtime, which runs version-compatible engines and builds none.

    Raises:
        HostError: it is not installed, or cannot be loaded.
    """
    return _import("tensorrt_lean", "tensorrt-lean-cu13")


def check_gpu(library: TensorRTLibrary, gpu: GPU) -> None:
    """Refuse a GPU that a library has no kernels for.

    Raises:
        HostError: it has none for this GPU.
    """
    if library == "rtx" and gpu.capability not in RTX_CAPABILITIES:
        raise HostError(
            f"TensorRT for RTX runs on compute capabilities {', '.join(RTX_CAPABILITIES)}, and {gpu.name} has "
            f"{gpu.capability}; pip install 'n2n-deploy[tensorrt]'"
        )


def make_logger(trt: ModuleType) -> Any:
    """Return a logger for a TensorRT library: it prints nothing and keeps errors in its list `errors`."""

    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.Severity.ERROR or severity == trt.ILogger.Severity.INTERNAL_ERROR:
                self.errors.append(message)

    return Logger()


def last_error(logger: Any) -> str:
    """Return the last error that a library told its logger, on one line."""
    return " ".join(logger.errors[-1].split()) if logger.errors else "no reason given"


def _import(name: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise HostError(f"the library {name} cannot be loaded ({error}); pip install {distribution}") from error
