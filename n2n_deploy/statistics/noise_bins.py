"""Mean power of noise in bins of the Fourier plane: of all components, or without the signal where a CTF is known.

Signal has the power s·CTF². In a bin, power is n + s·CTF², so that a straight line fitted against CTF² tells n, even
where the gaps between Thon rings are too narrow to be free of signal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.statistics.noise_models import NoiseModel, PairCovariance

Values = NDArray[np.floating]

_BINS = 24
"""Bins along each axis of a quadrant of the Fourier plane, up to Nyquist; fewer where a frame is small."""

_FEWEST = 50.0
"""Components in a bin that is looked at."""

_TROUGH = 0.4
"""CTF² up to which components join the line's fit at frequencies with signal: farther off, s varies too much."""

_SLOPE = 0.03
"""Part of the signal by which n may be off: s is not the same all over a bin, and defocus is never exact."""

_RING = 0.02
"""Cycles per pixel; width of the rings that a model is compared with."""

_SIGMAS = 3.0
"""Standard errors from which on there is signal at frequencies that should have none."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseBins:
    """Bins with enough components, (bins,) each.

    Attributes:
        power: mean power of noise, |F|² over the number of pixels.
        count: components that are as sure of it as a mean over this many is.
        fy: |f_y| in cycles per pixel.
        fx: f_x.
    """

    power: Values
    count: Values
    fy: Values
    fx: Values

    @property
    def radius(self) -> Values:
        """Cycles per pixel."""
        return np.asarray(np.hypot(self.fy, self.fx))

    def where(self, chosen: NDArray[np.bool_]) -> "NoiseBins":
        """These bins alone."""
        return NoiseBins(self.power[chosen], self.count[chosen], self.fy[chosen], self.fx[chosen])


def noise_bins(
    squared: Values, shape: tuple[int, int], finest_signal: float = 0.0, squared_ctf: Values | None = None
) -> NoiseBins:
    """Bin the power of a micrograph.

    Args:
        squared: (ny, nx//2+1), |F|² over the number of pixels.
        shape: (ny, nx) of the micrograph.
        finest_signal: cycles per pixel beyond which there should be no signal.
        squared_ctf: (ny, nx//2+1); None where it is unknown, and the bins are of all power.
    """
    y, x = np.abs(np.fft.fftfreq(shape[0]))[:, None], np.fft.rfftfreq(shape[1])[None, :]
    # The edges of a frame do not match: a step's power lies along the axes.
    used = (y * shape[0] > 2.5) & (x * shape[1] > 2.5) & (y < 0.5) & (x < 0.5)
    along = int(np.clip(np.sqrt(shape[0] * shape[1] / 800), 8, _BINS))
    bins = (y * 2 * along).astype(np.intp) * along + (x * 2 * along).astype(np.intp)
    beyond = np.hypot(y, x) > finest_signal
    if squared_ctf is not None:
        used = used & (beyond | (squared_ctf < _TROUGH))
    index = bins[used]

    def sums(values: Values) -> Values:
        return np.bincount(index, values, minlength=along**2).astype(np.float64)

    def of(values: Values) -> Values:
        return np.asarray(np.broadcast_to(values, used.shape)[used], np.float64)

    power, ones = of(squared), np.ones(len(index))
    number = sums(ones)
    present = np.maximum(number, 1)
    mean = sums(power) / present
    count = number.copy()
    if squared_ctf is not None:
        known = of(squared_ctf)
        intercept, sure, slope = _lines(power, known, index, along**2)
        far = sums(of(beyond)) / present > 0.5
        seen = far & np.isfinite(slope[0])
        total, error = float(slope[0][seen].sum()), float(np.sqrt(slope[1][seen].sum()))
        # A line costs precision: beyond the signal it is worth that only if there is signal all the same.
        take = np.isfinite(intercept) & ((total > _SIGMAS * error) | ~far)
        flat = ~take & (far | (sums(known) / present < 0.02))
        mean = np.where(take, intercept, mean)
        count = np.where(take, sure, np.where(flat, number, 0))
    enough = (number >= _FEWEST) & (count >= _FEWEST / 5) & (mean > 0)
    fy, fx = (sums(of(values))[enough] / number[enough] for values in (y, x))
    return NoiseBins(mean[enough], count[enough], fy, fx)


def pair_covariance(bins: NoiseBins, model: NoiseModel, lowest: float) -> PairCovariance:
    """Compare a model with the bins, ring by ring.

    Args:
        bins: of the micrograph.
        model: of its noise.
        lowest: cycles per pixel from which on the bins' power is the noise's.
    """
    used = bins.radius > lowest
    ring = (bins.radius[used] / _RING).astype(np.intp)
    count, noise, said, at = (
        np.bincount(ring, bins.count[used] * values)
        for values in (
            np.ones(int(used.sum())),
            bins.power[used],
            model.power(bins.fy, bins.fx)[used],
            bins.radius[used],
        )
    )
    there = count > 0
    count, noise, said, at = count[there], noise[there], said[there], at[there]
    return PairCovariance(at / count, (noise - said) / (noise + said), 0.5 / np.sqrt(count))


def _lines(
    power: Values, known: Values, index: NDArray[np.intp], bins: int
) -> tuple[Values, Values, tuple[Values, Values]]:
    """Fit power = n + s·CTF² in each bin.

    Power scatters as its expectation, so a second fit weighs by that of the first.

    Returns:
        n, the components that it is worth, and s with its variance; NaN where CTF² varies too little.
    """
    weights = np.ones_like(power)
    for _ in range(2):
        w, c, cc, p, cp = (
            np.bincount(index, weights * each, minlength=bins)
            for each in (np.ones_like(power), known, known**2, power, known * power)
        )
        determinant = w * cc - c * c
        varies = determinant > 0.002 * w**2
        safe = np.where(varies, determinant, np.nan)
        n, s = (cc * p - c * cp) / safe, (w * cp - c * p) / safe
        expected = np.maximum(n[index] + s[index] * known, 0.2 * (p / np.maximum(w, 1e-30))[index])
        weights = np.where(np.isfinite(expected), 1 / np.maximum(expected, 1e-30) ** 2, 1.0)
    with np.errstate(invalid="ignore"):
        return n, 1 / (cc / (safe * n**2) + (_SLOPE * s / n) ** 2), (s, w / safe)
