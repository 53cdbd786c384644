"""What ONNX Runtime would do on this machine."""

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.device.cuda import import_cupy
from n2n_deploy.engines.engine import offers_int8
from n2n_deploy.engines.onnxruntime.library import import_onnxruntime, import_onnxruntime_cuda


def diagnose_cpu(bundle: Bundle | None) -> str:
    """Say how ONNX Runtime would run the network on the CPU.

    Raises:
        HostError: it is missing.
    """
    precision = "int8" if bundle is not None and offers_int8(bundle) else "fp32"
    return f"runs the ONNX model in {precision} with ONNX Runtime {import_onnxruntime().__version__} on the CPU"


def diagnose_cuda(_bundle: Bundle | None) -> str:
    """Say how ONNX Runtime would run the network on a GPU.

    Raises:
        HostError: its CUDA provider or CuPy is missing.
    """
    import_cupy()
    return f"runs the ONNX model in fp16 with ONNX Runtime {import_onnxruntime_cuda().__version__} on the GPU"
