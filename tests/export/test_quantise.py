"""int8: what the export quantises is the same network within its tolerance, or is not offered."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from denoising_network import denoising_bundle, denoising_network, noisy_pairs

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.select import deviation
from n2n_deploy.engines.tiling import run_tiled
from n2n_deploy.export import export_bundle
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.export.quantise import quantise
from n2n_deploy.train.checkpoint import load_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(denoising_bundle(tmp_path_factory.mktemp("int8")))


def test_network_loses_little_signal_and_says_so(bundle: Bundle) -> None:
    facts = bundle.manifest.int8
    assert facts is not None
    assert bundle.manifest.int8_refused is None
    assert abs(facts.signal_loss) < 0.01
    low, high = facts.input_range
    assert -6 < low < -3
    assert 3 < high < 6
    # The export knows no truth; here the error against it hardly changes either.
    truth = noisy_pairs(64, 96, seed=5).mean(axis=1)
    noisy = (truth + np.random.default_rng(9).normal(scale=0.5, size=truth.shape)).astype(np.float32)
    errors = {}
    for precision in ("fp32", "int8"):
        with OnnxRuntimeSession(bundle.onnx(precision), threads=1) as session:
            errors[precision] = float(np.mean((session.run(noisy[:, None])[:, 0] - truth) ** 2))
    assert errors["int8"] == pytest.approx(errors["fp32"], rel=0.01)
    assert errors["int8"] != errors["fp32"]


def test_all_convolutions_are_quantised_per_feature_map(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.onnx("int8"))
    makers = {node.output[0]: node for node in model.graph.node}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(
        node.op_type == "Conv" for node in onnx.load_from_string(bundle.onnx("fp32")).graph.node
    )
    for node in convolutions:
        image, kernel = (makers[name] for name in node.input[:2])
        assert image.op_type == kernel.op_type == "DequantizeLinear"
        assert weights[kernel.input[0]].dtype == np.int8
        assert weights[kernel.input[1]].shape == (weights[kernel.input[0]].shape[0],)
    assert bundle.manifest.members["model.int8.onnx"].size < 0.5 * bundle.manifest.members["model.fp32.onnx"].size


def test_tiles_are_exact(bundle: Bundle) -> None:
    image = noisy_pairs(1, 296, seed=2)[0, 0]
    halo = bundle.manifest.halo
    with OnnxRuntimeSession(bundle.onnx("int8"), threads=1) as session:
        whole = session.run(image[None, None])[0, 0]
        tiled = run_tiled(session, image, halo, (2 * halo + 48, 2 * halo + 24))
    np.testing.assert_array_equal(tiled, whole)


def test_golden_vectors_are_pytorchs_and_the_int8_model_meets_them(bundle: Bundle) -> None:
    inputs, outputs = bundle.golden("int8")
    assert not np.array_equal(inputs, bundle.golden()[0])
    with OnnxRuntimeSession(bundle.onnx("fp32"), threads=1) as session:
        np.testing.assert_allclose(session.run(inputs), outputs, rtol=0, atol=1e-4 * outputs.std())
    with OnnxRuntimeSession(bundle.onnx("int8"), threads=1) as session:
        found = deviation(session.run(inputs), outputs)
    assert found.within(bundle.manifest.tolerance["int8"])
    assert found.rms > 1e-3
    assert bundle.manifest.tolerance["int8"].rms < 0.2


def test_export_is_repeatable(bundle: Bundle, tmp_path: Path) -> None:
    again = Bundle.open(export_bundle(bundle.path.with_name("model.pt"), tmp_path / "again.n2n"))
    assert again.short_hash == bundle.short_hash


def test_short_hash_covers_the_int8_model(bundle: Bundle, tmp_path: Path) -> None:
    contents = {name: bundle.read(name) for name in bundle.manifest.members}
    model = onnx.load_from_string(contents["model.int8.onnx"])
    model.doc_string = "another"
    changed = contents | {"model.int8.onnx": model.SerializeToString()}
    without = {name: content for name, content in contents.items() if name != "model.int8.onnx"}
    hashes = {
        write_bundle(tmp_path / "b.n2n", bundle.manifest, bundle.recipe, members).short_hash
        for members in (contents, changed, without)
    }
    assert len(hashes) == 3
    assert bundle.short_hash in hashes


def test_int8_is_refused_where_its_cost_is_too_high(bundle: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    model = onnx.load_from_string(bundle.onnx("fp32"))
    few = quantise(model, noisy_pairs(3, 96))
    assert isinstance(few, str)
    assert "3 held-out pairs" in few
    noise = np.random.default_rng(0).standard_normal((8, 2, 96, 96)).astype(np.float32)
    blind = quantise(model, noise)
    assert isinstance(blind, str)
    assert "recovers no signal" in blind
    # One pair with an outlier takes the ranges: what is left of the steps is too coarse.
    pairs = noisy_pairs(8, 96, seed=1)
    pairs[0, 0, 40, 40] = 4e3
    coarse = quantise(to_onnx(denoising_network(noisy_pairs(16, 96))), pairs)
    assert isinstance(coarse, str)
    assert "of the recovered signal, 1% is allowed" in coarse
    without = Bundle.open(export_bundle(checkpoint, tmp_path / "model.n2n"))  # a checkpoint without pairs
    assert without.manifest.int8 is None
    assert "0 held-out pairs" in str(without.manifest.int8_refused)
    assert "model.int8.onnx" not in without.manifest.members
    assert "int8" not in without.manifest.tolerance


def test_checkpoint_keeps_a_few_pairs(bundle: Bundle) -> None:
    pairs = load_model(bundle.path.with_name("model.pt")).pairs
    assert pairs.shape == (16, 2, 96, 96)
    np.testing.assert_allclose(pairs, noisy_pairs(16, 96, seed=1), atol=2e-3)
