"""Confidence intervals over micrographs, of numbers that are ratios of the set's averages."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

LEVEL = 0.95
METHOD = "Student's t on the delete-one jackknife over micrographs"


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


def jackknife(
    samples: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]
) -> dict[str, Interval]:
    """Give values and confidence intervals of functions of averages over micrographs.

    Micrographs differ in ice, defocus and dose more than estimates scatter within one, so they are what is left
    out, one at a time: pseudo-values, their mean's standard error, Student's t (Tukey 1958). It needs no random
    numbers and holds for few micrographs, where resampling them gives intervals that are too short.

    Args:
        samples: (micrographs, k, …), what is averaged over micrographs.
        statistic: from averages (k, …) to values (…) by name; works along any number of further axes.

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
    with np.errstate(invalid="ignore"):
        half = {name: reach * values.std(axis=0, ddof=1) for name, values in without.items()}
        return {name: Interval(value, value - half[name], value + half[name]) for name, value in whole.items()}
