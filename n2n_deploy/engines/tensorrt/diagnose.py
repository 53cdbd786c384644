"""What the engines of the TensorRT family would do on this machine."""

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.engine_facts import TensorRTLibrary
from n2n_deploy.core.errors import HostError
from n2n_deploy.device.cuda import import_cupy
from n2n_deploy.device.gpus import find_gpu
from n2n_deploy.engines.tensorrt.library import check_gpu, import_lean, import_tensorrt
from n2n_deploy.engines.tensorrt.open import shipped_engines


def diagnose_tensorrt(library: TensorRTLibrary, bundle: Bundle | None) -> str:
    """Say whether TensorRT, or TensorRT for RTX, would run an engine of the bundle or build one.

    Raises:
        HostError: the library, CuPy or a GPU that it supports is missing.
    """
    gpu = find_gpu(0)
    check_gpu(library, gpu)
    module = import_tensorrt(library)
    import_cupy()
    if bundle is None:
        return "runs a matching engine of the bundle, or builds one from its ONNX model, once on this node"
    fitting, rejected = shipped_engines(bundle, library, module.__version__, gpu)
    if fitting:
        return f"runs {fitting[0].key} of the bundle on {gpu.name}"
    reasons = "; ".join(f"{key}: {reason}" for key, reason in rejected.items()) or "the bundle has no engines"
    return f"builds an engine for {gpu.name} from the ONNX model, once on this node ({reasons})"


def diagnose_lean(bundle: Bundle | None) -> str:
    """Say which engine of the bundle TensorRT's lean runtime would run.

    Raises:
        HostError: the runtime or CuPy is missing, or the bundle has no portable engine for this GPU.
    """
    module = import_lean()
    import_cupy()
    if bundle is None:
        return "runs a portable engine of the bundle"
    fitting, _ = shipped_engines(bundle, "tensorrt", module.__version__, find_gpu(0))
    portable = [facts for facts in fitting if facts.version_compatible]
    if not portable:
        raise HostError("the bundle has no portable engine for this GPU; n2n-deploy compile --portable adds one")
    return f"runs {portable[0].key} of the bundle"
