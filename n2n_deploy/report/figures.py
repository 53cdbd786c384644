"""Figures in one style, drawn without a display."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_deploy.files.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#2166ac", "#b2182b", "#767676"
"""Line colours that also differ in lightness, for grey printing and colour-blind readers."""

_STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def figure(path: Path, *, panels: int = 1) -> Iterator[list["Axes"]]:
    """Draw `panels` axes side by side and save them to `path` when the block ends without an error."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(5.2 * panels, 3.6), dpi=150)
        FigureCanvasAgg(drawing)
        axes = drawing.subplots(1, panels, squeeze=False)[0]
        yield list(axes)
        with atomic_write(path) as stream:
            drawing.savefig(stream, format="png")


def resolution_axis(axes: "Axes", nyquist: float) -> None:
    """Label a spatial-frequency axis (1/Å, from 0 to `nyquist`) by resolution in Å."""
    axes.set_xlim(0.0, nyquist)
    ticks = [nyquist * step / 5 for step in range(1, 6)]
    axes.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("resolution (Å)")
