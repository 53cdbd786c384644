"""All micrographs of a set together: estimates from averaged covariances, with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.evaluation.ground_truth import TrueMoments, from_moments, mean_moments
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation
from n2n_deploy.statistics.estimates import COVARIANCE_NAMES, QUANTITIES, Covariances, Estimates, from_covariances
from n2n_deploy.statistics.frequency_bins import FrequencyBins
from n2n_deploy.statistics.intervals import Interval, jackknife

LABELS = {
    "var_signal": "signal variance",
    "var_noise_noisy": "noise variance, noisy half",
    "var_noise_denoised": "noise variance, denoised half",
    "var_bias": "bias variance",
    "snr_noisy": "SNR, noisy half",
    "snr_denoised": "SNR, denoised half",
    "sbr": "signal-to-bias ratio (SBR)",
    "recovered_signal_fraction": "recovered signal fraction",
}
"""What the quantities are called in reports and on the terminal."""

_RATIOS = ("snr_noisy", "snr_denoised", "sbr")
"""Estimates that are positive by nature."""

_MOMENT_NAMES = tuple(each.name for each in fields(TrueMoments) if each.name != "frequency")


@dataclass(frozen=True, slots=True, eq=False)
class SetEvaluation:
    """Estimates for a whole set, on one frequency axis.

    Attributes:
        image: each estimate over the pixels, with its confidence interval.
        rings: each estimate over the Fourier rings, (rings,) arrays, with its confidence interval.
        frequency: (rings,) 1/Å.
        truth: the true values of `image`, if the ground truth is known.
        true_rings: the true values of `rings`, if the ground truth is known.
    """

    image: dict[str, Interval]
    rings: dict[str, Interval]
    frequency: NDArray[np.float64]
    truth: Estimates | None
    true_rings: Estimates | None


def evaluate_set(evaluations: Sequence[MicrographEvaluation], bins: int | None = None) -> SetEvaluation:
    """Average covariances over micrographs, then estimate: the ratios are ratios of averages.

    Args:
        evaluations: one or more micrographs.
        bins: number of bins of the frequency axis; by default the rings of the smallest field of view.
    """
    axis = FrequencyBins([each.rings.frequency for each in evaluations], bins)
    rings = np.stack([axis.rebin(_stacked(each.rings, COVARIANCE_NAMES), each.rings.frequency) for each in evaluations])
    images = np.stack([_stacked(each.image, COVARIANCE_NAMES) for each in evaluations])
    truths = [each.truth for each in evaluations if each.truth is not None]
    true_rings = [
        TrueMoments(*[*axis.rebin(_stacked(moments, _MOMENT_NAMES), moments.frequency), axis.frequency])
        for moments in (each.true_rings for each in evaluations)
        if moments is not None
    ]
    known = len(truths) == len(evaluations)
    return SetEvaluation(
        jackknife(images, _estimates, _RATIOS),
        jackknife(rings, _estimates, _RATIOS),
        axis.frequency,
        from_moments(mean_moments(truths)) if known else None,
        from_moments(mean_moments(true_rings)) if known else None,
    )


def _stacked(record: Covariances | TrueMoments, names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([getattr(record, name) for name in names])


def _estimates(means: NDArray[np.float64]) -> dict[str, Any]:
    found = from_covariances(Covariances(*means))
    return {name: np.asarray(getattr(found, name)) for name in QUANTITIES}
