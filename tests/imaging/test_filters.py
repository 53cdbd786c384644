"""Filters against SciPy's Butterworth responses and the definitions of their edges."""

import numpy as np
import pytest
import scipy.signal

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.filters import HIGHPASS_ORDER, LOWPASS_ORDER, bandpass, soft_lowpass
from n2n_deploy.imaging.fourier import frequencies


@pytest.mark.parametrize("shape", [(512, 512), (401, 333)])
def test_bandpass_is_the_product_of_butterworth_filters(shape: tuple[int, int]) -> None:
    spacing, recipe = (1.7, 1.71), Recipe(max_resolution=4.5, highpass=200.0)
    values = bandpass(shape, spacing, recipe)
    assert values.dtype == np.float32
    s = frequencies(shape, spacing).astype(float)
    high = scipy.signal.butter(HIGHPASS_ORDER, 1 / 200.0, "highpass", analog=True, output="zpk")
    low = scipy.signal.butter(LOWPASS_ORDER, 1 / 4.5, "lowpass", analog=True, output="zpk")
    truth = np.abs(scipy.signal.freqs_zpk(*high, s.ravel())[1] * scipy.signal.freqs_zpk(*low, s.ravel())[1])
    np.testing.assert_allclose(values.ravel(), truth, atol=1e-5)


def test_bandpass_is_flat_inside_and_empty_outside() -> None:
    recipe = Recipe(max_resolution=4.0, highpass=200.0)
    shape, spacing = (2000, 2000), (1.0, 1.0)
    values, s = bandpass(shape, spacing, recipe), frequencies(shape, spacing)
    assert values[0, 0] == 0
    assert (values[(s > 1.6 / 200) & (s < 0.9 / 4)] > 0.97).all()
    assert (values[s < 0.5 / 200] < 0.07).all()
    assert (values[s > 1.25 / 4] < 0.05).all()


def test_bandpass_ends_at_nyquist_where_the_pixels_are_too_coarse() -> None:
    values = bandpass((64, 64), (3.0, 3.0), Recipe(max_resolution=2.0))
    assert values[0, 32] == pytest.approx(2**-0.5, abs=1e-3)


@pytest.mark.parametrize("shape", [(128, 128), (129, 95)])
def test_soft_lowpass_edge(shape: tuple[int, int]) -> None:
    values = soft_lowpass(shape, (1.0, 1.0), 0.2, 0.3)
    s = frequencies(shape, (1.0, 1.0))
    assert values.dtype == np.float32
    assert (values[s < 0.2] == 1).all()
    assert (values[s > 0.3] == 0).all()
    middle = np.abs(s - 0.25) < 0.002
    np.testing.assert_allclose(values[middle], 0.5, atol=0.05)
    order = np.argsort(s.ravel())
    assert (np.diff(values.ravel()[order]) <= 1e-6).all()
