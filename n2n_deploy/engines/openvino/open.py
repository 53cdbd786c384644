"""Open an OpenVINO session, where it gains much over ONNX Runtime's own kernels or the user asked for it."""

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.engines.engine import Request, check_int8, check_tolerance, onnx_model
from n2n_deploy.engines.openvino.run import OpenVinoSession
from n2n_deploy.engines.session import Session


def open_openvino(bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    """Open a session on the CPU, by default in bf16 if the processor multiplies it in hardware, else in fp32.

    Raises:
        HostError: the plugin is missing or does not support the processor, the bundle states no tolerance for the
            precision, or nobody asked for OpenVINO by name and it gains little.
        BundleError: the model is damaged or cannot be loaded.
    """
    precision = request.precision or default_precision()
    if not request.named and not multiplies_bfloat16():
        raise HostError("it gains little on a processor without AMX, such as this one; --engine openvino forces it")
    if not request.named and precision == "fp32":
        raise HostError("in fp32 it gains little and needs more memory; --engine openvino forces it")
    if precision == "int8":
        check_int8(bundle)
        return OpenVinoSession(onnx_model(bundle, "int8"), request.threads, "int8"), "int8"
    check_tolerance(bundle, precision)
    return OpenVinoSession(bundle.onnx("fp32"), request.threads, precision), precision


def default_precision() -> Precision:
    """Return the precision that OpenVINO is fastest in on this processor."""
    return "bf16" if multiplies_bfloat16() else "fp32"
