"""The figure of `benchmarks.front`: error against cost, a panel for each data set and each way of comparing."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

LABELS = {
    ("simulated", "error"): "simulated: true error / signal",
    ("real", "rsf"): "real: recovered signal fraction",
}
COLOURS = {"paper": "#b2182b", "fast": "#2171b5", "small": "#6baed6"}
OTHER = "#8c8c8c"


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Means with bars over the seeds' range of one standard deviation; the presets in colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [key for key in LABELS if any(key[1] in row for row in report["results"])]
    ways = [way for way in ("time", "steps") if any(row["equal"] == way for row in report["results"])]
    figure = Figure(figsize=(5 * len(ways), 3.6 * len(shown)), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), len(ways), squeeze=False, sharex=True, sharey="row")
    for line, (where, name) in zip(panels, shown, strict=True):
        for axes, way in zip(line, ways, strict=True):
            for row in report["results"]:
                if (row["data"], row["equal"]) != (where, way) or name not in row:
                    continue
                cost = report["costs"][row["cost"]]["kflop_per_pixel"]
                colour = COLOURS.get(row["network"], OTHER)
                hollow = {"markerfacecolor": "white"} if row["training"] else {}
                axes.errorbar(cost, row[name], row[f"{name}_std"], fmt="o", color=colour, markersize=4, **hollow)
                text = f"{row['network']} ({row['steps']})" + (f", {row['training']}" if row["training"] else "")
                axes.annotate(text, (cost, row[name]), (4, 3), textcoords="offset points", fontsize=6)
            axes.set_xscale("log")
            axes.spines[["top", "right"]].set_visible(False)
    for axes, way in zip(panels[0], ways, strict=True):
        seconds = f"{report['seconds']:g} s of one core"
        axes.set_title(f"equal time: {seconds} (steps)" if way == "time" else "equal steps", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("kFLOP per pixel")
    for line, key in zip(panels, shown, strict=True):
        line[0].set_ylabel(LABELS[key])
        if key[0] == "simulated":  # better is up in every panel; the row shares its axis
            line[0].invert_yaxis()
    canvas.draw()
    stream = io.BytesIO()
    figure.savefig(stream)
    Image.open(stream).convert("RGB").quantize(64).save(path, optimize=True)
