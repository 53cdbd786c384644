"""Open a session on a GPU: with an engine that the bundle ships, or one built here and kept in the cache."""

import hashlib
import importlib
from types import ModuleType

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.engine_facts import RTX_CAPABILITIES, EngineFacts, Flavour, Profile
from n2n_deploy.bundle.manifest import Precision
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.device.cuda import cuda_device, import_cupy
from n2n_deploy.device.gpus import GPU, driver
from n2n_deploy.engines.onnxruntime.run_cuda import OnnxRuntimeCudaSession
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tensorrt.build import BuildOptions, build_engine, tensorrt_module
from n2n_deploy.engines.tensorrt.cache import EngineCache, EngineKey
from n2n_deploy.engines.tensorrt.run import TensorRTSession
from n2n_deploy.imaging.fourier import SMALLEST

PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
"""In the order of preference on a GPU."""

NODE_PROFILES = (Profile(minimum=(1, 1, SMALLEST, SMALLEST), optimum=(1, 1, 1512, 2128), maximum=(1, 1, 2560, 2560)),)
"""What a node builds for itself, not knowing what will come: a K3 micrograph at 4.5 Å is 1512×2128; larger ones go
through in exact tiles."""


def find_gpu(index: int) -> GPU:
    """Return a GPU of this machine.

    Raises:
        HostError: there is none, or not as many.
    """
    found = driver()
    if found.problem is not None:
        raise HostError(found.problem)
    if index >= len(found.gpus):
        raise HostError(f"there is no GPU {index}: this process may use {len(found.gpus)}, counted from 0")
    return found.gpus[index]


def check_gpu(flavour: Flavour, gpu: GPU) -> None:
    """Refuse a GPU that a library has no kernels for.

    Raises:
        HostError: it is one of those.
    """
    if flavour == "rtx" and gpu.capability not in RTX_CAPABILITIES:
        raise HostError(
            f"TensorRT for RTX runs on compute capabilities {', '.join(RTX_CAPABILITIES)}, and {gpu.name} has "
            f"{gpu.capability}; pip install 'n2n-deploy[tensorrt]'"
        )


def shipped(bundle: Bundle, flavour: Flavour, version: str, gpu: GPU) -> tuple[list[EngineFacts], dict[str, str]]:
    """Return the bundle's engines that run here, the preferred precision first, and why each other does not.

    Args:
        bundle: the bundle.
        flavour: of the library.
        version: of the library.
        gpu: the GPU.
    """
    fitting, others = [], {}
    for key, facts in bundle.manifest.engines.items():
        obstacle = facts.obstacle(flavour, version, gpu.capability)
        if obstacle is None:
            fitting.append(facts)
        else:
            others[key] = obstacle
    return sorted(fitting, key=lambda facts: PRECISIONS.index(facts.precision)), others


def open_tensorrt(
    bundle: Bundle, flavour: Flavour, device: int, precision: Precision | None
) -> tuple[Session, Precision]:
    """Open a session of TensorRT, or TensorRT for RTX, on a GPU.

    An engine of the bundle is taken where one fits. Otherwise one is built from the bundle's ONNX model, once on
    this node.

    Args:
        bundle: the bundle; its members are checked before the library sees them.
        flavour: which library.
        device: index of the GPU.
        precision: None for the best there is.

    Raises:
        HostError: the library, CuPy or the GPU is missing or does not go with the others, or no engine can be built.
        BundleError: a member is damaged.
    """
    gpu = find_gpu(device)
    check_gpu(flavour, gpu)
    module = tensorrt_module(flavour)
    import_cupy()
    cache = EngineCache()
    fitting, _ = shipped(bundle, flavour, module.__version__, gpu)
    for facts in fitting:
        if precision in (None, facts.precision):
            return _session(module, bundle, facts, device, cache), facts.precision
    wanted = precision or "fp16"
    with cuda_device(device).current():  # TensorRT builds for the current one
        engine, facts = _built(bundle, module, flavour, gpu, wanted, cache)
    return _open(module, engine, facts, device, cache), wanted


