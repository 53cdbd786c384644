"""Sums against physics: known drift undone, electrons kept, noise that halves do not share and that stays white."""

import numpy as np
import numpy.typing as npt
import pytest
from movie_builder import FRAMES, PIXEL_SIZE, Simulated, moved, save_movie

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.movie_files import open_movie
from n2n_deploy.movies.dose import DoseWeights, equivalent_dose
from n2n_deploy.movies.frames import FrameReader
from n2n_deploy.movies.shifting import undo_local_motion
from n2n_deploy.movies.sums import HalfSums, binned_shape

Image = npt.NDArray[np.floating]


def halves(frames: Image, shifts: Image, out_shape: tuple[int, int] | None = None) -> tuple[Image, Image]:
    shape = frames.shape[1:]
    sums = HalfSums(shape, out_shape or shape)
    for index, (frame, (x, y)) in enumerate(zip(frames, shifts, strict=True)):
        sums.add(frame.astype(np.float32), index, index % 2, (float(x), float(y)))
    return sums.result(0), sums.result(1)


def frames_of(movie: Simulated) -> Image:
    with open_movie(movie.path) as file:
        return np.stack([file.read(index) for index in range(file.frames)]).astype(np.float64)


def correlation(a: Image, b: Image) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_known_drift_is_undone(drifting: Simulated) -> None:
    """Aligned, the sum is the truth and shot noise: its variance is the number of electrons; unaligned, it is not."""
    frames = frames_of(drifting)
    even, odd = halves(frames, -drifting.drift)
    whole = even + odd
    residual = whole - drifting.truth
    assert residual.var() == pytest.approx(drifting.truth.mean(), rel=0.02)
    blurred = sum(halves(frames, np.zeros_like(drifting.drift))) - drifting.truth
    assert blurred.var() > 1.05 * residual.var()


def test_halves_share_no_noise(drifting: Simulated) -> None:
    even, odd = halves(frames_of(drifting), -drifting.drift)
    noise = even - drifting.truth / 2, odd - drifting.truth / 2
    # 65 536 pixels: a chance correlation has a standard deviation of 0.004.
    assert abs(correlation(*noise)) < 0.02
    assert even.sum() + odd.sum() == pytest.approx(frames_of(drifting).sum(), rel=1e-6)


def test_even_is_the_first_frame(drifting: Simulated) -> None:
    frames = frames_of(drifting)
    even, odd = halves(frames, np.zeros((FRAMES, 2)))
    np.testing.assert_array_equal(even, frames[0::2].sum(axis=0))
    np.testing.assert_array_equal(odd, frames[1::2].sum(axis=0))


@pytest.mark.parametrize("shape", [(64, 96), (65, 97)])
def test_shift_moves_content_towards_higher_pixels(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(5, 1, shape)
    ours, _ = halves(image[None], np.array([[3.0, -2.0]]))
    np.testing.assert_allclose(ours, np.roll(image, (-2, 3), (0, 1)), atol=2e-5)
    if shape[0] % 2:  # without the Nyquist component, fractions are exact too
        ours, _ = halves(image[None], np.array([[0.3, -1.7]]))
        np.testing.assert_allclose(ours, moved(image, 0.3, -1.7), atol=2e-5)


def test_binning_keeps_the_mean_and_low_frequencies() -> None:
    y, x = np.mgrid[:64, :96]
    image = 7 + np.cos(2 * np.pi * (3 * x / 96 - 5 * y / 64))
    small = 7 + np.cos(2 * np.pi * (3 * x[:32, :48] / 48 - 5 * y[:32, :48] / 32))
    ours, _ = halves(image[None], np.zeros((1, 2)), (32, 48))
    np.testing.assert_allclose(ours, small, atol=2e-5)
    # Two pixels of the frame are one of the sum.
    ours, _ = halves(image[None], np.array([[4.0, 2.0]]), (32, 48))
    np.testing.assert_allclose(ours, np.roll(small, (1, 2), (0, 1)), atol=2e-5)


def test_binned_shapes() -> None:
    assert binned_shape((4092, 5760), 1.0) == (4092, 5760)
    assert binned_shape((4092, 5760), 2.0) == (2046, 2880)
    assert binned_shape((4092, 5760), 1.5) == (2728, 3840)
    with pytest.raises(UsageError, match="not square"):
        binned_shape((100, 64), 3.7)
    with pytest.raises(UsageError, match="expected 1 or more"):
        binned_shape((64, 64), 0.5)


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"frame 3 has the shape \(4, 4\), expected \(8, 8\)"):
        HalfSums((8, 8), (8, 8)).add(np.zeros((4, 4), np.float32), 2, 0)


