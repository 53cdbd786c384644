"""The table and the figure of `benchmarks.general`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FACTS = ("resolution", "part", "flip", "snr")


def markdown(report: Mapping[str, Any]) -> str:
    """Tables for the documentation."""
    lines = ["| real micrograph, rows not trained on | general model | Wiener filter |", "| --- | --- | --- |"]
    lines += [
        f"| {row['resolution']:g} Å, {_phases(row)} | {row['general']:.3f} | {row['wiener']:.3f} |"
        for row in report["real"]
    ]
    methods = [name for name in report["simulated"][0] if name not in _FACTS]
    lines += [
        "",
        "| simulated, error / signal | SNR | " + " | ".join(methods) + " |",
        "| --- " * (len(methods) + 2) + "|",
    ]
    for row in report["simulated"]:
        numbers = " | ".join(f"{row[name]:.3f}" for name in methods)
        lines.append(f"| {row['resolution']:g} Å, {_phases(row)} | {row['snr']:.3f} | {numbers} |")
    lines.append("")
    for row in report["pure_noise"]:
        lines.append(f"Variance found in pure noise, {_phases(row)}: {row['share']:.2%} of the real micrograph's.")
    return "\n".join(lines) + "\n"


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Draw error against signal-to-noise ratio for each resolution, and the gain that each real ring lacks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    errors, gains = figure.subplots(1, 2)
    resolutions = sorted({row["resolution"] for row in report["simulated"]})
    for number, resolution in enumerate(resolutions):
        for flip, line in ((True, "-"), (False, "--")):
            rows = [row for row in report["simulated"] if (row["resolution"], row["flip"]) == (resolution, flip)]
            rows.sort(key=lambda row: row["snr"])
            colour = f"C{number}"
            _line(errors, rows, "general", colour, line, f"{resolution:g} Å, {_phases(rows[0])}")
            _line(errors, rows, "wiener", colour, line, None, alpha=0.35)
    errors.set(xscale="log", xlabel="signal-to-noise ratio", ylabel="error / signal", ylim=(0, 1))
    errors.set_title("simulated specimens left out of training (pale: Wiener filter)")
    errors.legend(fontsize="small")
    for row in report["real"]:
        gains.plot(row["frequency"], row["gain"], label=f"{row['resolution']:g} Å, {_phases(row)}")
    gains.axhspan(0.9, 1.1, color="0.9")
    gains.set(xlabel="1/Å", ylabel="best factor on the amplitudes", ylim=(0.5, 1.5))
    gains.set_title("amplitudes on the real micrograph")
    gains.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def _line(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    method: str,
    colour: str,
    line: str,
    label: str | None,
    alpha: float = 1.0,
) -> None:
    """One method's errors."""
    snr = [row["snr"] for row in rows]
    axes.plot(snr, [row[method] for row in rows], line, marker="o", color=colour, label=label, alpha=alpha)


def _phases(row: Mapping[str, Any]) -> str:
    return "phases flipped" if row["flip"] else "not flipped"
