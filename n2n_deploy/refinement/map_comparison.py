"""Two map files compared by Fourier shell correlation: reading, and the table, figure and summary."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.files.atomic import make_writable_folder
from n2n_deploy.files.data_files import write_csv, write_json
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.refinement.fsc import HALF_MAPS, MODEL, ShellCorrelation, shell_correlation
from n2n_deploy.report.figures import BLUE, GREY, RED, figure, resolution_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAME_PIXEL = 1e-3
"""Relative difference up to which two pixel sizes are equal: headers store them as rounded cell lengths."""


@dataclass(frozen=True, slots=True)
class MapComparison:
    """Two maps and the correlation between them.

    Attributes:
        first: the first map's file.
        second: the second map's file, a half map or a map computed from a model.
        mask: the mask's file, if there is one.
        pixel_size: Å per pixel.
        shape: the box.
        model: the second map was computed from a model, so the threshold is 0.5.
        shells: the correlation.
        warnings: about the files, one line each.
    """

    first: Path
    second: Path
    mask: Path | None
    pixel_size: float
    shape: tuple[int, ...]
    model: bool
    shells: ShellCorrelation
    warnings: tuple[str, ...] = ()

    @property
    def threshold(self) -> float:
        """The threshold of the reported resolution."""
        return MODEL if self.model else HALF_MAPS

    @property
    def curve_name(self) -> str:
        """FRC for images, FSC for maps."""
        return "FRC" if len(self.shape) == 2 else "FSC"

    def summary(self) -> dict[str, Any]:
        """Return the content of fsc.json. A resolution is None if the curve stays above the threshold up to Nyquist."""
        shells = self.shells
        return {
            "curve": self.curve_name,
            "against": "model" if self.model else "half map",
            "box": list(reversed(self.shape)),
            "pixel_size": self.pixel_size,
            "nyquist_resolution": 1 / float(shells.frequency[-1]),
            "masked": self.mask is not None,
            "threshold": self.threshold,
            "resolution": shells.resolution(self.threshold),
            "resolution_at": {f"{level:g}": shells.resolution(level) for level in (HALF_MAPS, MODEL)},
            "phases_randomised_from": None if not shells.randomised_from else 1 / shells.randomised_from,
        }

    def write(self, folder: Path) -> None:
        """Write fsc.csv (one row per shell), fsc.json (the summary) and fsc.png (curves and amplitudes)."""
        make_writable_folder(folder)
        shells = self.shells
        columns = {
            "frequency_per_angstrom": shells.frequency,
            "correlation": shells.correlation,
            "unmasked": shells.unmasked,
            "randomised": shells.randomised,
            "corrected": shells.corrected,
            "amplitude_first": shells.amplitude_a,
            "amplitude_second": shells.amplitude_b,
        }
        kept = {name: values.tolist() for name, values in columns.items() if values is not None}
        write_csv(folder / "fsc.csv", list(kept), zip(*kept.values(), strict=True))
        write_json(folder / "fsc.json", self.summary())
        with figure(folder / "fsc.png", panels=2) as (correlation, amplitudes):
            self._draw_correlation(correlation)
            self._draw_amplitudes(amplitudes)

    def _draw_correlation(self, axes: "Axes") -> None:
        shells = self.shells
        if shells.unmasked is not None and shells.randomised is not None:
            axes.plot(shells.frequency, shells.unmasked, color=GREY, linewidth=1, label="unmasked")
            axes.plot(shells.frequency, shells.randomised, color=RED, linewidth=1, label="masked, random phases")
        label = "corrected for the mask" if shells.corrected is not None else self.curve_name
        axes.plot(shells.frequency, shells.best, color=BLUE, label=label)
        resolution = shells.resolution(self.threshold)
        axes.axhline(self.threshold, color=GREY, linestyle=(0, (4, 3)), linewidth=0.9)
        if resolution is not None:
            text, end = f"{resolution:.2f} Å at {self.threshold:g}", float(shells.frequency[-1])
            side, shift = ("left", 6) if 1 / resolution < 0.6 * end else ("right", -6)
            point = (1 / resolution, self.threshold)
            axes.annotate(text, point, (shift, 8), textcoords="offset points", ha=side)
            axes.plot([1 / resolution], [self.threshold], "o", color=BLUE, markersize=4)
        axes.axhline(0, color="black", linewidth=0.7)
        axes.set_ylim(min(-0.05, float(shells.best.min()) * 1.05), 1.02)
        axes.set_ylabel(f"{self.curve_name} against the {'model' if self.model else 'other half'}")
        resolution_axis(axes, float(shells.frequency[-1]))
        if shells.unmasked is not None:
            # Above the axes: inside, the curves may cross any corner.
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, columnspacing=1.2, handlelength=1.4)

    def _draw_amplitudes(self, axes: "Axes") -> None:
        shells = self.shells
        lines = (
            (shells.amplitude_a, BLUE, "-", self.first.name),
            (shells.amplitude_b, RED, (0, (5, 2)), self.second.name),
        )
        for amplitude, colour, dashes, label in lines:
            axes.plot(shells.frequency[1:], amplitude[1:], color=colour, linestyle=dashes, label=label)
        axes.set_yscale("log")
        axes.set_ylabel("Fourier amplitude, rotational average")
        resolution_axis(axes, float(shells.frequency[-1]))
        axes.legend()


def compare_maps(
    first: Path,
    second: Path,
    *,
    mask: Path | None = None,
    model: bool = False,
    pixel_size: float | None = None,
) -> MapComparison:
    """Correlate two map or image files shell by shell.

    Args:
        first: an MRC file, a volume or an image.
        second: another of the same box and pixel size.
        mask: a mask file, values 0 to 1.
        model: the second map was computed from a model, so the threshold is 0.5.
        pixel_size: Å per pixel, overriding the headers.

    Raises:
        DataError: a file cannot be read, boxes or pixel sizes differ, or a map or mask is constant.
        UsageError: no header has a pixel size and none was given.
    """
    if pixel_size is not None and not 0 < pixel_size < np.inf:
        raise UsageError(f"invalid --pixel-size {pixel_size:g}; expected Å per pixel, above 0")
    maps = [_read(path) for path in (first, second, *([mask] if mask else []))]
    if pixel_size is None:
        pixel_size = _pixel_size(maps)
    weights = maps[2].data if mask else None
    names = [str(each.path) for each in maps]
    shells = shell_correlation(maps[0].data, maps[1].data, pixel_size, weights, names=names)
    warnings = [f"{each.path}: {warning}" for each in maps for warning in each.warnings]
    if np.array_equal(maps[0].data, maps[1].data):
        warnings.append(f"{first} and {second} are identical, so their correlation is meaningless")
    comparison = MapComparison(first, second, mask, pixel_size, maps[0].data.shape, model, shells, tuple(warnings))
    if shells.best[1] < comparison.threshold:
        warning = f"even the first shell correlates below {comparison.threshold:g}: the maps have nothing in common"
        return replace(comparison, warnings=(*warnings, warning))
    return comparison


@dataclass(frozen=True, slots=True)
class _Map:
    """A volume (nz, ny, nx), or an image (ny, nx) if there is one section, with facts from its header."""

    path: Path
    data: NDArray[np.float32]
    pixel_size: float | None
    warnings: tuple[str, ...]


def _read(path: Path) -> _Map:
    if path.suffix == ".mrcs":
        raise DataError(f"{path}: a stack of images; expected a map or a single image, so extract one image first")
    image = read_mrc(path, ndim=3)
    data = image.data[0] if len(image.data) == 1 else image.data
    warnings = (*image.warnings, *_unequal_sections(image.header))
    return _Map(path, data.astype(np.float32, copy=False), image.pixel_size, warnings)


def _unequal_sections(header: MRCHeader) -> list[str]:
    """Warn of a volume whose voxels differ along z; a header's own warnings cover only x and y."""
    if header.pixel_size is None or header.sections == 1:
        return []
    z = float(header.fields["cella"]["z"]) / (int(header.fields["mz"]) or np.nan)
    if abs(z / header.pixel_size - 1) < _SAME_PIXEL:
        return []
    return [f"the header says {header.pixel_size:g} Å per pixel along x and {z:g} along z; that along x is used"]


def _pixel_size(maps: list[_Map]) -> float:
    """The pixel size, which must agree between all headers that have one."""
    known = [(each.path, each.pixel_size) for each in maps if each.pixel_size]
    if not known:
        raise UsageError(f"{maps[0].path}: no pixel size in its header or in that of {maps[1].path}; use --pixel-size")
    first, size = known[0]
    for path, other in known[1:]:
        if abs(other - size) > _SAME_PIXEL * size:
            raise DataError(
                f"{path}: its pixel size is {other:g} Å and that of {first} is {size:g} Å; expected equal"
                " pixel sizes; rescale one map or, if a header is wrong, use --pixel-size"
            )
    return size
