"""Confidence intervals: SciPy's for a mean, and the nominal coverage for ratios."""

import numpy as np
import pytest
from scipy import stats

from n2n_deploy.statistics.intervals import jackknife


def test_interval_of_a_mean_is_student_s() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(7, 1, 5))
    found = jackknife(values, lambda means: {"mean": means[0]})["mean"]
    low, high = stats.t.interval(0.95, 6, loc=values[:, 0].mean(axis=0), scale=stats.sem(values[:, 0], axis=0))
    np.testing.assert_allclose(found.value, values[:, 0].mean(axis=0))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)


@pytest.mark.parametrize("number", [5, 20])
def test_interval_of_a_ratio_has_its_nominal_coverage(number: int) -> None:
    rng = np.random.default_rng(1)
    trials, hits = 1500, 0
    for _ in range(trials):
        strength = rng.gamma(9, 1 / 9, number)
        samples = np.stack([2 * strength + rng.normal(0, 0.3, number), 1 + strength], axis=1)
        found = jackknife(samples, lambda means: {"ratio": means[0] / means[1]})["ratio"]
        hits += bool(found.low < 1.0 < found.high)
    assert hits / trials == pytest.approx(0.95, abs=0.02)


def test_interval_of_a_positive_ratio_is_positive_and_has_its_nominal_coverage() -> None:
    """The averages scatter by a third, so that plain intervals of their ratio often reach below 0."""
    rng = np.random.default_rng(2)
    trials, hits, plain_below = 1500, 0, 0
    for _ in range(trials):
        samples = np.stack([rng.gamma(2, 0.5, 4), rng.gamma(2, 0.5, 4)], axis=1)
        found = jackknife(samples, lambda means: {"a": means[0] / means[1], "b": means[0] / means[1]}, {"b"})
        plain_below += bool(found["a"].low < 0)
        assert 0 < found["b"].low <= found["b"].value <= found["b"].high
        hits += bool(found["b"].low < 1.0 < found["b"].high)
    assert plain_below > trials / 10
    assert hits / trials == pytest.approx(0.95, abs=0.03)


def test_negative_estimates_get_the_plain_interval() -> None:
    samples = np.random.default_rng(3).normal(0, 1, (6, 1, 50))
    plain, tried = (jackknife(samples, lambda means: {"x": means[0]}, names)["x"] for names in ((), ("x",)))
    mixed = (plain.value <= 0) | (plain.low < -10)
    np.testing.assert_array_equal(tried.low[mixed], plain.low[mixed])


def test_negative_ratio_of_positive_parts_gets_the_plain_interval() -> None:
    """The ratio of each micrograph is positive, that of the averages is negative."""
    samples = np.array([[3.0, 1.0], [-1.0, -2.0]])
    plain, tried = (jackknife(samples, lambda m: {"x": m[0] / m[1]}, names)["x"] for names in ((), ("x",)))
    assert plain.value == -2
    assert (tried.low, tried.high) == (plain.low, plain.high)


def test_one_micrograph_has_no_interval() -> None:
    found = jackknife(np.ones((1, 2, 3)), lambda means: {"first": means[0]})["first"]
    assert np.all(found.value == 1)
    assert np.all(np.isnan([found.low, found.high]))
