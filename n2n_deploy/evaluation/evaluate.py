"""`evaluate`: what the halves of a set of micrographs say of a denoiser (S3), each micrograph and all together."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import N2NError
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.evaluation.halves import Halves, denoise_halves
from n2n_deploy.evaluation.truth import (
    TrueMoments,
    from_moments,
    mean_moments,
    read_truth,
    true_moments,
    true_ring_moments,
)
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable
from n2n_deploy.report.entries import Flag
from n2n_deploy.report.flags import COMMON_NOISE, NO_SIGNAL, common_noise, no_signal
from n2n_deploy.statistics.estimates import (
    COVARIANCE_NAMES,
    Covariances,
    Estimates,
    covariances,
    from_covariances,
    ring_covariances,
)
from n2n_deploy.statistics.frequency_bins import FrequencyBins
from n2n_deploy.statistics.intervals import Interval, jackknife
from n2n_deploy.statistics.shared_noise import CommonNoise, at_ctf_zeros, beyond_signal

QUANTITIES = tuple(each.name for each in fields(Estimates) if each.name != "frequency")
"""Names of the estimates, in the order that tables have them."""

RATIOS = ("snr_noisy", "snr_denoised", "sbr")
"""Estimates that are above 0 by nature."""


@dataclass(frozen=True, slots=True, eq=False)
class MicrographEvaluation:
    """What was measured on one micrograph; variances are shares of a noisy half's variance within the recipe's band.

    Attributes:
        micrograph: the record of the table.
        image: covariances over its pixels.
        rings: covariances over its Fourier rings.
        truth: true moments over its pixels, where the truth was given.
        true_rings: true moments over its rings.
        common: noise that both halves share, by each way of looking for it that there was.
        grey_levels: standard deviation in grey levels that 1 stands for, of the even and the odd half.
        flags: what looks wrong with the halves.
        notes: what was repaired.
        seconds: wall time.
    """

    micrograph: Micrograph
    image: Covariances
    rings: Covariances
    truth: TrueMoments | None
    true_rings: TrueMoments | None
    common: tuple[CommonNoise, ...]
    grey_levels: tuple[float, float]
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    seconds: float

    def has(self, kind: str) -> bool:
        """Whether there is a flag of this kind."""
        return kind in (flag.kind for flag in self.flags)


@dataclass(frozen=True, slots=True, eq=False)
class SetEvaluation:
    """All micrographs together, on one frequency axis.

    Attributes:
        image: each estimate over the pixels, with its confidence interval.
        rings: each estimate per Fourier ring, (rings,) arrays, with its confidence interval.
        frequency: (rings,) 1/Å.
        truth: what the estimates over the pixels should be, where the truth was given.
        true_rings: what those per ring should be.
    """

    image: dict[str, Interval]
    rings: dict[str, Interval]
    frequency: NDArray[np.float64]
    truth: Estimates | None
    true_rings: Estimates | None


@dataclass
class Evaluation:
    """What became of a table.

    Attributes:
        done: micrographs measured, in the table's order.
        failures: reason by micrograph name.
        seconds: wall time.
    """

    done: list[MicrographEvaluation] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def left_out(self) -> list[str]:
        """Names of the micrographs whose halves have no signal in common: the set's averages are without them."""
        return [done.micrograph.name for done in self.done if done.has(NO_SIGNAL)]

    @property
    def remarks(self) -> list[str]:
        """What has to be known beside the set's numbers, one line each."""
        total, counted = len(self.done), [done for done in self.done if not done.has(NO_SIGNAL)]
        out, noisy = total - len(counted), sum(done.has(COMMON_NOISE) for done in counted)
        left_out = f"{out} of {total} micrographs left out of the set: no signal common to their halves"
        common = f"{noisy} of {len(counted)} micrographs in the set: noise common to their halves counts as signal"
        return [line for number, line in ((out, left_out), (noisy, common)) if number]

    def whole(self, bins: int | None = None) -> SetEvaluation | None:
        """Average over the set, less what is `left_out`; None where nothing is left.

        Args:
            bins: of the frequency axis; by default the rings of the smallest field of view.
        """
        counted = [done for done in self.done if not done.has(NO_SIGNAL)]
        return summarise(counted, bins) if counted else None


