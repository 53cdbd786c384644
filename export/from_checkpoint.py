"""`export_bundle`: from a checkpoint to a bundle that was checked, or an error."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from n2n_deploy.bundle.manifest import Manifest, ParityResult
from n2n_deploy.bundle.members import GOLDEN, GOLDEN_INT8, WEIGHTS, onnx_member, segment_member
from n2n_deploy.bundle.weights import pack_weights
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.recipe import RecipeRange
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.parity import TOLERANCE, check_parity, golden_vectors, reference
from n2n_deploy.export.quantise import Quantised, quantise
from n2n_deploy.export.segments import split
from n2n_deploy.train.checkpoint import load_model
from n2n_deploy.train.receptive_field import receptive_field


def export_bundle(checkpoint: Path, out: Path) -> Path:
    """Export the network of a checkpoint to a bundle, in int8 too if that loses little signal, and trainable.

    A network that was trained with several recipes says so in its summary: `accepts`, the fields of a `RecipeRange`.

    Args:
        checkpoint: `model.pt` as `n2n-deploy train` writes it.
        out: the bundle; written in one step, after all checks.

    Returns:
        `out`.

    Raises:
        DataError: the checkpoint cannot be read.
        BundleError: the ONNX models' outputs differ from PyTorch's; nothing is written.
        HostError: `out` cannot be written.
    """
    trained = load_model(checkpoint)
    facts = dict(trained.summary)
    accepts = facts.pop("accepts", None)
    network = trained.network()
    halo = receptive_field(network)
    metadata = {
        "preset": trained.preset,
        "recipe": trained.recipe.model_dump_json(),
        "receptive_field": str(halo),
    }
    members = {WEIGHTS: pack_weights({name: values.numpy() for name, values in trained.weights.items()})}
    parity: list[ParityResult] = []
    models: dict[str, ModelProto] = {}
    precisions: tuple[Literal["fp32"], Literal["fp16"]] = ("fp32", "fp16")
    for precision in precisions:
        model = models[precision] = to_onnx(network, precision, metadata)
        parity += check_parity(network, model, precision)
        members[onnx_member(precision)] = model.SerializeToString(deterministic=True)
        if precision == "fp32":
            members |= {
                segment_member(index): part.SerializeToString(deterministic=True)
                for index, part in enumerate(split(model))
            }
    quantised = quantise(models["fp32"], trained.pairs)
    members[GOLDEN] = _stored(*golden_vectors(network))
    tolerance = dict(TOLERANCE)
    if isinstance(quantised, Quantised):
        members[onnx_member("int8")] = quantised.model.SerializeToString(deterministic=True)
        members[GOLDEN_INT8] = _stored(quantised.inputs, reference(network, quantised.inputs))
        tolerance["int8"] = quantised.tolerance
    manifest = Manifest(
        preset=trained.preset,
        accepts=None if accepts is None else RecipeRange.model_validate(accepts),
        halo=halo,
        tolerance=tolerance,
        parity=tuple(parity),
        int8=quantised.facts if isinstance(quantised, Quantised) else None,
        int8_refused=quantised if isinstance(quantised, str) else None,
        training={"step": trained.step, **facts},
    )
    write_bundle(out, manifest, trained.recipe, members)
    return out


def _stored(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> bytes:
    """Golden vectors as a bundle holds them."""
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=outputs)
    return golden.getvalue()
