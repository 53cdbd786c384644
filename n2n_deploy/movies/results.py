"""What a run of `halves` leaves beside the sums: a table of the micrographs, and a list of the movies that failed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.movie_table import METADATA, MovieRecord, MovieTable
from n2n_deploy.io.star_document import NAME
from n2n_deploy.io.star_frames import star_text
from n2n_deploy.movies.job import Outputs

_EVEN, _ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"
_SIZE, _ORIGINAL_SIZE, _GROUP = "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnOpticsGroup"
_DOSE, _BEFORE = "rlnMicrographDoseRate", "rlnMicrographPreExposure"


@dataclass(frozen=True, slots=True)
class Summed:
    """A movie whose sums are there.

    Attributes:
        record: the movie.
        outputs: its sums.
        optics: of the sums.
        frame_size: Å per pixel of the frames.
        dose_per_frame: electrons per Å², where known.
        pre_exposure: electrons per Å², where known.
    """

    record: MovieRecord
    outputs: Outputs
    optics: Optics
    frame_size: float
    dose_per_frame: float | None = None
    pre_exposure: float | None = None


def write_table(path: Path, summed: Sequence[Summed], table: MovieTable) -> None:
    """Write a RELION 3.1 table of the sums, which `train` and RELION take as it is.

    A table of micrographs that was given keeps its columns, such as the CTF: the names of the sums replace its own.

    Args:
        path: the STAR file.
        summed: the movies whose sums are there, in order.
        table: what was given.

    Raises:
        HostError: it cannot be written.
    """
    project = Path(os.path.abspath(table.folders.project))  # noqa: PTH100 - links keep their names
    names = [
        [_below(project, file) for file in (each.outputs.whole, each.outputs.even, each.outputs.odd)] for each in summed
    ]
    if table.document is None or table.table is None:
        with atomic_write(path) as stream:
            stream.write(_new_table(summed, names, project).encode())
        return
    document = table.document.copy()
    ours = document.tables[table.document.tables.index(table.table)]
    document.keep_rows(ours, [each.record.row for each in summed])
    for column, label in enumerate((NAME, _EVEN, _ODD)):
        document.set_column(ours, label, {row: found[column] for row, found in enumerate(names)})
    sizes = {f"{each.optics.pixel_size:.6f}" for each in summed}
    groups = next((found for found in document.tables if found.block == "optics"), None)
    if groups is not None and len(sizes) == 1:
        document.set_column(groups, _SIZE, sizes.pop())
    document.write(path)


def write_failures(path: Path, failures: Sequence[tuple[MovieRecord, str]]) -> None:
    """Write the names of what failed, one a line under its reason; a list of movies, where movies were given.

    Without failures an older file is removed.
    """
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [f"# {reason}\n{record.name}\n" for record, reason in failures]
    with atomic_write(path) as stream:
        stream.write("".join(lines).encode())


def _new_table(summed: Sequence[Summed], names: Sequence[Sequence[str]], project: Path) -> str:
    kinds = list(dict.fromkeys((each.optics, each.frame_size) for each in summed))
    labels = ["rlnOpticsGroupName", _GROUP, _ORIGINAL_SIZE, _SIZE]
    values = [
        [f"opticsGroup{number}", str(number), f"{size:.6f}", f"{optics.pixel_size:.6f}"]
        for number, (optics, size) in enumerate(kinds, 1)
    ]
    for label, column in (
        ("rlnVoltage", [optics.voltage for optics, _ in kinds]),
        ("rlnSphericalAberration", [optics.spherical_aberration for optics, _ in kinds]),
        ("rlnAmplitudeContrast", [optics.amplitude_contrast for optics, _ in kinds]),
    ):
        if all(value is not None for value in column):
            labels.append(label)
            values = [[*row, f"{value:.6f}"] for row, value in zip(values, column, strict=True)]
    columns: dict[str, list[str]] = {
        label: list(column) for label, column in zip((NAME, _EVEN, _ODD), zip(*names, strict=True), strict=True)
    }
    columns[_GROUP] = [str(kinds.index((each.optics, each.frame_size)) + 1) for each in summed]
    motions = [each.record.motion for each in summed]
    if all(motion is not None and motion.suffix == ".star" for motion in motions):
        columns[METADATA] = [_below(project, motion) for motion in motions if motion is not None]
    for label, numbers in (
        (_DOSE, [each.dose_per_frame for each in summed]),
        (_BEFORE, [each.pre_exposure for each in summed]),
    ):
        if all(number is not None for number in numbers):
            columns[label] = [f"{number:.6f}" for number in numbers]
    rows = list(zip(*columns.values(), strict=True))
    return star_text(("optics", labels, values), ("micrographs", list(columns), rows))


def _below(project: Path, file: Path) -> str:
    """A file's name from the project folder, or its whole name where it is elsewhere."""
    absolute = Path(os.path.abspath(file))  # noqa: PTH100
    return str(absolute.relative_to(project)) if absolute.is_relative_to(project) else str(absolute)
