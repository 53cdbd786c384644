"""A checkpoint becomes a bundle that states its contents and reproduces PyTorch, or nothing is written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import BundleError, DataError
from n2n_deploy.core.recipe import Recipe, RecipeRange
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.tiling import run_tiled
from n2n_deploy.export import export_bundle, parity
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.train.checkpoint import load_model, save_model
from n2n_deploy.train.config import TrainConfig

ON_A_NODE = """
import sys
for name in ("torch", "onnx", "onnxscript", "h5py"):
    sys.modules[name] = None
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.engines.select import choose_session
with choose_session(Bundle.open(sys.argv[1]), "cpu", threads=1).session as session:
    print(session.name)
"""


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("export") / "model.n2n"
    assert export_bundle(checkpoint, out) == out
    return Bundle.open(out)


def test_bundle_states_its_contents(bundle: Bundle) -> None:
    bundle.verify_members()
    manifest = bundle.manifest
    assert bundle.recipe == Recipe(max_resolution=8.0, phase_flip=False)
    assert bundle.accepts is None
    assert manifest.preset == "small"
    assert manifest.training == {"step": 70, "loss": 0.25, "minutes": 3}
    assert {result.precision for result in manifest.parity} == {"fp32", "fp16"}
    for precision in ("fp32", "fp16"):
        shapes = [result.shape for result in manifest.parity if result.precision == precision]
        assert len(set(shapes)) == 3
        assert any(height != width for _, _, height, width in shapes)
        assert any(count > 1 for count, *_ in shapes)
    assert all(result.deviation.within(manifest.tolerance[result.precision]) for result in manifest.parity)
    assert all(result.deviation.max > 0 for result in manifest.parity)


def test_a_range_of_recipes_travels_from_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    trained = load_model(checkpoint)
    accepts = RecipeRange(max_resolution=(4.0, 12.0), either_phase=True)
    summary = {"accepts": accepts.model_dump(mode="json"), "loss": 0.5}
    config = TrainConfig(preset="small", recipe=trained.recipe)
    save_model(tmp_path / "model.pt", trained.weights, config, 1, summary)
    bundle = Bundle.open(export_bundle(tmp_path / "model.pt", tmp_path / "model.n2n"))
    assert bundle.accepts == accepts
    assert bundle.manifest.training == {"step": 1, "loss": 0.5}


def test_models_carry_recipe_and_receptive_field(bundle: Bundle) -> None:
    for precision in ("fp32", "fp16"):
        model = onnx.load_from_string(bundle.onnx(precision))
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert Recipe.model_validate(json.loads(metadata["recipe"])) == bundle.recipe
        assert int(metadata["receptive_field"]) == bundle.manifest.halo
        assert metadata["preset"] == "small"


def test_golden_outputs_equal_pytorchs(bundle: Bundle, checkpoint: Path) -> None:
    inputs, outputs = bundle.golden()
    with torch.no_grad():
        expected = load_model(checkpoint).network()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5 * expected.std())
    np.testing.assert_allclose(inputs.mean(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(2, 3)), 1, atol=1e-5)


def test_exporting_again_gives_the_same_bytes(bundle: Bundle, checkpoint: Path) -> None:
    model = onnx.load_from_string(bundle.onnx("fp32"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    again = to_onnx(load_model(checkpoint).network(), metadata=metadata)
    assert again.SerializeToString(deterministic=True) == bundle.onnx("fp32")


def test_tiles_with_the_manifests_halo_are_exact(bundle: Bundle) -> None:
    image = np.random.default_rng(0).standard_normal((296, 264)).astype(np.float32)
    halo = bundle.manifest.halo
    with OnnxRuntimeSession(bundle.onnx("fp32"), threads=1) as session:
        whole = session.run(image[None, None])[0, 0]
        tiled = run_tiled(session, image, halo, (2 * halo + 48, 2 * halo + 24))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * whole.std())


def test_node_runs_the_bundle_without_torch_and_onnx(bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_NODE, bundle.path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() in {"onnxruntime-cpu", "openvino"}, done.stderr


def test_model_that_differs_is_refused_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: torch.nn.Module, *arguments: object) -> onnx.ModelProto:
        with torch.no_grad():
            network.last[0].bias += 0.01
            model = to_onnx(network, *arguments)
            network.last[0].bias -= 0.01
        return model

    monkeypatch.setattr("n2n_deploy.export.from_checkpoint.to_onnx", wrong)
    with pytest.raises(BundleError, match="differs from PyTorch"):
        export_bundle(checkpoint, tmp_path / "model.n2n")
    assert list(tmp_path.iterdir()) == []


def test_activations_beyond_float16_are_refused(checkpoint: Path) -> None:
    network = load_model(checkpoint).network()
    with torch.no_grad():
        network.first.weight *= 1e5
    with pytest.raises(BundleError, match="float16"):
        parity.check_parity(network, to_onnx(network), "fp16")


def test_network_with_constant_output_is_refused(checkpoint: Path) -> None:
    network = load_model(checkpoint).network()
    with torch.no_grad():
        network.last[0].weight.zero_()
        network.last[0].bias.zero_()
    with pytest.raises(BundleError, match="constant"):
        parity.golden_vectors(network)


def test_files_that_are_not_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        export_bundle(tmp_path / "nowhere.pt", tmp_path / "model.n2n")
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"model\.pt"):
        export_bundle(tmp_path / "model.pt", tmp_path / "model.n2n")
