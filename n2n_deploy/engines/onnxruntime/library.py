"""ONNX Runtime: importing it, opening its sessions, and what its exceptions mean."""

import contextlib
import io
import re
from types import ModuleType
from typing import Any

from n2n_deploy.core.errors import BundleError, HostError, OutOfMemoryError, UsageError
from n2n_deploy.device.processor import usable_cores

CUDA_PROVIDER = "CUDAExecutionProvider"

BYTES_PER_PIXEL = "bytes_per_pixel"
"""Key of the model's metadata that holds the bytes of its live tensors at the peak, per pixel of the input."""


def import_onnxruntime(extra: str = "cpu") -> ModuleType:
    """Import ONNX Runtime.

    Args:
        extra: of this package, which installs it.

    Raises:
        HostError: it is not installed, or does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise HostError(
            f"ONNX Runtime cannot be imported ({first_line(error)}); pip install 'n2n-deploy[{extra}]'"
        ) from error
    return onnxruntime  # type: ignore[no-any-return]


def import_onnxruntime_cuda() -> ModuleType:
    """Import ONNX Runtime with its CUDA provider.

    Raises:
        HostError: it is not installed, or built without CUDA.
    """
    onnxruntime = import_onnxruntime("gpu")
    if hasattr(onnxruntime, "preload_dlls"):
        # CUDA and cuDNN as pip installs them are on no search path. The function prints what is missing to standard
        # output, which is reserved for results; opening a session reports it.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise HostError(
            f"the installed ONNX Runtime {onnxruntime.__version__} is built without CUDA; pip uninstall onnxruntime, "
            "then pip install 'n2n-deploy[gpu]'"
        )
    return onnxruntime


def open_model(runtime: ModuleType, model: bytes, options: Any, **providers: Any) -> Any:
    """Open an ONNX Runtime session that logs errors only.

    Raises:
        OutOfMemoryError: there is not enough memory.
        BundleError: the model cannot be loaded.
    """
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(model, options, **providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        if is_memory_error(error):
            raise OutOfMemoryError(f"not enough memory to load the model ({first_line(error)}); free some") from error
        raise BundleError(f"ONNX Runtime cannot load the model: {first_line(error)}; export it again") from error


def bytes_per_pixel(session: Any) -> float:
    """Return the bytes of the model's live tensors at the peak, per pixel of the input, from its metadata.

    Raises:
        BundleError: the model does not state them.
    """
    try:
        return float(session.get_modelmeta().custom_metadata_map[BYTES_PER_PIXEL])
    except (KeyError, ValueError) as error:
        raise BundleError(f"the ONNX model does not state its {BYTES_PER_PIXEL}; export it again") from error


def thread_count(threads: int | None) -> int:
    """Return the CPU threads to use: `threads`, by default all cores that this process may use.

    Raises:
        UsageError: less than 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot run a network; give 1 or more")
    return threads or usable_cores()


def is_memory_error(error: Exception) -> bool:
    """Whether an exception of ONNX Runtime means that memory is short."""
    return isinstance(error, MemoryError) or re.search(r"\balloc|bad_alloc", str(error), re.IGNORECASE) is not None


def too_large(shape: tuple[int, ...], need: int) -> OutOfMemoryError:
    """Return the error of a network that does not get the memory it needs, in bytes, for a batch of this shape."""
    return OutOfMemoryError(
        f"not enough memory for {shape[-2]}×{shape[-1]} pixels at once ({need / 1e9:.1f} GB); "
        "set a lower --memory, so that they run in tiles, or free some"
    )


def first_line(error: BaseException) -> str:
    """Return the line of a message that says what is wrong: the first, or after OpenVINO's list of places the last."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "Exception from " in lines[0] else lines[0]
