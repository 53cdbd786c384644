"""Build a TensorRT engine from an ONNX graph: one builder over the module `tensorrt` or `tensorrt_rtx`.

It needs no library but that module, so that a node can build an engine that its bundle does not have. The precision is
that of the graph: networks are strongly typed, the only kind that TensorRT 11 supports.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from n2n_deploy.bundle.engine_facts import (
    RTX_CAPABILITIES,
    EngineFacts,
    Hardware,
    Profile,
    TensorRTLibrary,
    header_capabilities,
    header_version,
)
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.gpus import gpus
from n2n_deploy.engines.tensorrt.library import import_tensorrt, last_error, make_logger
from n2n_deploy.files.atomic import atomic_write

_NO_DRIVER = "needs the NVIDIA driver, which is not installed"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What to build.

    Attributes:
        library: TensorRT builds for the GPU of this machine; TensorRT for RTX for any, without one.
        precision: of the graph, for the record.
        profiles: shapes that the engine accepts.
        compute_capabilities: of the GPUs to build for; TensorRT for RTX only.
        portable: TensorRT only: run on every GPU from Ampere on, and with later versions of TensorRT.
        timing_cache: file that keeps the timings of kernels from one build to the next; TensorRT only.
        optimization_level: 0 to 5, how long TensorRT may search; None for its default.
    """

    library: TensorRTLibrary
    precision: Precision
    profiles: tuple[Profile, ...]
    compute_capabilities: tuple[str, ...] = ()
    portable: bool = False
    timing_cache: Path | None = None
    optimization_level: int | None = None


def build_engine(graph: bytes, options: BuildOptions) -> tuple[bytes, EngineFacts]:
    """Build an engine.

    Args:
        graph: an ONNX model with one input, (n, 1, h, w) float32.
        options: what to build.

    Returns:
        The serialised engine, and its facts, read back where possible.

    Raises:
        HostError: the library is missing, or needs a GPU and finds none.
        UsageError: the library refuses the graph, a profile or a compute capability.
    """
    trt = import_tensorrt(options.library)
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:
        raise HostError(
            f"{trt.__name__} {trt.__version__} builds for the GPU of this machine and finds none: compile on "
            f"the node that will use the engine, or with --target rtx ({last_error(logger)})"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise UsageError(f"{trt.__name__} {trt.__version__} refuses the graph: {errors}; export it again")
    config = _configure(trt, builder, network, options)
    cache = _timing_cache(config, options)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise UsageError(
            f"{trt.__name__} {trt.__version__} cannot build the {options.precision} engine: {last_error(logger)}"
        )
    if cache is not None and options.timing_cache is not None:
        with atomic_write(options.timing_cache) as file:
            file.write(bytes(cache.serialize()))
    engine = bytes(serialized)
    return engine, _facts(trt, logger, engine, network, options)


def _configure(trt: ModuleType, builder: Any, network: Any, options: BuildOptions) -> Any:
    """Set profiles, targets and flags."""
    config = builder.create_builder_config()
    for wanted in options.profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, wanted.minimum, wanted.optimum, wanted.maximum)
        if config.add_optimization_profile(profile) < 0:
            raise UsageError(f"{trt.__name__} refuses the profile {wanted.minimum} to {wanted.maximum}")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.precision == "fp32":
        # TF32 would round every product to 10 bits, which is not what fp32 means.
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.library == "rtx":
        _target_capabilities(trt, config, options.compute_capabilities)
    elif options.portable:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    return config


def _target_capabilities(trt: ModuleType, config: Any, capabilities: Iterable[str]) -> None:
    """Set the GPUs that an engine of TensorRT for RTX will run on."""
    members = trt.ComputeCapability.__members__
    wanted = list(capabilities) or ["8.0", "8.6", "8.9", "12.0"]
    for capability in wanted:
        if "SM" + capability.replace(".", "") not in members:
            known = ", ".join(name for name in RTX_CAPABILITIES if "SM" + name.replace(".", "") in members)
            raise UsageError(
                f"TensorRT for RTX {trt.__version__} builds for compute capabilities {known}, not "
                f"{capability}; for other GPUs, such as the H100 (9.0), use --target tensorrt on the node"
            )
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        config.set_compute_capability(members["SM" + capability.replace(".", "")], index)


