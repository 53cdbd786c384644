"""The figure of `benchmarks.quality`: one micrograph by several methods, error per ring, and picking scores."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.quality_methods import Case, Method
from benchmarks.quality_tables import Result, true_errors
from n2n_deploy.report.figures import resolution_axis

SIDE = 160
"""Side of the part of the micrograph that is shown, in network pixels."""

COLOURS = {
    "Topaz": ("#b2182b", "#d6604d", "#f4a582", "#fddbc7"),
    "ours": ("#6baed6", "#2171b5", "#08306b"),
    "": ("#bdbdbd", "#d9d9d9", "#8c8c8c", "#252525"),
}
"""By family: reds for Topaz, blues for ours, greys for filters."""


def draw(
    path: Path,
    results: Mapping[str, Result],
    methods: Mapping[str, Method],
    case: Case,
    rows: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draw pictures above curves and bars, with few enough colours for a small file."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {"font.size": 8.0, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    ours = [name for name in results if name.startswith("ours") and not name.endswith("views")]
    best = min(ours, key=lambda name: rows[name]["true_relative_error"])
    shown = [name for name in ("raw", "Wiener, true spectra", "Topaz unet", best) if name in methods]
    pictures: dict[str, NDArray[np.float32]] = {name: methods[name](case, "whole") for name in shown}
    assert case.truth is not None
    pictures["truth"] = case.truth["whole"]
    curves = {name: true_errors(result) for name, result in results.items() if not name.startswith("low-pass")}
    frequency = next(iter(results.values())).whole.frequency
    passed = frequency > 1 / case.prepared["whole"].recipe.highpass
    with mpl.rc_context(style):
        drawing = Figure(figsize=(10, 5.6), dpi=110, layout="constrained")
        FigureCanvasAgg(drawing)
        above, below = drawing.subfigures(2, 1, height_ratios=(1, 1.55))
        for axes, (name, image) in zip(above.subplots(1, len(pictures)), pictures.items(), strict=True):
            part = image[:SIDE, :SIDE]
            low, high = np.percentile(part, (0.5, 99.5))
            axes.imshow(part, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(name, fontsize=9)
            axes.set_axis_off()
        picked = all("picks" in row for row in rows.values())
        panels = below.subplots(1, 3 if picked else 2, width_ratios=(1.5, 1, 1)[: 3 if picked else 2])
        colours = _colours(list(results))
        for name, curve in curves.items():
            if name.endswith("8 views"):
                continue
            line = "--" if name.startswith("Wiener") else "-"
            width = 2.0 if name.startswith("ours") else 1.1
            panels[0].plot(
                frequency[passed], curve[passed], label=name, color=colours[name], linestyle=line, linewidth=width
            )
        panels[0].set_ylim(0, 1.25)
        panels[0].set_ylabel("true error / signal, per Fourier ring")
        panels[0].grid(color="#e4e4e4", linewidth=0.6)
        resolution_axis(panels[0], float(frequency[-1]))
        panels[0].legend(fontsize=6.5, ncols=2, loc="lower right")
        _bars(panels[1], {name: 1 - row["true_relative_error"] for name, row in rows.items()}, colours)
        panels[1].set_xlabel("recovered signal fraction")
        if picked:
            _bars(panels[2], {name: row["picks"]["mean_f1"] for name, row in rows.items()}, colours)
            panels[2].set_xlabel("LoG picks: F1, mean of thresholds")
            panels[2].set_yticklabels([])
        pixels = io.BytesIO()
        drawing.savefig(pixels, format="png")
    Image.open(pixels).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def _colours(names: list[str]) -> dict[str, str]:
    """A colour for each method; a network averaged over views has the network's colour."""
    found: dict[str, str] = {}
    for family, colours in COLOURS.items():
        others = [each for each in COLOURS if each and each != family]
        members = [name for name in names if name.startswith(family) and not name.startswith(tuple(others))]
        bases = list(dict.fromkeys(name.removesuffix(", 8 views") for name in members))
        found |= {name: colours[bases.index(name.removesuffix(", 8 views")) % len(colours)] for name in members}
    return found


def _bars(axes: Any, values: Mapping[str, float], colours: Mapping[str, str]) -> None:
    names = list(values)
    lengths = np.maximum([values[name] for name in names], 0.0)
    axes.barh(names, lengths, color=[colours[name] for name in names])
    for place, name in enumerate(names):
        axes.text(lengths[place], place, f" {values[name]:.2f}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.15)
