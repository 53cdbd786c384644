"""OpenVINO as a plugin of ONNX Runtime: loading it, and the processor as it knows it."""

import threading
from functools import cache
from types import ModuleType
from typing import Any

from n2n_deploy.core.errors import HostError
from n2n_deploy.engines.onnxruntime.library import first_line, import_onnxruntime

PROVIDER = "OpenVINOExecutionProvider"

_registering = threading.Lock()


def plugin_version() -> str:
    """Return the version of OpenVINO's plugin, and load it into this process.

    Raises:
        HostError: it is not installed, does not load, or does not support this processor.
    """
    return str(find_processor(import_onnxruntime()).ep_metadata["version"])


def find_processor(runtime: ModuleType) -> Any:
    """Return the CPU among the devices that ONNX Runtime lists for its OpenVINO plugin.

    Raises:
        HostError: the plugin is not installed, does not load, or does not support this processor.
    """
    with _registering:
        _register(runtime)
    for device in runtime.get_ep_devices():
        if device.ep_name == PROVIDER and device.device.type == runtime.OrtHardwareDeviceType.CPU:
            return device
    raise HostError("ONNX Runtime's OpenVINO plugin does not support this processor; it supports Intel's only")


@cache
def _register(runtime: ModuleType) -> None:
    """Load the plugin into this process; ONNX Runtime refuses a second time."""
    try:
        import onnxruntime_ep_openvino as plugin

        runtime.register_execution_provider_library("n2n-deploy openvino", plugin.get_library_path())
    except (ImportError, OSError) as error:
        raise HostError(
            f"ONNX Runtime's OpenVINO plugin cannot be imported ({first_line(error)}); "
            "pip install 'n2n-deploy[openvino]'"
        ) from error
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise HostError(
            f"ONNX Runtime {runtime.__version__} cannot load its OpenVINO plugin, which needs 1.23 or later: "
            f"{first_line(error)}"
        ) from error
