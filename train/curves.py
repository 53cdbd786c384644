"""Training curves as CSV, PNG and TensorBoard events, and pictures of held-out patches before and after."""

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from n2n_deploy.files.atomic import atomic_write


@dataclass(frozen=True, slots=True)
class Row:
    """One point of the curves.

    Attributes:
        step: steps trained.
        seconds: of optimisation so far, including earlier sessions of the run.
        learning_rate: of the last step.
        loss: mean squared error since the previous row; a constant output of 0 scores about 1.
        validation_loss: the same on held-out patches; NaN where none are held out.
    """

    step: int
    seconds: float
    learning_rate: float
    loss: float
    validation_loss: float


def write_csv(path: Path, history: list[Row]) -> None:
    """Write the rows with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, Row.__slots__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, history))
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())


def draw_curves(path: Path, history: list[Row]) -> None:
    """Plot losses and learning rate against steps, as a PNG."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = [row.step for row in history]
    losses.plot(steps, [row.loss for row in history], label="training", color="tab:blue")
    losses.plot(steps, [row.validation_loss for row in history], label="held out", color="tab:orange")
    losses.set_ylabel("mean squared error against the other half")
    losses.legend()
    rates.plot(steps, [row.learning_rate for row in history], color="tab:green")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("step")
    _save(path, figure)


def draw_validation(path: Path, pairs: NDArray[np.float32], denoised: NDArray[np.float32]) -> None:
    """Draw held-out patches as a PNG: one half, the same denoised, and the other half, one row each.

    Args:
        path: the file.
        pairs: (n, 2, side, side); up to three of them are drawn, evenly spaced.
        denoised: (n, side, side), the first halves after denoising.
    """
    rows = np.unique(np.linspace(0, len(pairs) - 1, min(3, len(pairs))).astype(int))
    figure = Figure(figsize=(9, 3.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, number in enumerate(rows):
        images = (pairs[number, 0], denoised[number], pairs[number, 1])
        for axis, title, image in zip(axes[row], ("one half", "denoised", "other half"), images, strict=True):
            low, high = np.percentile(image, (0.5, 99.5))
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(title if row == 0 else "")
    _save(path, figure)


def tensorboard_writer(folder: Path, step: int) -> Any | None:
    """Return a TensorBoard writer that continues after `step`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)


def _save(path: Path, figure: Figure) -> None:
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
