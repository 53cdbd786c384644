"""Open a TensorRT session: with an engine that the bundle ships, or one built on this node and kept in its cache."""

import hashlib
from types import ModuleType

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.engine_facts import EngineFacts, Profile, TensorRTLibrary
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.cuda import cuda_device, import_cupy
from n2n_deploy.device.gpus import GPU, find_gpu
from n2n_deploy.engines.engine import Request, onnx_model
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tensorrt.build import BuildOptions, build_engine
from n2n_deploy.engines.tensorrt.cache import EngineCache, EngineKey
from n2n_deploy.engines.tensorrt.library import check_gpu, import_lean, import_tensorrt
from n2n_deploy.engines.tensorrt.run import TensorRTSession
from n2n_deploy.imaging.fourier import SMALLEST

PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
"""In the order of preference on a GPU."""

NODE_PROFILES = (Profile(minimum=(1, 1, SMALLEST, SMALLEST), optimum=(1, 1, 1512, 2128), maximum=(1, 1, 2560, 2560)),)
"""What a node builds an engine for, before it knows its micrographs: a K3 micrograph at 4.5 Å is 1512×2128; larger
ones run in exact tiles."""


def shipped_engines(
    bundle: Bundle, library: TensorRTLibrary, version: str, gpu: GPU
) -> tuple[list[EngineFacts], dict[str, str]]:
    """Return the bundle's engines that run here, the preferred precision first, and why each other one does not.

    Args:
        bundle: the bundle.
        library: that would run them.
        version: of the library.
        gpu: the GPU.

    Returns:
        The engines, and the reason for every other engine's key.
    """
    fitting, rejected = [], {}
    for key, facts in bundle.manifest.engines.items():
        obstacle = facts.obstacle(library, version, gpu.capability)
        if obstacle is None:
            fitting.append(facts)
        else:
            rejected[key] = obstacle
    return sorted(fitting, key=lambda facts: PRECISIONS.index(facts.precision)), rejected


def open_tensorrt(library: TensorRTLibrary, bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    """Open a session of TensorRT, or TensorRT for RTX, on a GPU.

    A matching engine of the bundle is used if there is one. Otherwise the engine is built from the bundle's ONNX
    model, once on this node.

    Args:
        library: which of the two.
        bundle: the bundle; its members are checked before the library sees them.
        request: the GPU and the precision, by default the best one available.

    Returns:
        The session and the precision it computes in.

    Raises:
        HostError: the library, CuPy or the GPU is missing, they do not match, or no engine can be built.
        BundleError: a member is damaged.
    """
    gpu = find_gpu(request.gpu)
    check_gpu(library, gpu)
    module = import_tensorrt(library)
    import_cupy()
    cache = EngineCache()
    fitting, _ = shipped_engines(bundle, library, module.__version__, gpu)
    for facts in fitting:
        if request.precision in (None, facts.precision):
            return _session(module, bundle.engine(facts.key), facts, gpu, cache), facts.precision
    precision = request.precision or "fp16"
    with cuda_device(gpu.index).current():  # TensorRT builds for the current one
        engine, facts = _build(bundle, module, library, gpu, precision, cache)
    return _session(module, engine, facts, gpu, cache), precision


def open_lean(bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    """Open a version-compatible engine of the bundle with TensorRT's lean runtime, which cannot build any.

    Returns:
        The session and the precision it computes in.

    Raises:
        HostError: the runtime, CuPy or the GPU is missing, or the bundle has no such engine for it.
        BundleError: the engine is damaged.
    """
    gpu = find_gpu(request.gpu)
    module = import_lean()
    import_cupy()
    fitting, _ = shipped_engines(bundle, "tensorrt", module.__version__, gpu)
    for facts in fitting:
        if facts.version_compatible and request.precision in (None, facts.precision):
            return _session(module, bundle.engine(facts.key), facts, gpu, EngineCache()), facts.precision
    raise HostError("the bundle has no portable engine for this GPU; n2n-deploy compile --target tensorrt --portable")


def _session(module: ModuleType, engine: bytes, facts: EngineFacts, gpu: GPU, cache: EngineCache) -> TensorRTSession:
    """A session with an engine; TensorRT for RTX finds the kernels that an earlier start compiled for this GPU."""
    kernels = None
    if facts.library == "rtx":
        kernels = cache.kernels(engine, f"{module.__version__} {gpu.name} {gpu.capability}")
    return TensorRTSession(module, engine, facts, device=gpu.index, kernels=kernels)


def _build(
    bundle: Bundle, module: ModuleType, library: TensorRTLibrary, gpu: GPU, precision: Precision, cache: EngineCache
) -> tuple[bytes, EngineFacts]:
    """An engine built on this node, now or earlier."""
    graph = onnx_model(bundle, precision)
    key = EngineKey(
        model=hashlib.sha256(graph).hexdigest(),
        library=library,
        version=module.__version__,
        gpu=f"{gpu.name} {gpu.capability}",
        precision=precision,
        profiles=NODE_PROFILES,
    )
    capabilities = (gpu.capability,) if library == "rtx" else ()
    options = BuildOptions(library, precision, NODE_PROFILES, capabilities)
    try:
        engine = cache.get(key, lambda: build_engine(graph, options)[0])
    except UsageError as error:  # the library refuses a build that no user asked for
        raise HostError(str(error)) from error
    facts = EngineFacts(
        library=library,
        precision=precision,
        tensorrt_version=module.__version__,
        compute_capabilities=(gpu.capability,),
        hardware="listed" if library == "rtx" else "none",
        profiles=NODE_PROFILES,
    )
    return engine, facts
