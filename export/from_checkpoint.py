"""`export_bundle`: from a checkpoint to a bundle that was checked, or an error."""

import io
from pathlib import Path
from typing import Literal

import numpy as np

from n2n_deploy.bundle.manifest import Manifest, ParityResult
from n2n_deploy.bundle.members import GOLDEN, onnx_member, segment_member
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.parity import TOLERANCE, check_parity, golden_vectors
from n2n_deploy.export.segments import split
from n2n_deploy.train.checkpoint import load_model
from n2n_deploy.train.receptive_field import receptive_field


def export_bundle(checkpoint: Path, out: Path) -> Path:
    """Export the network of a checkpoint to a bundle.

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
    network = trained.network()
    halo = receptive_field(network)
    metadata = {
        "preset": trained.preset,
        "recipe": trained.recipe.model_dump_json(),
        "receptive_field": str(halo),
    }
    members: dict[str, bytes] = {}
    parity: list[ParityResult] = []
    precisions: tuple[Literal["fp32"], Literal["fp16"]] = ("fp32", "fp16")
    for precision in precisions:
        model = to_onnx(network, precision, metadata)
        parity += check_parity(network, model, precision)
        members[onnx_member(precision)] = model.SerializeToString(deterministic=True)
        if precision == "fp32":
            members |= {
                segment_member(index): part.SerializeToString(deterministic=True)
                for index, part in enumerate(split(model))
            }
    inputs, outputs = golden_vectors(network)
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=outputs)
    manifest = Manifest(
        preset=trained.preset,
        halo=halo,
        tolerance=TOLERANCE,
        parity=tuple(parity),
        training={"step": trained.step, **trained.summary},
    )
    write_bundle(out, manifest, trained.recipe, members | {GOLDEN: golden.getvalue()})
    return out
