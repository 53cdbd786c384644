"""`quantise`: the network in 8-bit integers, with ranges and cost measured on patches that training held out.

The graph is explicit: every tensor between two layers passes through QuantizeLinear and DequantizeLinear, uint8 with
the range that was seen, and weights are int8 with a scale for each feature map. Runtimes fuse these with the layers
between them. Because quantisation is pointwise, tiles with the network's halo stay exact.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from n2n_deploy.bundle.manifest import Deviation, Quantisation
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.select import deviation
from n2n_deploy.statistics.estimates import covariances, from_covariances, mean_covariances

LARGEST_LOSS = 0.01
"""Relative loss of recovered signal above which int8 is not offered."""

_FEWEST_PAIRS = 4
_GOLDEN_PATCHES = 2
# Engines round sums of products differently: a step of the last layers' 8 bits more or less, here and there.
_MARGIN = 2.0


@dataclass(frozen=True)
class Quantised:
    """An int8 network and what proves it.

    Attributes:
        model: input and output are float32, as of the fp32 model.
        facts: what it costs.
        tolerance: how far the golden outputs may lie from those of fp32.
        inputs: golden inputs, held-out patches (n, 1, side, side).
    """

    model: ModelProto
    facts: Quantisation
    tolerance: Deviation
    inputs: NDArray[np.float32]


def quantise(model: ModelProto, pairs: NDArray[np.float32]) -> Quantised | str:
    """Quantise a network, and measure what that costs.

    Half of the pairs give the ranges of all tensors (least and largest value), the other half measure the cost as the
    relative loss of the recovered signal, var(S) − E|D − S|² (see `n2n_deploy.statistics.estimates`). The noise of the
    pairs is the same in both precisions, so that a few patches suffice.

    Args:
        model: from `to_onnx`, float32.
        pairs: held-out pairs of noisy patches, (n, 2, side, side).

    Returns:
        The int8 network; or why it is not offered, as a clause.
    """
    if len(pairs) < _FEWEST_PAIRS:
        return (
            f"the checkpoint holds {len(pairs)} held-out pairs of patches to quantise from, {_FEWEST_PAIRS} are needed"
        )
    ranged, held = pairs[::2], pairs[1::2]
    quantised = with_ranges(model, np.concatenate(list(ranged)))
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        exact = _denoise(session, held)
    with OnnxRuntimeSession(quantised.SerializeToString()) as session:
        coarse = _denoise(session, held)
    before, after = (_recovered(held, denoised) for denoised in (exact, coarse))
    if before <= 0:
        return "the network recovers no signal from the held-out patches, so the cost of int8 cannot be measured"
    loss = 1 - after / before
    if loss > LARGEST_LOSS:
        return f"int8 would lose {loss:.1%} of the recovered signal, {LARGEST_LOSS:.0%} is allowed"
    found = deviation(coarse, exact)
    return Quantised(
        quantised,
        Quantisation(signal_loss=loss, input_range=_input_range(quantised)),
        Deviation(max=_MARGIN * found.max, rms=_MARGIN * found.rms),
        np.ascontiguousarray(held[:_GOLDEN_PATCHES, :1]),
    )


def _denoise(session: OnnxRuntimeSession, pairs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Both halves of each pair, denoised one by one."""
    return np.stack([[session.run(half[None, None])[0, 0] for half in pair] for pair in pairs])


def _recovered(noisy: NDArray[np.float32], denoised: NDArray[np.float32]) -> float:
    """Mean of var(S) − E|D − S|² over pairs (n, 2, side, side), in squared grey levels."""
    found = from_covariances(mean_covariances([covariances(*m, *d) for m, d in zip(noisy, denoised, strict=True)]))
    return float(found.recovered_signal_fraction * found.var_signal)


def with_ranges(model: ModelProto, patches: NDArray[np.float32]) -> ModelProto:
    """Quantise a model by ONNX Runtime's own tool.

    Args:
        model: from `to_onnx`, float32.
        patches: (n, side, side); the ranges are the least and the greatest value that each tensor takes on them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = model.graph.input[0].name

    class Patches(CalibrationDataReader):  # type: ignore[misc]
        """One patch at a time."""

        def __init__(self) -> None:
            self._left = iter(patches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            patch = next(self._left, None)
            return None if patch is None else {name: patch[None, None]}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, result = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # the tool would change a model in memory
        quantize_static(
            str(source),
            str(result),
            Patches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(result)
    quantised.ir_version = model.ir_version
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    # With it the memory of the fp32 model, which is an upper bound: no tensor is larger, and most are a quarter.
    helper.set_model_props(quantised, {entry.key: entry.value for entry in model.metadata_props})
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _input_range(model: ModelProto) -> tuple[float, float]:
    """The lowest and the highest input that the first QuantizeLinear represents."""
    name = model.graph.input[0].name
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == name)
    scale, zero = (float(weights[each]) for each in first.input[1:3])
    return -zero * scale, (np.iinfo(np.uint8).max - zero) * scale


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tool's advice to optimise the graph first, which is written as it should be."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
