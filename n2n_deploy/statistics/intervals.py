"""Confidence intervals over micrographs, for functions of averages such as ratios."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

LEVEL = 0.95
METHOD = "Student's t on the delete-one jackknife over micrographs; on logarithms for positive ratios"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % confidence interval, all floats or all arrays of one shape.

    Attributes:
        value: for all micrographs together.
        low: lower end; NaN for fewer than two micrographs.
        high: upper end.
    """

    value: Any
    low: Any
    high: Any

    def text(self) -> str:
        """The interval of a single value as text; a dash if there is none."""
        return f"{self.low:.3g} … {self.high:.3g}" if np.isfinite([self.low, self.high]).all() else "–"


def jackknife(
    samples: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    positive: Collection[str] = (),
) -> dict[str, Interval]:
    """Estimate functions of averages over micrographs, with confidence intervals.

    Micrographs differ in ice, defocus and dose by more than an estimate scatters within one micrograph, so the
    jackknife leaves out one micrograph at a time: pseudo-values, the standard error of their mean, Student's t (Tukey
    1958). It needs no random numbers and holds for few micrographs, where the bootstrap's intervals are too short.

    Args:
        samples: (micrographs, k, …), the numbers to average over micrographs.
        statistic: maps averages (k, …) to values (…) by name, along any number of further axes.
        positive: names of values that are positive by nature. Their intervals are computed on logarithms, so that
            they stay positive; an estimate that is negative all the same gets a plain interval.

    Returns:
        An interval by name.
    """
    number = len(samples)
    total = samples.sum(axis=0)
    whole = statistic(total / number)
    if number < 2:
        return {name: Interval(value, value * np.nan, value * np.nan) for name, value in whole.items()}
    without = statistic(np.moveaxis((total - samples) / (number - 1), 0, 1))
    reach = float(t.ppf((1 + LEVEL) / 2, number - 1)) * (number - 1) / np.sqrt(number)
    found = {}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for name, value in whole.items():
            half = reach * without[name].std(axis=0, ddof=1)
            low, high = value - half, value + half
            if name in positive:
                factor = np.exp(reach * np.log(without[name]).std(axis=0, ddof=1))
                above = np.isfinite(factor) & (value > 0)
                low, high = np.where(above, value / factor, low), np.where(above, value * factor, high)
            found[name] = Interval(value, low, high)
    return found
