"""The picture of the noise models: each over its micrograph's power spectrum, and what its pairs have in common.

All of it was stored with the patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from n2n_deploy.files.atomic import atomic_write

_MOST = 6
"""Micrographs drawn, evenly spaced in the table."""

_WIDTH = 3
"""Panels in a row."""

_LARGEST, _SIGMAS = 0.015, 4.0
"""Covariance over power, and standard errors, from which on a ring is worth a note: noise that is off by 3 %."""

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """What a patch file says of its micrograph's noise; see `NoiseCurve`."""

    name: str
    family: str
    pixel_size: float
    curve: Rows
    pair: Rows


def draw_noise(path: Path, files: Sequence[Path]) -> bool:
    """Draw up to six micrographs' spectra and noise models as a PNG, and below them the covariance of their pairs.

    Args:
        path: of the picture.
        files: of a patch store.

    Returns:
        Whether there is a picture: patches of true halves have no noise model.
    """
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(_MOST, len(files))).astype(int))]
    found = [stored for file in chosen if (stored := _read(file)) is not None]
    if not found:
        return False
    rows, columns = -(-len(found) // _WIDTH), min(_WIDTH, len(found))
    figure = Figure(figsize=(4.4 * columns, 4.4 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows)
    for axis in axes.ravel():
        axis.set_axis_off()
    for index, stored in enumerate(found):
        upper, lower = axes[2 * (index // _WIDTH), index % _WIDTH], axes[2 * (index // _WIDTH) + 1, index % _WIDTH]
        frequency, power, noise = stored.curve
        upper.set_axis_on()
        upper.plot(frequency, power, color="tab:blue", linewidth=0.8, label="micrograph")
        upper.plot(frequency, noise, color="tab:orange", label=f"noise ({stored.family})")
        upper.set_yscale("log")
        # The lowest frequencies, ice and edges, are so strong that the rest would be a flat line.
        upper.set_ylim(0.7 * noise.min(), max(3 * noise.max(), np.percentile(power, 95)))
        upper.set_ylabel("power")
        upper.set_title(stored.name, fontsize=8)
        upper.legend(fontsize=7)
        if not stored.pair.size:
            continue
        at, covariance, error = stored.pair
        lower.set_axis_on()
        lower.axhline(0, color="grey", linewidth=0.7)
        lower.errorbar(at, 100 * covariance, yerr=200 * error, fmt=".", markersize=3, linewidth=0.8, color="tab:green")
        lower.set_ylim(*(max(3.0, 110 * float(np.abs(covariance).max())) * np.array([-1, 1])))
        lower.set_xlim(upper.get_xlim())
        lower.set_ylabel("pair's covariance\nwithout signal, %", fontsize=7)
        lower.set_xlabel("cycles per pixel")
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
    return True


def noise_notes(files: Sequence[Path]) -> list[str]:
    """Say how many micrographs' noise models are off by more than 3 % in a ring, and what follows from it."""
    worst: list[tuple[float, str, float]] = []
    for stored in map(_read, files):
        if stored is None or not stored.pair.size:
            continue
        at, covariance, error = stored.pair
        ring = int(np.argmax(np.where(np.abs(covariance) > _SIGMAS * error, np.abs(covariance), 0)))
        if abs(covariance[ring]) > max(_LARGEST, _SIGMAS * error[ring]):
            worst.append((float(covariance[ring]), stored.name, stored.pixel_size / float(at[ring])))
    if not worst:
        return []
    covariance, name, resolution = max(worst, key=lambda each: abs(each[0]))
    what = "a part of the noise will be kept" if covariance > 0 else "a part of the signal will be lost"
    return [
        f"the noise models of {len(worst)} micrographs are off by more than 3 % in a ring, that of {name} the most: "
        f"its pairs have {covariance:+.1%} of their power at {resolution:.2g} Å in common, where there is no signal; "
        f"{what}; see noise.png"
    ]


def _read(file: Path) -> _Stored | None:
    with h5py.File(file, "r") as content:
        if "curve" not in content:
            return None
        curve = content["curve"]
        pair = content["pair"][:] if "pair" in content else np.empty((3, 0))
        name = Path(content.attrs["micrograph"]).name
        return _Stored(name, curve.attrs["family"], float(curve.attrs["pixel_size"]), curve[:], pair)