def open_lean(bundle: Bundle, device: int, precision: Precision | None) -> tuple[Session, Precision]:
    """Open a version-compatible engine of the bundle with TensorRT's lean runtime, which cannot build any.

    Raises:
        HostError: the runtime, CuPy or the GPU is missing, or the bundle has no such engine for it.
    """
    gpu = find_gpu(device)
    try:
        module = importlib.import_module("tensorrt_lean")
    except (ImportError, OSError) as error:
        raise HostError(
            f"the library tensorrt_lean is not usable here ({error}); pip install tensorrt-lean-cu13"
        ) from error
    import_cupy()
    fitting, _ = shipped(bundle, "tensorrt", module.__version__, gpu)
    for facts in fitting:
        if facts.version_compatible and precision in (None, facts.precision):
            return _session(module, bundle, facts, device, EngineCache()), facts.precision
    raise HostError("the bundle has no portable engine for this GPU; n2n-deploy compile --target tensorrt --portable")


def open_onnxruntime_cuda(bundle: Bundle, device: int, precision: Precision | None) -> tuple[Session, Precision]:
    """Open the bundle's ONNX model with ONNX Runtime on a GPU.

    Raises:
        HostError: ONNX Runtime's CUDA provider, CuPy or the GPU is missing.
    """
    find_gpu(device)
    wanted = precision or "fp16"
    return OnnxRuntimeCudaSession(_graph(bundle, wanted), device=device), wanted


def _graph(bundle: Bundle, precision: Precision) -> bytes:
    """The ONNX model to build from or to run.

    Raises:
        HostError: the bundle has none in this precision.
    """
    if f"model.{precision}.onnx" not in bundle.manifest.members:
        raise HostError(f"the bundle has no {precision} model; n2n-deploy compile --precision {precision} adds one")
    return bundle.onnx(precision)


def _session(
    module: ModuleType, bundle: Bundle, facts: EngineFacts, device: int, cache: EngineCache
) -> TensorRTSession:
    """A session with an engine that the bundle ships."""
    return _open(module, bundle.read(bundle.manifest.engine_member(facts.key)), facts, device, cache)


def _open(module: ModuleType, engine: bytes, facts: EngineFacts, device: int, cache: EngineCache) -> TensorRTSession:
    """A session with an engine; TensorRT for RTX finds the kernels that an earlier start compiled for this GPU."""
    kernels = None
    if facts.flavour == "rtx":
        gpu = find_gpu(device)
        kernels = cache.kernels(engine, f"{module.__version__} {gpu.name} {gpu.capability}")
    return TensorRTSession(module, engine, facts, device=device, kernels=kernels)


def _built(
    bundle: Bundle, module: ModuleType, flavour: Flavour, gpu: GPU, precision: Precision, cache: EngineCache
) -> tuple[bytes, EngineFacts]:
    """An engine built on this node, now or earlier."""
    graph = _graph(bundle, precision)
    key = EngineKey(
        hashlib.sha256(graph).hexdigest(),
        flavour,
        module.__version__,
        f"{gpu.name} {gpu.capability}",
        precision,
        NODE_PROFILES,
    )
    capabilities = (gpu.capability,) if flavour == "rtx" else ()
    options = BuildOptions(flavour, precision, NODE_PROFILES, capabilities)
    try:
        engine = cache.get(key, lambda: build_engine(graph, options)[0])
    except UsageError as error:  # nobody here asked for what the library refuses
        raise HostError(str(error)) from error
    facts = EngineFacts(
        flavour=flavour,
        precision=precision,
        tensorrt_version=module.__version__,
        compute_capabilities=(gpu.capability,),
        hardware="listed" if flavour == "rtx" else "none",
        profiles=NODE_PROFILES,
    )
    return engine, facts
