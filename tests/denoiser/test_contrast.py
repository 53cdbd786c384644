"""Grey scales do not matter: counts, offsets, units, types and the sign of the contrast.

The network is a rectifier, which is not linear: that it sees the same input whatever the grey scale is what makes the
outputs agree.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_builder import general_stand_in, one_layer, one_layer_bundle

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.imaging.ctf import CTFParameters, Optics

OPTICS = Optics(2.0, 300.0, 2.7, 0.1)
CTF = CTFParameters(15000.0, 14800.0, 20.0)
CPU = ComputeOptions(device="cpu", engine="onnxruntime-cpu")

Image = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def counts() -> Image:
    """Electron counts of two dark particles, (160, 192) uint8."""
    y, x = np.mgrid[:160, :192]
    dark = sum(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 200) for cy, cx in ((50, 60), (100, 130)))
    return np.random.default_rng(0).poisson(40 - 12 * dark).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_layer_bundle(tmp_path_factory.mktemp("model") / "relu.n2n", one_layer("Relu"), highpass=100.0)


def denoised(bundle: Path, image: Image, **options: Any) -> Image:
    with Denoiser(bundle, compute=CPU, **options) as denoiser:
        return denoiser(image, OPTICS)


@pytest.mark.parametrize("scale", [1e-4, 0.37, 104.0, 1e5])
@pytest.mark.parametrize("offset", [0.0, -3.0, 1000.0])
def test_the_output_follows_scale_and_offset_of_the_input(
    counts: Image, bundle: Path, scale: float, offset: float
) -> None:
    reference = denoised(bundle, counts)
    found = denoised(bundle, (scale * (counts + offset)).astype(np.float32))
    np.testing.assert_allclose(found / scale - offset, reference, atol=2e-3 * reference.std())


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.float16, np.float64])
def test_the_type_of_the_file_does_not_matter(counts: Image, bundle: Path, dtype: type) -> None:
    reference = denoised(bundle, counts)
    np.testing.assert_allclose(denoised(bundle, counts.astype(dtype)), reference, atol=1e-4 * reference.std())


def test_inverted_contrast_is_denoised_like_the_original_and_stays_inverted(counts: Image, bundle: Path) -> None:
    reference, white = denoised(bundle, counts), 200.0 - counts.astype(np.float32)
    found = denoised(bundle, white, invert=True)
    np.testing.assert_allclose(found, 200.0 - reference, atol=1e-4 * reference.std())
    wrong = denoised(bundle, white)  # the network sees the other sign
    assert np.abs(wrong - (200.0 - reference)).std() > 0.1 * reference.std()


@pytest.mark.parametrize("tta", [False, True])
def test_halves_are_inverted_too(counts: Image, bundle: Path, tta: bool) -> None:
    even = np.random.default_rng(1).binomial(counts, 0.5).astype(np.float32)
    odd = counts - even
    with Denoiser(bundle, compute=CPU, tta=tta) as denoiser:
        reference = denoiser.denoise(counts, OPTICS, halves=(even, odd)).image
    with Denoiser(bundle, compute=CPU, tta=tta, invert=True) as denoiser:
        found = denoiser.denoise(-counts.astype(np.float32), OPTICS, halves=(-even, -odd)).image
    np.testing.assert_allclose(found, -reference, atol=1e-4 * reference.std())


def test_a_network_that_takes_either_gets_flipped_phases_where_the_ctf_is_known(counts: Image, tmp_path: Path) -> None:
    general = general_stand_in(tmp_path / "general.n2n")
    with Denoiser(general, compute=CPU) as denoiser:
        flipped, plain = denoiser(counts, OPTICS, CTF), denoiser(counts, OPTICS)
    with Denoiser(one_layer_bundle(tmp_path / "flips.n2n", phase_flip=True), compute=CPU) as denoiser:
        np.testing.assert_array_equal(flipped, denoiser(counts, OPTICS, CTF))
    with Denoiser(one_layer_bundle(tmp_path / "plain.n2n"), compute=CPU) as denoiser:
        np.testing.assert_array_equal(plain, denoiser(counts, OPTICS))
    with Denoiser(general, compute=CPU, phase_flip=False) as denoiser:
        np.testing.assert_array_equal(plain, denoiser(counts, OPTICS, CTF))


def test_the_resolution_is_the_one_asked_for(counts: Image, tmp_path: Path) -> None:
    general = general_stand_in(tmp_path / "general.n2n")
    for resolution in (6.0, 12.0):
        fixed = one_layer_bundle(tmp_path / f"{resolution:g}.n2n", max_resolution=resolution)
        found = denoised(general, counts, max_resolution=resolution)
        np.testing.assert_array_equal(found, denoised(fixed, counts))
    with pytest.raises(UsageError, match="4 to 12 Å"):
        denoised(general, counts, max_resolution=3.0)


@pytest.mark.parametrize(("pixel_size", "noted"), [(2.0, False), (5.0, False), (7.0, True)])
def test_pixels_within_the_range_need_no_note(counts: Image, tmp_path: Path, pixel_size: float, noted: bool) -> None:
    # At 5 Å the image ends at 10 Å, which is coarser than the model's own 8 Å and was trained for all the same.
    with Denoiser(general_stand_in(tmp_path / "general.n2n"), compute=CPU) as denoiser:
        notes = denoiser.denoise(counts, Optics(pixel_size)).notes
    assert any("end at 14 Å, short of the model's 12 Å" in note for note in notes) == noted
    assert len(notes) == noted