def test_local_motion_is_undone() -> None:
    """A ramp of brightness: where content moves by s, its value changes by s times the slope, exactly for bilinear."""
    ny, nx = 40, 60
    y, x = np.mgrid[:ny, :nx].astype(np.float64)
    coefficients = np.zeros((2, 18))
    coefficients[0, [0, 4, 17]] = 0.5, 0.2, 0.3  # z, x z², xy z³
    coefficients[1, [1, 9]] = -0.4, 0.6  # z², y z
    time = 1.5
    u, v = x / nx - 0.5, y / ny - 0.5
    shift_x = 0.5 * time + 0.2 * time**2 * u + 0.3 * time**3 * u * v
    shift_y = -0.4 * time**2 + 0.6 * time * v
    total = np.ones((ny, nx), np.float32)
    undo_local_motion((2 * x - 3 * y).astype(np.float32), coefficients, time, total)
    inner = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(total[inner], (1 + 2 * (x - shift_x) - 3 * (y - shift_y))[inner], atol=1e-4)


def test_weighted_noise_is_white_in_both_halves() -> None:
    """White frames in, white halves out, each with half the power of a frame, at every frequency."""
    rng = np.random.default_rng(4)
    side, count = 128, 30
    doses, half = [2.0 * (i + 1) for i in range(count)], [i % 2 for i in range(count)]
    sums = HalfSums((side, side), (side, side), DoseWeights((side, side), 1.0, doses, half))
    for index in range(count):
        sums.add(rng.normal(3, 1, (side, side)).astype(np.float32), index, half[index])
    even, odd = sums.result(0), sums.result(1)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    for image, expected in ((even, 0.5), (odd, 0.5), (even + odd, 1.0)):
        power = np.abs(np.fft.rfft2(image)) ** 2 / side**2
        for low in (0.02, 0.1, 0.2, 0.3, 0.4):
            ring = (radius > low) & (radius < low + 0.1)
            assert power[ring].mean() == pytest.approx(expected, rel=5 / np.sqrt(ring.sum()))


def test_weights_follow_the_critical_dose() -> None:
    """Grant & Grigorieff: at 3 Å half of 2·(0.245 · (1/3)^−1.665 + 2.81) e/Å² is the critical dose itself."""
    shape, size = (30, 30), 1.0
    critical = 0.245 * (1 / 3) ** -1.665 + 2.81
    weights = DoseWeights(shape, size, [0.0, 2 * critical], [0, 0])
    ratio = weights[1][0, 10] / weights[0][0, 10]  # column 10 of 30 is 1/3 per Å
    assert ratio == pytest.approx(np.exp(-1), rel=1e-5)
    assert weights[1][0, 0] == weights[0][0, 0] == pytest.approx(0.5)
    assert equivalent_dose(8.0, 200.0) == pytest.approx(10.0)
    assert equivalent_dose(8.0, 300.0) == 8.0
    assert equivalent_dose(8.0, 100.0) == pytest.approx(12.5)
    with pytest.raises(DataError, match="not for 120 kV"):
        equivalent_dose(8.0, 120.0)


def test_gain_and_defects(drifting: Simulated) -> None:
    """Counts divided by the response come back; bad pixels get what their neighbours have, in each frame anew."""
    rng = np.random.default_rng(6)
    scene = rng.uniform(90, 110, (64, 64))
    response = rng.uniform(0.5, 2.0, (64, 64))
    frames = np.stack([scene * response, 2 * scene * response])
    bad = np.zeros((64, 64), np.bool_)
    bad[10:12, 20:22] = bad[40, :] = bad[0, 0] = True
    bad[50:62, 2:30] = True  # wider than the window: the frame's mean
    frames[:, bad] = 1e6
    path = save_movie(drifting.path.with_name("bad.mrcs"), frames.astype(np.float32))
    factor = (1 / response).astype(np.float32)
    factor[0, 0] = 0  # a gain of zero marks a bad pixel too
    bad[0, 0] = False
    with open_movie(path) as movie:
        reader = FrameReader(movie, factor, bad)
        assert reader.defective == bad.sum() + 1
        first, second = reader.read(0), reader.read(1)
    good = ~bad
    good[0, 0] = False
    np.testing.assert_allclose(first[good], scene[good], rtol=1e-5)
    np.testing.assert_allclose(second, 2 * first, rtol=1e-5)
    window = np.s_[8:13, 18:23]  # around (10, 20)
    assert first[10, 20] == pytest.approx(scene[window][good[window]].mean(), rel=1e-5)
    assert first[56, 15] == pytest.approx(scene[good].mean(), rel=1e-4)
    assert abs(first - 100).max() <= 10.001


def test_pixel_size_of_the_simulation(drifting: Simulated) -> None:
    with open_movie(drifting.path) as movie:
        assert movie.pixel_size == PIXEL_SIZE
