"""Estimates from halves against the ground truth of simulated micrographs, within their statistical error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from n2n_deploy.evaluation.set_evaluation import evaluate_set
from n2n_deploy.simulate import simulate
from n2n_deploy.statistics.estimates import QUANTITIES

from .conftest import Image, evaluated


@pytest.fixture(scope="module", params=[6.0, 60.0, 600.0], ids=lambda dose: f"dose {dose:g}")
def simulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two micrographs, at SNRs (of a half, in the band) from about 0.05 to about 5."""
    return simulate(tmp_path_factory.mktemp("simulated"), 2, (432, 400), 4.0, seed=7, dose=request.param)


def _pattern(shape: tuple[int, ...]) -> Image:
    field = gaussian_filter(np.random.default_rng(9).standard_normal(shape), 2)
    return (0.3 * field / field.std()).astype(np.float32)


DENOISERS: dict[str, Callable[[Image], Image]] = {
    "nothing done": lambda image: image,
    "a blur, whose bias is signal": lambda image: gaussian_filter(image, 1.0),
    "too dark by half": lambda image: 0.5 * gaussian_filter(image, 0.7),
    "a blank": lambda image: 0 * image,
    "a pattern of its own": lambda image: gaussian_filter(image, 1.0) + _pattern(image.shape),
    "not linear": lambda image: np.tanh(2 * gaussian_filter(image, 1.0)),
    "shifted": lambda image: np.roll(gaussian_filter(image, 1.0), 2, axis=0),
}


SURE = 5.0
"""Standard errors that none of the thousand comparisons here exceeds by chance."""


def _recovered(found: Any) -> Any:
    """Recovered signal variance; the fraction is meaningless in rings without signal."""
    return found["recovered_signal_fraction"] * found["var_signal"]


def _scatter(true: dict[str, Any], components: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The standard error of the estimates, from the variance of sample covariances.

    That of two independent Gaussian signals has a variance of var(A) var(B) / n. With the model put in, the errors
    of the estimates are cov(S,N1) + cov(S,N2) + cov(N1,N2); cov(N1,N2); cov(N1,N2) − cov(E1,N2) − cov(E2,N1), where
    E = B + R; and cov(D1,N2) + cov(D2,N1).
    """
    signal, noise, left = (true[name] for name in ("var_signal", "var_noise_noisy", "var_noise_denoised"))
    bias = np.maximum(true["var_bias"], 0)
    made = (np.sqrt(signal) + np.sqrt(bias)) ** 2 + left  # var(D), where all of the bias is along the signal
    variances = {
        "var_signal": noise**2 + 2 * signal * noise,
        "var_noise_noisy": noise**2,
        "var_bias": noise**2 + 2 * (bias + left) * noise,
        "recovered": 2 * made * noise,
    }
    return {name: np.sqrt(variance / components) for name, variance in variances.items()}


@pytest.mark.parametrize("kind", DENOISERS)
def test_estimates_agree_with_the_truth(kind: str, simulated: Path, model: Path) -> None:
    whole = evaluate_set(evaluated(simulated, model, DENOISERS[kind]), bins=12)
    assert whole.truth is not None
    assert whole.true_rings is not None
    # A disc of components up to Nyquist, of two images, divided over the rings by area.
    components = np.pi / 4 * 2 * (432 * 4 / 6) * (400 * 4 / 6) * (2 * np.arange(12) + 1) / 144
    found = {name: interval.value for name, interval in whole.rings.items()}
    true = {name: getattr(whole.true_rings, name) for name in QUANTITIES}
    scatter = _scatter(true, components)
    for name in ("var_signal", "var_noise_noisy", "var_bias"):
        assert np.all(np.abs(found[name] - true[name]) < SURE * scatter[name] + 1e-9), name
    assert np.all(np.abs(_recovered(found) - _recovered(true)) < SURE * scatter["recovered"] + 1e-9)
    # This estimate involves no noise of the noisy halves, so its error is far smaller.
    # The grey scales of the halves differ by some thousandths, so D1 − D2 keeps as much of S.
    error = (1e-3 + SURE**2 / components) * true["var_noise_denoised"] + 1e-6
    assert np.all(np.abs(found["var_noise_denoised"] - true["var_noise_denoised"]) < error)

    found = {name: interval.value for name, interval in whole.image.items()}
    true = {name: getattr(whole.truth, name) for name in QUANTITIES}
    over_all = {name: np.sqrt(np.sum(ring**2)) for name, ring in scatter.items()}
    for name in ("var_signal", "var_noise_noisy", "var_bias"):
        assert found[name] == pytest.approx(true[name], abs=SURE * over_all[name] + 1e-7), name
    assert _recovered(found) == pytest.approx(_recovered(true), abs=SURE * over_all["recovered"] + 1e-7)
    assert found["var_noise_denoised"] == pytest.approx(true["var_noise_denoised"], rel=1e-3, abs=3e-6)


def test_snr_is_proportional_to_dose(tmp_path: Path, model: Path) -> None:
    """Shot noise is the only noise, so ten times the dose gives ten times the SNR of a specimen that stands still."""
    ratios = []
    for dose in (20.0, 200.0):
        star = simulate(tmp_path / f"{dose:g}", 1, (432, 400), 4.0, seed=7, dose=dose, thickness=0)
        ratios.append(evaluate_set(evaluated(star, model, np.copy)).image["snr_noisy"].value)
    assert ratios[1] / ratios[0] == pytest.approx(10, rel=0.15)
