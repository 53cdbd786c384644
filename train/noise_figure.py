"""The picture of the noise models: each over its micrograph's power spectrum, as they were stored with the patches."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from matplotlib.figure import Figure

from n2n_deploy.files.atomic import atomic_write

_MOST = 6
"""Micrographs drawn, evenly spaced in the table."""

_WIDTH = 3
"""Panels in a row."""


def draw_noise(path: Path, files: Sequence[Path]) -> bool:
    """Draw up to six micrographs' spectra and noise models as a PNG.

    Args:
        path: of the picture.
        files: of a patch store.

    Returns:
        Whether there is a picture: patches of true halves have no noise model.
    """
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(_MOST, len(files))).astype(int))]
    curves = [found for file in chosen if (found := _curve(file)) is not None]
    if not curves:
        return False
    rows = -(-len(curves) // _WIDTH)
    figure = Figure(figsize=(4.4 * min(_WIDTH, len(curves)), 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, min(_WIDTH, len(curves)), squeeze=False).ravel()
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    for axis, (name, family, (frequency, power, noise)) in zip(axes, curves, strict=False):
        axis.plot(frequency, power, color="tab:blue", linewidth=0.8, label="micrograph")
        axis.plot(frequency, noise, color="tab:orange", label=f"noise ({family})")
        axis.set_yscale("log")
        # The lowest frequencies, ice and edges, are so strong that the rest would be a flat line.
        axis.set_ylim(0.7 * noise.min(), max(3 * noise.max(), np.percentile(power, 95)))
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("cycles per pixel")
        axis.legend(fontsize=7)
    axes[0].set_ylabel("power")
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
    return True


def _curve(file: Path) -> tuple[str, str, np.ndarray] | None:
    """Name, family, and the rows frequency, power and noise of a patch file."""
    with h5py.File(file, "r") as content:
        if "curve" not in content:
            return None
        return Path(content.attrs["micrograph"]).name, content["curve"].attrs["family"], content["curve"][:]
