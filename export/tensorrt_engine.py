"""Compile a bundle's model: build TensorRT engines from its graphs and add them to the bundle."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.engine_facts import EngineFacts, Profile, TensorRTLibrary
from n2n_deploy.bundle.manifest import Deviation
from n2n_deploy.bundle.members import engine_member, onnx_member
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.options import Precision
from n2n_deploy.engines.tensorrt.build import BuildOptions, build_engine
from n2n_deploy.export.parity import TOLERANCE
from n2n_deploy.export.tensorrt_graph import check_limits, to_bfloat16


@dataclass(frozen=True)
class Compiled:
    """An engine that was added to a bundle.

    Attributes:
        key: its name there.
        facts: what it was built for.
        size: in bytes.
    """

    key: str
    facts: EngineFacts
    size: int


def compile_bundle(
    bundle: Bundle,
    library: TensorRTLibrary,
    precisions: Iterable[Precision],
    profiles: tuple[Profile, ...],
    *,
    compute_capabilities: tuple[str, ...] = (),
    portable: bool = False,
    timing_cache: Path | None = None,
    optimization_level: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Compiled]:
    """Build an engine for each precision and rewrite the bundle, atomically, with all of them.

    An engine of the same key is replaced; others stay. The signature is dropped; sign the bundle again. The bf16 graph
    is made from the fp32 one and added to the bundle, for nodes that build their own engine.

    Args:
        bundle: an open bundle.
        library: TensorRT or TensorRT for RTX.
        precisions: of the graphs to build from.
        profiles: the shapes to build for.
        compute_capabilities: TensorRT for RTX: the GPUs to build for.
        portable: TensorRT: for every GPU from Ampere on and later versions of TensorRT.
        timing_cache: TensorRT: file with timings from earlier builds.
        optimization_level: 0 to 5; None for the library's default.
        progress: called with each precision before its engine is built.

    Returns:
        The engines, in the order of `precisions`.

    Raises:
        UsageError: the library cannot build these engines.
        HostError: the library or its GPU is missing.
        BundleError: the bundle is damaged, or would become too large.
    """
    members: dict[str, bytes] = {}
    facts: dict[str, Any] = {}
    compiled = []
    for precision in precisions:
        progress(precision)
        graph, member = _graph(bundle, precision)
        check_limits(onnx.load_from_string(graph), profiles, library)
        options = BuildOptions(
            library,
            precision,
            profiles,
            compute_capabilities,
            portable,
            timing_cache,
            optimization_level,
        )
        engine, built = build_engine(graph, options)
        members |= {**member, engine_member(built.key): engine}
        facts[built.key] = built.model_dump(mode="json")
        compiled.append(Compiled(built.key, built, len(engine)))
    old = {key: known.model_dump(mode="json") for key, known in bundle.manifest.engines.items()}
    extend_bundle(bundle, members, facts={"engines": old | facts, "tolerance": _tolerance(bundle)})
    return compiled


def _graph(bundle: Bundle, precision: Precision) -> tuple[bytes, dict[str, bytes]]:
    """Return the ONNX model of a precision, and the member to add if the bundle does not have it yet."""
    name = onnx_member(precision)
    if name in bundle.manifest.members or precision != "bf16":
        return bundle.onnx(precision), {}
    graph = to_bfloat16(onnx.load_from_string(bundle.onnx("fp32"))).SerializeToString()
    return graph, {name: graph}


def _tolerance(bundle: Bundle) -> dict[str, Any]:
    """Return the bundle's tolerances, with one for bf16, which older bundles lack."""
    known: dict[Precision, Deviation] = {"bf16": TOLERANCE["bf16"], **bundle.manifest.tolerance}
    return {precision: deviation.model_dump() for precision, deviation in known.items()}
