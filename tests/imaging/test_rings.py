"""Rings against the full transform, Parseval's theorem and the counts of lattice points."""

import numpy as np
import pytest

from n2n_deploy.imaging.rings import (
    hermitian_weights,
    ring_count,
    ring_frequencies,
    ring_index,
    ring_means,
    ring_sizes,
    ring_sums,
)

SHAPES = [(16, 16), (15, 15), (12, 17), (17, 12), (10, 10, 10), (9, 9, 9), (8, 9, 11)]


def full_index(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Ring of each component of the whole transform, by definition."""
    frequencies = np.meshgrid(*(np.fft.fftfreq(n, step) for n, step in zip(shape, spacing, strict=True)), indexing="ij")
    extent = min(n * step for n, step in zip(shape, spacing, strict=True))
    return np.rint(np.sqrt(sum(f**2 for f in frequencies)) * extent).astype(int)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [(1.0, 1.0, 1.0), (1.3, 1.1, 0.9)])
def test_sums_over_the_half_equal_sums_over_the_whole_transform(shape, steps):
    spacing = steps[: len(shape)]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, *shape))
    whole = np.fft.fftn(x) * np.conj(np.fft.fftn(y))
    expected = np.bincount(full_index(shape, spacing).ravel(), weights=whole.real.ravel())
    got = ring_sums(np.fft.rfftn(x) * np.conj(np.fft.rfftn(y)), shape, spacing)
    assert len(got) == len(ring_frequencies(shape, spacing)) == ring_count(shape, spacing)
    np.testing.assert_allclose(got, expected[: len(got)], rtol=1e-9, atol=1e-9 * np.abs(whole).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_half_stands_for_every_component_once(shape):
    half = np.broadcast_to(hermitian_weights(shape), (*shape[:-1], shape[-1] // 2 + 1))
    assert half.sum() == np.prod(shape)
    x = np.random.default_rng(2).standard_normal(shape)
    # Parseval
    assert (half * np.abs(np.fft.rfftn(x)) ** 2).sum() / np.prod(shape) == pytest.approx((x**2).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_no_ring_is_empty_and_corners_are_left_out(shape):
    assert ring_sizes(shape).min() >= 1
    assert ring_index(shape).max() == ring_count(shape), "the corner of the transform lies beyond Nyquist"


def test_rings_of_a_square_image_hold_the_lattice_points_of_their_annulus():
    # 1, 8 and 12 points of the square lattice lie at radii [0, 0.5), [0.5, 1.5), [1.5, 2.5).
    assert ring_sizes((32, 32))[:3].tolist() == [1, 8, 12]


@pytest.mark.parametrize("n", [64, 65])
def test_a_plane_wave_falls_into_the_ring_of_its_frequency(n):
    pixel_size, cycles = 2.5, 11
    wave = np.cos(2 * np.pi * cycles * np.arange(n) / n)[:, None] * np.ones(n)
    power = ring_means(np.abs(np.fft.rfft2(wave)) ** 2, (n, n), (pixel_size, pixel_size))
    assert power.argmax() == cycles
    assert ring_frequencies((n, n), (pixel_size, pixel_size))[cycles] == pytest.approx(cycles / (n * pixel_size))


def test_the_last_ring_ends_at_nyquist():
    assert ring_frequencies((64, 64), (2.0, 2.0))[-1] == pytest.approx(1 / 4)
    assert ring_frequencies((65, 65), (2.0, 2.0))[-1] == pytest.approx(32 / 65 / 2)


def test_values_on_another_grid_are_rejected():
    with pytest.raises(ValueError, match=r"\(16, 9\).*\(16, 8\)"):
        ring_sums(np.ones((16, 8)), (16, 16))
