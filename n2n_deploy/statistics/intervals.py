"""Confidence intervals over micrographs, of numbers that are ratios of the set's averages."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

LEVEL = 0.95
METHOD = "Student's t on the delete-one jackknife over micrographs; of ratios that are above 0, on their logarithms"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value of the set and where it lies with 95 % confidence, each a float or an array alike.

    Attributes:
        value: of all micrographs together.
        low: lower end; NaN of fewer than two micrographs.
        high: upper end.
    """

    value: Any
    low: Any
    high: Any

    def words(self) -> str:
        """The ends of a single value's interval, for people; a dash where there is none."""
        return f"{self.low:.3g} … {self.high:.3g}" if np.isfinite([self.low, self.high]).all() else "–"


def jackknife(
    samples: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    positive: Collection[str] = (),
) -> dict[str, Interval]:
    """Give values and confidence intervals of functions of averages over micrographs.

    Micrographs differ in ice, defocus and dose more than estimates scatter within one, so they are what is left
    out, one at a time: pseudo-values, their mean's standard error, Student's t (Tukey 1958). It needs no random
    numbers and holds for few micrographs, where resampling them gives intervals that are too short.

    Args:
        samples: (micrographs, k, …), what is averaged over micrographs.
        statistic: from averages (k, …) to values (…) by name; works along any number of further axes.
        positive: names of values that are above 0 by nature, whose interval is made on their logarithms, so that it
            stays above 0 too; where an estimate is not, it is made as the others'.

    Returns:
        An interval for each value of the statistic.
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