def evaluate_micrograph(
    micrograph: Micrograph, denoiser: Denoiser, truth: Path | None = None
) -> tuple[MicrographEvaluation, Halves]:
    """Denoise both halves of one micrograph and measure.

    Args:
        micrograph: with `even` and `odd`.
        denoiser: the model; its merging and low-pass do not matter here, since the network's output is measured.
        truth: folder of noiseless images, for simulated micrographs; see `read_truth`.

    Raises:
        DataError: the halves or the truth cannot be used.
        HostError: the memory does not suffice.
    """
    start = time.perf_counter()
    halves = denoise_halves(micrograph, denoiser)
    image = covariances(*halves.images)
    looks = [beyond_signal(*halves.raw, micrograph.optics.pixel_size)]
    if micrograph.ctf is not None and denoiser.recipe.phase_flip:
        looks.append(at_ctf_zeros(halves.even, halves.odd, halves.spacing, micrograph.optics, micrograph.ctf))
    common = tuple(look for look in looks if look is not None)
    moments = None
    if truth is not None:
        signal = read_truth(truth, micrograph, halves, denoiser.recipe)
        moments = true_moments(halves, signal), true_ring_moments(halves, signal)
    done = MicrographEvaluation(
        micrograph,
        image,
        ring_covariances(*halves.images, halves.spacing),
        moments[0] if moments else None,
        moments[1] if moments else None,
        common,
        (halves.grey_levels[0][1], halves.grey_levels[1][1]),
        _flags(image, halves.even.size, common),
        halves.notes,
        time.perf_counter() - start,
    )
    return done, halves


def evaluate(
    table: MicrographTable,
    denoiser: Denoiser,
    *,
    truth: Path | None = None,
    lanes: int = 2,
    keep: Callable[[MicrographEvaluation, Halves], None] = lambda _done, _halves: None,
    progress: Callable[[str, str | None], None] = lambda _name, _error: None,
) -> Evaluation:
    """Measure all micrographs of a table; one that cannot be used costs itself.

    Args:
        table: read with `need_halves`.
        denoiser: the model.
        truth: folder of noiseless images, for simulated micrographs.
        lanes: micrographs in hand at once.
        keep: called with each result and its images, from several threads at once.
        progress: called with each micrograph's name, and the reason where it failed, from the calling thread.
    """
    start = time.perf_counter()
    result = Evaluation()

    def work(micrograph: Micrograph) -> MicrographEvaluation:
        done, halves = evaluate_micrograph(micrograph, denoiser, truth)
        keep(done, halves)
        return done

    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    try:
        waiting = {}
        for micrograph in table.micrographs:
            if micrograph.row in table.problems:
                result.failures[micrograph.name] = table.problems[micrograph.row]
                progress(micrograph.name, table.problems[micrograph.row])
            else:
                waiting[pool.submit(work, micrograph)] = micrograph
        for future in as_completed(waiting):
            name, error = waiting[future].name, future.exception()
            if error is None:
                result.done.append(future.result())
            elif isinstance(error, Exception):
                result.failures[name] = _reason(waiting[future], error)
            else:
                raise error
            progress(name, result.failures.get(name))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    result.done.sort(key=lambda done: done.micrograph.row)
    result.seconds = time.perf_counter() - start
    return result


def summarise(done: Sequence[MicrographEvaluation], bins: int | None = None) -> SetEvaluation:
    """Average covariances over micrographs, then estimate: ratios of averages, with confidence intervals."""
    grid = FrequencyBins([each.rings.frequency for each in done], bins)
    rings = np.stack([grid.rebin(_stacked(each.rings, COVARIANCE_NAMES), each.rings.frequency) for each in done])
    images = np.stack([_stacked(each.image, COVARIANCE_NAMES) for each in done])
    truths = [each.truth for each in done if each.truth is not None]
    true_rings = [
        TrueMoments(*[*grid.rebin(_stacked(each.true_rings, _MOMENTS), each.true_rings.frequency), grid.frequency])
        for each in done
        if each.true_rings is not None
    ]
    known = len(truths) == len(done)
    return SetEvaluation(
        jackknife(images, _statistic, RATIOS),
        jackknife(rings, _statistic, RATIOS),
        grid.frequency,
        from_moments(mean_moments(truths)) if known else None,
        from_moments(mean_moments(true_rings)) if known else None,
    )


_MOMENTS = tuple(each.name for each in fields(TrueMoments) if each.name != "frequency")


def _stacked(record: Any, names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([getattr(record, name) for name in names])


def _statistic(means: NDArray[np.float64]) -> dict[str, Any]:
    found = from_covariances(Covariances(*means))
    return {name: np.asarray(getattr(found, name)) for name in QUANTITIES}


def _flags(image: Covariances, pixels: int, common: Sequence[CommonNoise]) -> tuple[Flag, ...]:
    found = [no_signal(image, pixels), *(common_noise(look) for look in common)]
    return tuple(flag for flag in found if flag is not None)


def _reason(micrograph: Micrograph, error: Exception) -> str:
    """One line that names the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, N2NError | OSError | MemoryError):
        text = f"{type(error).__name__}: {text}"
    named = micrograph.name in text or any(path and path.name in text for path in (micrograph.even, micrograph.odd))
    return text if named else f"{micrograph.name}: {text}"
