"""Families of noise spectra: what detectors and motion correction do to the white noise of counted electrons.

Frequencies are in cycles per pixel along each axis, 0 to 0.5. With u = sin²(πf), which is 0 at the centre and 1 at
Nyquist, each family is smooth and has few parameters, so that what is measured beyond the signal holds below it:

* white: single-electron counting, dose weighting with normalised weights, Fourier cropping of super-resolution frames;
* linear interpolation of frames at any shifts (t_x, t_y), whose mean over frames is exactly
  1 − a·u_x − b·u_y + c·u_x·u_y, for each frame multiplies the power by (1 − 4t_x(1 − t_x)u_x)(1 − 4t_y(1 − t_y)u_y);
* detector: a floor and a Gaussian, the squared noise transfer of an integrating detector (Falcon), or, with a negative
  Gaussian, the dip at low frequencies that coincidence loss leaves (K2, K3 at high rates; Li et al., 2013);
* kernel: the exponential of a cubic in u along each axis, for cubic interpolation and pixels summed or blurred.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Values = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Family:
    """A family of spectra, all positive: level times `shape(parameters, f_y, f_x)`.

    Attributes:
        name: of the family.
        shape: the spectrum over its level.
        start: parameters that a fit starts from; the first set of spectra is white.
        low: their lower bounds.
        high: their upper bounds.
    """

    name: str
    shape: Callable[[Values, Values, Values], Values]
    start: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def _white(_: Values, fy: Values, fx: Values) -> Values:
    return np.ones(np.broadcast_shapes(np.shape(fy), np.shape(fx)))


def _linear(p: Values, fy: Values, fx: Values) -> Values:
    x, y = np.sin(np.pi * fx) ** 2, np.sin(np.pi * fy) ** 2
    return np.asarray(np.maximum(1 - p[0] * x - p[1] * y + p[2] * x * y, 1e-3))


def _detector(p: Values, fy: Values, fx: Values) -> Values:
    return np.asarray(1 + p[0] * np.exp(-(fx**2 + fy**2) / p[1] ** 2))


def _kernel(p: Values, fy: Values, fx: Values) -> Values:
    x, y = np.sin(np.pi * fx) ** 2, np.sin(np.pi * fy) ** 2
    return np.asarray(np.exp(x * (p[0] + x * (p[1] + x * p[2])) + y * (p[3] + y * (p[4] + y * p[5]))))


FAMILIES = (
    Family("white", _white, (), (), ()),
    Family("linear interpolation", _linear, (0.1, 0.1, 0.01), (-0.5, -0.5, -1.0), (1.0, 1.0, 1.0)),
    Family("detector", _detector, (0.1, 0.3), (-0.5, 0.05), (5.0, 2.0)),
    Family("kernel", _kernel, (0.0,) * 6, (-6.0,) * 6, (6.0,) * 6),
)
"""From the one with the fewest parameters to the one with the most."""


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """A noise power spectrum, |F|² over the number of pixels: white noise of variance 1 has 1.

    Attributes:
        family: name of the family.
        level: factor on the family's shape.
        parameters: of the shape.
        covariance: of level and parameters; the level's is relative.
        start: cycles per pixel from which on it was fitted; 0 where it is known without a fit.
    """

    family: str
    level: float
    parameters: tuple[float, ...] = ()
    covariance: Values | None = None
    start: float = 0.0

    def power(self, fy: Values, fx: Values) -> Values:
        """Power at frequencies (cycles per pixel) that broadcast against each other."""
        return self.level * _family(self.family).shape(np.array(self.parameters), np.abs(fy), np.abs(fx))

    def error(self, fy: Values, fx: Values) -> Values:
        """Relative standard error of `power`, from the scatter of what it was fitted to."""
        if self.covariance is None:
            return np.zeros(np.broadcast_shapes(np.shape(fy), np.shape(fx)))
        gradient = _log_gradient(_family(self.family), np.array(self.parameters), np.abs(fy), np.abs(fx))
        return np.asarray(np.sqrt(np.einsum("i...,ij,j...->...", gradient, self.covariance, gradient)))


def fit_family(
    family: Family, power: Values, count: Values, fy: Values, fx: Values, extra: float, *, robust: bool = False
) -> tuple[NoiseModel, float]:
    """Fit a family to mean powers by the likelihood of power, whose components are distributed exponentially.

    Args:
        family: the family.
        power: (bins,) mean power.
        count: (bins,) components that each is the mean of.
        fy: (bins,) cycles per pixel.
        fx: the same along x.
        extra: relative error that every bin has beside its scatter, 1/√count.
        robust: bins far from the rest count less (Cauchy's loss).

    Returns:
        The model, with `start` 0, and χ².
    """
    sigma = np.sqrt(1 / count + extra**2)
    level = float(np.median(power) if robust else np.average(power, weights=count))
    low, high = np.array([-5.0, *family.low]), np.array([5.0, *family.high])

    def residuals(p: Values) -> Values:
        ratio = power / (level * np.exp(p[0]) * family.shape(p[1:], fy, fx))
        # The gamma distribution's deviance: least squares of ratio − 1 would make the model too large by 1/count.
        deviance = np.maximum(2 * (ratio - 1 - np.log(ratio)), 0)
        return np.asarray(np.sign(ratio - 1) * np.sqrt(deviance) / sigma)

    found = least_squares(
        residuals,
        np.array([0.0, *family.start]),
        bounds=(low, high),
        x_scale="jac",
        loss="cauchy" if robust else "linear",
    )
    gradient = _log_gradient(family, found.x[1:], fy, fx) / sigma
    # A parameter that the data do not constrain, such as the width of no dip, must not make the inverse singular.
    covariance = np.linalg.pinv(gradient @ gradient.T, rcond=1e-12)
    model = NoiseModel(family.name, level * float(np.exp(found.x[0])), tuple(map(float, found.x[1:])), covariance)
    return model, float(2 * found.cost)


def _log_gradient(family: Family, parameters: Values, fy: Values, fx: Values) -> Values:
    """Derivatives of the logarithm of the power by log level and parameters: (parameters + 1, …)."""
    centre = np.log(family.shape(parameters, fy, fx))
    rows = [np.ones_like(centre)]
    for index in range(len(parameters)):
        step = np.zeros_like(parameters)
        step[index] = 1e-5
        rows.append((np.log(family.shape(parameters + step, fy, fx)) - centre) / 1e-5)
    return np.array(rows)


def _family(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)
