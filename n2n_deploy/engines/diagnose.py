"""What this machine has to run a network with, what each engine would do with it, and a remedy for what is missing."""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.engine_facts import Flavour
from n2n_deploy.core.errors import HostError
from n2n_deploy.device.cuda import import_cupy
from n2n_deploy.device.gpus import driver
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.engines.gpu_sessions import check_gpu, find_gpu, shipped
from n2n_deploy.engines.onnxruntime.run import import_onnxruntime
from n2n_deploy.engines.onnxruntime.run_cuda import import_runtime
from n2n_deploy.engines.openvino.run import find_plugin
from n2n_deploy.engines.select import ENGINES, check_tolerance
from n2n_deploy.engines.tensorrt.build import tensorrt_module

LIBRARIES = {
    "numpy": ("numpy", ""),
    "scipy": ("scipy", ""),
    "onnxruntime": ("onnxruntime", "cpu"),
    "onnxruntime-gpu": ("onnxruntime", "gpu"),
    "onnxruntime-ep-openvino": ("", "openvino"),
    "cupy-cuda13x": ("cupy", "gpu"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt-lean-cu13": ("tensorrt_lean", ""),
    "tensorrt_rtx": ("tensorrt_rtx", "rtx"),
    "cryptography": ("cryptography", "sign"),
    "torch": ("", "train"),
    "onnx": ("", "export"),
}
"""Distribution → the module to import (empty: not worth the time) and the extra that brings it."""

DRIVER_REMEDY = (
    "install NVIDIA's driver, 580 or later for CUDA 13, or start on a node or in a container that has it; "
    "without a GPU use --device cpu"
)


@dataclass(frozen=True, slots=True)
class Library:
    """One library: its version here, or how to get it, and what is wrong with it."""

    name: str
    version: str | None
    problem: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would become of one engine here.

    Attributes:
        engine: its name.
        works: whether everything it needs is there.
        says: what it would do, or what it lacks and how to get it.
    """

    engine: str
    works: bool
    says: str


def libraries() -> list[Library]:
    """Look at every library that some engine or command needs."""
    found = []
    for name, (module, extra) in LIBRARIES.items():
        brings = f"pip install 'n2n-deploy[{extra}]'" if extra else f"pip install {name}"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Library(name, None, "not installed", brings))
            continue
        problem = None
        try:
            if module:
                importlib.import_module(module)
        except (ImportError, OSError) as error:
            problem = f"does not load: {error}"
        found.append(Library(name, version, problem, f"{brings} --force-reinstall" if problem else None))
    return found


def prospects(bundle: Bundle | None = None) -> list[Prospect]:
    """Say for each engine, the fastest first, what it would do on this machine with a bundle."""
    checks: dict[str, Callable[[], str]] = {
        "tensorrt": lambda: _tensorrt("tensorrt", bundle),
        "rtx": lambda: _tensorrt("rtx", bundle),
        "tensorrt-lean": lambda: _lean(bundle),
        "onnxruntime-cuda": _onnxruntime_cuda,
        "openvino": lambda: _openvino(bundle),
        "onnxruntime-cpu": _onnxruntime_cpu,
    }
    found = []
    for engine in ENGINES:
        try:
            if engine.gpu and driver().problem is not None:
                raise HostError("needs a GPU with its driver (see there); without one use --device cpu")
            found.append(Prospect(engine.name, True, checks[engine.name]()))
        except HostError as error:
            found.append(Prospect(engine.name, False, str(error)))
    return found


def _tensorrt(flavour: Flavour, bundle: Bundle | None) -> str:
    gpu = find_gpu(0)
    check_gpu(flavour, gpu)
    module = tensorrt_module(flavour)
    import_cupy()
    if bundle is None:
        return "runs an engine of the bundle that fits, or builds one from its ONNX model, once on this node"
    fitting, others = shipped(bundle, flavour, module.__version__, gpu)
    if fitting:
        return f"runs {fitting[0].key} of the bundle on {gpu.name}"
    why = "; ".join(f"{key}: {reason}" for key, reason in others.items()) or "the bundle has no engines"
    return f"builds an engine for {gpu.name} from the ONNX model, once on this node ({why})"


def _lean(bundle: Bundle | None) -> str:
    try:
        module = importlib.import_module("tensorrt_lean")
    except (ImportError, OSError) as error:
        raise HostError(f"the lean runtime is not usable ({error}); pip install tensorrt-lean-cu13") from error
    import_cupy()
    if bundle is None:
        return "runs a portable engine of the bundle"
    fitting, _ = shipped(bundle, "tensorrt", module.__version__, find_gpu(0))
    portable = [facts for facts in fitting if facts.version_compatible]
    if not portable:
        raise HostError("the bundle has no portable engine for this GPU; n2n-deploy compile --portable makes one")
    return f"runs {portable[0].key} of the bundle"


def _onnxruntime_cuda() -> str:
    import_cupy()
    return f"runs the ONNX model in fp16 with ONNX Runtime {import_runtime().__version__} on the GPU"


def _openvino(bundle: Bundle | None) -> str:
    fast = multiplies_bfloat16()
    use = (
        "this processor has AMX, with which it is several times faster than ONNX Runtime's own kernels"
        if fast
        else "without AMX, which this processor lacks, it is hardly faster than ONNX Runtime's own kernels"
    )
    try:
        version = find_plugin()
    except HostError as error:
        raise HostError(f"{error} ({use})") from error
    if bundle is not None:
        check_tolerance(bundle, "bf16" if fast else "fp32")
    if fast:
        return f"runs the ONNX model in bf16 with OpenVINO, plugin {version}, on the CPU ({use})"
    return f"with --engine openvino runs the ONNX model in fp32 with OpenVINO, plugin {version}, on the CPU ({use})"


def _onnxruntime_cpu() -> str:
    return f"runs the ONNX model in fp32 with ONNX Runtime {import_onnxruntime().__version__} on the CPU"