def _timing_cache(config: Any, options: BuildOptions) -> Any:
    """Attach the timing cache, if any; TensorRT for RTX chooses kernels at run time and has none."""
    if options.timing_cache is None or options.library == "rtx":
        return None
    old = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
    cache = config.create_timing_cache(old)
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _facts(trt: ModuleType, logger: Any, engine: bytes, network: Any, options: BuildOptions) -> EngineFacts:
    """Read back what was built: from the engine's header and, with a driver, from the engine itself."""
    read: dict[str, Any] = {}
    if (version := header_version(engine)) is not None:
        read["tensorrt_version"] = version
    if (capabilities := header_capabilities(engine)) is not None:
        read["compute_capabilities"] = capabilities
    # Without a driver the library cannot load an engine and prints to standard error.
    devices = gpus()
    loaded = None
    if devices:
        runtime = trt.Runtime(logger)
        if options.library == "tensorrt" and options.portable:
            runtime.engine_host_code_allowed = True  # it carries its own lean runtime, just built here
        loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is not None:
        read |= _read_engine(trt, loaded, options.library)
    given: dict[str, Any] = {
        "tensorrt_version": trt.__version__,
        "compute_capabilities": options.compute_capabilities or tuple(gpu.capability for gpu in devices[:1]),
        "hardware": _hardware(options),
        "version_compatible": options.portable and options.library == "tensorrt",
        "profiles": options.profiles,
        "layers": _layer_types(network),
        "activation_bytes": None,
    }
    if loaded is not None:
        reason = "the library has no call for it"
    else:
        reason = f"the engine does not load on this GPU ({last_error(logger)})" if devices else _NO_DRIVER
    return EngineFacts(
        library=options.library,
        precision=options.precision,
        **(given | read),
        read_back=tuple(sorted(read)),
        not_read_back={name: reason for name in given if name not in read},
    )


def _hardware(options: BuildOptions) -> Hardware:
    if options.library == "rtx":
        return "listed"
    return "ampere_plus" if options.portable else "none"


def _read_engine(trt: ModuleType, engine: Any, library: TensorRTLibrary) -> dict[str, Any]:
    """Read the facts of a deserialised engine."""
    name = engine.get_tensor_name(0)
    found: dict[str, Any] = {
        "profiles": tuple(
            Profile(minimum=low, optimum=best, maximum=high)
            for index in range(engine.num_optimization_profiles)
            for low, best, high in [map(tuple, engine.get_tensor_profile_shape(name, index))]
        ),
        "activation_bytes": int(engine.device_memory_size_v2),
    }
    if library == "tensorrt":
        found["hardware"] = engine.hardware_compatibility_level.name.lower()
    if types := _output_types(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)):
        found["layers"] = types
    return found


def _output_types(information: str) -> dict[str, int]:
    """Count an engine's layers per type of their outputs, from its inspector's text; empty if that states no types.

    Some releases write text that is not JSON, or only the layers' names.
    """
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    outputs = [output for layer in layers if isinstance(layer, dict) for output in layer.get("Outputs", [])]
    return dict(Counter(output["Format/Datatype"] for output in outputs if "Format/Datatype" in output))


def _layer_types(network: Any) -> dict[str, int]:
    """Count the layers of the strongly typed network per type of their first output."""
    types = Counter(
        network.get_layer(index).get_output(0).dtype.name.lower()
        for index in range(network.num_layers)
        if network.get_layer(index).num_outputs and network.get_layer(index).get_output(0) is not None
    )
    return {name: count for name, count in types.items() if not name.startswith("int")}
