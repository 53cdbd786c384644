"""Trainable weights in a bundle: plain float32 arrays that NumPy reads, covered by the manifest's hash."""

import io
from pathlib import Path

import numpy as np
import pytest
from bundle_builder import one_layer_bundle

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import WEIGHTS
from n2n_deploy.bundle.weights import pack_weights, read_weights
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import BundleError


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    values = {"first.weight": rng.normal(size=(4, 1, 3, 3)), "first.bias": rng.normal(size=4) * 1e-30}
    return {name: value.astype(np.float32) for name, value in values.items()}


def test_arrays_are_read_back_to_the_bit_without_pickle(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    packed = pack_weights(weights)
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        assert set(arrays.files) == set(weights)
    bundle = extend_bundle(Bundle.open(one_layer_bundle(tmp_path / "model.n2n")), {WEIGHTS: packed})
    read = read_weights(bundle)
    for name, value in weights.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], value)
    assert pack_weights(weights) == packed


def test_a_bundle_without_weights_says_what_to_do(tmp_path: Path) -> None:
    bundle = Bundle.open(one_layer_bundle(tmp_path / "model.n2n"))
    with pytest.raises(BundleError, match=r"model\.n2n: carries no trainable weights.*export its model\.pt again"):
        read_weights(bundle)


def test_altered_weights_are_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    path = one_layer_bundle(tmp_path / "model.n2n")
    extend_bundle(Bundle.open(path), {WEIGHTS: pack_weights(weights)})
    content = bytearray(path.read_bytes())
    content[content.index(weights["first.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.npz is damaged or altered"):
        read_weights(Bundle.open(path))


def test_what_is_no_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(one_layer_bundle(tmp_path / "model.n2n"))
    objects = io.BytesIO()
    np.savez(objects, weight=np.array([{}], dtype=object))
    for content in (b"nothing", objects.getvalue()):
        bundle = extend_bundle(bundle, {WEIGHTS: content})
        with pytest.raises(BundleError, match=r"weights\.npz cannot be read"):
            read_weights(bundle)
