"""Shell correlation against RELION's programs, the whole transform summed by hand, and statistics."""

import numpy as np
import pytest

from n2n_deploy.refinement.fsc import HALF_MAPS, crossing, shell_correlation

from .conftest import PIXEL_SIZE, halves, save, star_columns


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 33, 33), (64, 64), (65, 65)])
def test_curve_agrees_with_relion_image_handler(shape, relion, tmp_path):
    a, b = halves(shape)
    files = save(tmp_path / "a.mrc", a), save(tmp_path / "b.mrc", b)
    printed = relion("relion_image_handler", "--i", files[0], "--fsc", files[1], "--angpix", PIXEL_SIZE)
    theirs = star_columns(printed, "fsc")
    ours = shell_correlation(a, b, PIXEL_SIZE)
    np.testing.assert_allclose(ours.correlation, theirs["rlnFourierShellCorrelation"], atol=1e-5)
    np.testing.assert_allclose(ours.frequency[1:], theirs["rlnResolution"][1:], rtol=1e-4)


def test_masked_and_corrected_curves_and_resolution_agree_with_relion_postprocess(relion, tmp_path):
    n = 48
    a, b = halves((n, n, n), noise=4.0, seed=1)
    radius = np.sqrt(sum((np.indices((n, n, n)) - n // 2) ** 2))
    mask = np.clip((18 - radius) / 5, 0, 1)
    names = ("half1_class001_unfil.mrc", "half2_class001_unfil.mrc", "mask.mrc")
    files = [save(tmp_path / name, data) for name, data in zip(names, (a, b, mask), strict=True)]
    relion(
        "relion_postprocess", "--i", files[0], "--i2", files[1], "--mask", files[2], "--angpix", PIXEL_SIZE,
        "--force_mask", "--o", tmp_path / "post",
    )  # fmt: skip
    text = (tmp_path / "post.star").read_text()
    theirs = star_columns(text, "fsc")
    ours = shell_correlation(a, b, PIXEL_SIZE, mask.astype(np.float32))
    np.testing.assert_allclose(ours.unmasked, theirs["rlnFourierShellCorrelationUnmaskedMaps"], atol=1e-4)
    np.testing.assert_allclose(ours.correlation, theirs["rlnFourierShellCorrelationMaskedMaps"], atol=1e-4)
    # The phases are random, so beyond the start two runs differ by √2/√m, with m independent components in a shell;
    # the mask reduces m to its fraction of the volume.
    start = round(ours.randomised_from * n * PIXEL_SIZE) + 2
    random = theirs["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"]
    corrected = theirs["rlnFourierShellCorrelationCorrected"]
    independent = 2 * np.pi * np.arange(n // 2 + 1)[start:] ** 2 * mask.mean()
    error = np.sqrt(2 / independent)
    assert np.all(np.abs(ours.randomised - random)[start:] < 4 * error)
    assert np.all(np.abs(ours.corrected - corrected)[start:] < 5 * error)
    resolution = float(text.split("_rlnFinalResolution")[1].split()[0])
    # RELION reports a shell, this package interpolates between two.
    assert 1 / ours.resolution(HALF_MAPS) == pytest.approx(1 / resolution, abs=1.5 / (n * PIXEL_SIZE))


def test_non_cubic_box_has_shells_of_equal_frequency_steps():
    shape = (12, 20, 17)
    a, b = halves(shape, seed=2)
    frequencies = np.meshgrid(
        *(np.fft.fftfreq(n, PIXEL_SIZE) for n in shape[:2]), np.fft.rfftfreq(17, PIXEL_SIZE), indexing="ij"
    )
    shell = np.rint(np.sqrt(sum(f**2 for f in frequencies)) * 12 * PIXEL_SIZE).astype(int)
    fa, fb = np.fft.rfftn(a), np.fft.rfftn(b)
    expected = [
        (fa * fb.conj()).real[shell == k].sum()
        / np.sqrt((abs(fa) ** 2)[shell == k].sum() * (abs(fb) ** 2)[shell == k].sum())
        for k in range(6)
    ]
    np.testing.assert_allclose(shell_correlation(a, b, PIXEL_SIZE).correlation, expected, atol=1e-5)


@pytest.mark.parametrize("snr", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(512, 512), (381, 405)])
def test_the_expected_ring_correlation_is_snr_over_one_plus_snr(snr, shape):
    rng = np.random.default_rng(3)
    signal, n1, n2 = rng.standard_normal((3, *shape))
    curve = shell_correlation(np.sqrt(snr) * signal + n1, np.sqrt(snr) * signal + n2, 1.0).correlation[10:]
    # A ring of m independent components has a standard error of about 1/√m; together they have 0.1 of all.
    assert curve.mean() == pytest.approx(snr / (1 + snr), abs=4 / np.sqrt(0.1 * np.prod(shape)))


def test_amplitudes_of_a_gaussian_are_gaussian():
    n, sigma = 96, 3.0
    squared = sum((np.indices((n, n, n)) - n // 2) ** 2)
    blob = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    noisy = blob + np.float32(1e-3) * np.random.default_rng(4).standard_normal(blob.shape, dtype=np.float32)
    got = shell_correlation(blob, noisy, PIXEL_SIZE)
    expected = (2 * np.pi * sigma**2) ** 1.5 * np.exp(-2 * (np.pi * sigma * PIXEL_SIZE * got.frequency) ** 2) / n**3
    # A shell averages over frequencies up to half a step from its own.
    np.testing.assert_allclose(got.amplitude_a[1:12], expected[1:12], rtol=0.05)


def test_first_crossing_is_interpolated():
    frequency = np.arange(6) * 0.1
    curve = np.array([1.0, 0.9, 0.7, 0.3, 0.6, 0.1])
    assert crossing(frequency, curve, 0.5) == pytest.approx(0.25)
    assert crossing(frequency, curve, 0.143) == pytest.approx(0.4 + 0.1 * (0.6 - 0.143) / 0.5)
    assert crossing(frequency, curve, 0.05) is None
    assert crossing(frequency, np.array([1.0, 0.1, 0.0, 0, 0, 0]), 0.5) == pytest.approx(0.1)


def test_identical_maps_correlate_up_to_nyquist_and_a_mask_alone_does_not():
    a, _ = halves((40, 40, 40), seed=5)
    same = shell_correlation(a, a.copy(), PIXEL_SIZE)
    np.testing.assert_allclose(same.correlation, 1.0, atol=1e-6)
    assert same.resolution(HALF_MAPS) is None
    rng = np.random.default_rng(6)
    a, b = halves((40, 40, 40), noise=30.0, seed=6)
    radius = np.sqrt(sum((np.indices(a.shape) - 20) ** 2))
    mask = (radius < 6).astype(np.float32)
    offset = 50 + rng.standard_normal()  # common to both, so the sharp mask's transform correlates everywhere
    masked = shell_correlation(a + np.float32(offset), b + np.float32(offset), PIXEL_SIZE, mask)
    assert masked.correlation[8:].mean() > 0.3
    assert abs(masked.corrected[8:].mean()) < 0.15
