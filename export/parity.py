"""Parity: ONNX Runtime must give the same outputs for the exported graph as PyTorch for the network."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from n2n_deploy.bundle.manifest import Deviation, ParityResult
from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.options import Precision
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.select import deviation

SHAPES = ((1, 1, 64, 64), (1, 1, 72, 136), (2, 1, 96, 48))
"""A square, another rectangle, and a batch of two; the golden vectors use the last."""

TOLERANCE: dict[Precision, Deviation] = {
    "fp32": Deviation(max=1e-3, rms=1e-4),
    "fp16": Deviation(max=1e-1, rms=1e-2),
    "bf16": Deviation(max=8e-1, rms=8e-2),
}
"""An order of magnitude above what networks of all presets show, below what is visible in a micrograph. bfloat16, with
8 bits of precision where float16 has 11, gave an rms of 0.01 to 0.015 in trained networks, and up to 0.05 in random
ones."""

_HALF = float(np.finfo(np.float16).max)
_HEADROOM = 8.0
_SEED = 20210101


def inputs(shape: Sequence[int]) -> NDArray[np.float32]:
    """Return a batch like normalised micrographs: noise and a coarser signal, mean 0 and std 1; always the same."""
    rng = np.random.default_rng(_SEED)
    signal = rng.standard_normal((shape[0], shape[1], shape[2] // 8, shape[3] // 8)).repeat(8, 2).repeat(8, 3)
    batch: NDArray[np.float64] = rng.standard_normal(shape) + 0.3 * signal
    batch -= batch.mean(axis=(2, 3), keepdims=True)
    batch /= batch.std(axis=(2, 3), keepdims=True)
    return batch.astype(np.float32)


def golden_vectors(network: nn.Module) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return inputs and PyTorch's outputs for them, both (n, 1, height, width) float32.

    Raises:
        BundleError: the outputs are constant or not finite; the network is untrained, or its training diverged.
    """
    batch = inputs(SHAPES[-1])
    outputs = reference(network, batch)
    if not np.isfinite(outputs).all() or outputs.std() < 1e-6:
        raise BundleError("the network's output is constant or not finite; check the loss curve and train again")
    return batch, outputs


def check_parity(network: nn.Module, model: ModelProto, precision: Literal["fp32", "fp16"]) -> tuple[ParityResult, ...]:
    """Compare ONNX Runtime's output of a model with PyTorch's of the network it was made from, on `SHAPES`.

    Args:
        network: float32, on the CPU.
        model: as `to_onnx` makes it.
        precision: of the model.

    Raises:
        BundleError: they differ by more than `TOLERANCE`, or activations come close to the largest float16.
    """
    if precision == "fp16":
        _check_range(network)
    results = []
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        for shape in SHAPES:
            batch = inputs(shape)
            found = deviation(session.run(batch), reference(network, batch))
            if not found.within(TOLERANCE[precision]):
                allowed = TOLERANCE[precision]
                raise BundleError(
                    f"the {precision} ONNX model differs from PyTorch on input {shape} by {found.max:.2g} (rms "
                    f"{found.rms:.2g}) standard deviations, {allowed.max:.2g} (rms {allowed.rms:.2g}) are allowed"
                )
            results.append(ParityResult(precision=precision, shape=shape, deviation=found))
    return tuple(results)


def reference(network: nn.Module, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return PyTorch's outputs for a batch (n, 1, height, width)."""
    with torch.inference_mode():
        output: NDArray[np.float32] = network.eval()(torch.from_numpy(batch)).numpy()
    return output


def _check_range(network: nn.Module) -> None:
    """Refuse float16 if an activation comes close to its largest number, which ONNX Runtime's CPU kernels hide."""
    largest: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def note(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            largest[name] = float(output.abs().max())

        return note

    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(watch(name)) for name, module in convolutions]
    try:
        reference(network, inputs(SHAPES[-1]))
    finally:
        for hook in hooks:
            hook.remove()
    layer = max(largest, key=lambda name: largest[name])
    if largest[layer] * _HEADROOM > _HALF:
        raise BundleError(
            f"layer {layer} reaches {largest[layer]:.3g}, too close to float16's largest number {_HALF:.0f}; the "
            "training has diverged, check the loss curve and train again"
        )
