"""What OpenVINO would do on this machine."""

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.engines.engine import check_tolerance, offers_int8
from n2n_deploy.engines.openvino.library import plugin_version
from n2n_deploy.engines.openvino.open import default_precision

_GAIN = {
    "bf16": "this processor has AMX, with which it is several times faster than ONNX Runtime's own kernels",
    "fp32": "this processor lacks AMX, without which it is hardly faster than ONNX Runtime's own kernels",
}


def diagnose_openvino(bundle: Bundle | None) -> str:
    """Say whether OpenVINO would be chosen or must be named, and what it gains here.

    Raises:
        HostError: the plugin is missing or does not support the processor, or the bundle states no tolerance.
    """
    precision = default_precision()
    try:
        version = plugin_version()
    except HostError as error:
        raise HostError(f"{error} ({_GAIN[precision]})") from error
    if bundle is not None:
        check_tolerance(bundle, precision)
    if bundle is not None and precision == "bf16" and offers_int8(bundle):
        return f"runs the ONNX model in int8 with OpenVINO, plugin {version}, on the CPU ({_GAIN[precision]})"
    named = "" if precision == "bf16" else "with --engine openvino "
    return f"{named}runs the ONNX model in {precision} with OpenVINO, plugin {version}, on the CPU ({_GAIN[precision]})"
