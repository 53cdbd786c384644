"""Open an ONNX Runtime session: on the CPU with the runtime's own kernels, or on a GPU."""

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.gpus import find_gpu
from n2n_deploy.engines.engine import Request, check_int8, onnx_model
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.onnxruntime.run_cuda import OnnxRuntimeCudaSession
from n2n_deploy.engines.onnxruntime.run_segments import SegmentedSession
from n2n_deploy.engines.session import Session


def open_cpu(bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    """Open a session on the CPU, by default in fp32, which runs in segments if the bundle has them.

    Raises:
        HostError: ONNX Runtime is missing, another precision than fp32 and int8 is wanted, or int8 from a bundle that
            does not offer it or on a processor without VNNI.
        BundleError: a member is damaged or cannot be loaded.
    """
    if request.precision == "int8":
        check_int8(bundle)
        return OnnxRuntimeSession(onnx_model(bundle, "int8"), request.threads), "int8"
    if request.precision not in (None, "fp32"):
        raise HostError(
            f"on the CPU ONNX Runtime's own kernels run the network in fp32 or int8, not {request.precision}"
        )
    if segments := bundle.segments():
        return SegmentedSession(segments, request.threads), "fp32"
    return OnnxRuntimeSession(bundle.onnx("fp32"), request.threads), "fp32"


def open_cuda(bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    """Open a session on a GPU, by default in fp16.

    Raises:
        HostError: ONNX Runtime's CUDA provider, CuPy, the GPU or the model in this precision is missing.
        BundleError: the model is damaged or cannot be loaded.
    """
    gpu = find_gpu(request.gpu)
    precision = request.precision or "fp16"
    return OnnxRuntimeCudaSession(onnx_model(bundle, precision), device=gpu.index), precision
