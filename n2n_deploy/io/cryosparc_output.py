"""Exposure tables for cryoSPARC: the rows of the table that was given, with the denoised images in place of its own.

The table is a NumPy structured array, as cryosparc-tools write it by default. The group file (.csg) beside it is YAML
that says which slots the table has; cryoSPARC's *Import Result Group* job takes it.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.cryosparc import PATHS, joined_exposures

_FORMATS = {"float32": "MRC/2", "float16": "MRC/12"}
"""cryoSPARC's names of the formats that we write: MRC and the mode."""

_VERSION = "v4.0.0"
"""Of cryoSPARC, whose group files have had the same form since."""

_TYPES = {
    "micrograph_blob_non_dw": "micrograph_blob",
    "micrograph_thumbnail_blob_1x": "thumbnail_blob",
    "micrograph_thumbnail_blob_2x": "thumbnail_blob",
    "background_blob": "stat_blob",
    "rigid_motion": "motion",
    "spline_motion": "motion",
}
"""Types of slots that are not called like their type."""

Table = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Denoised:
    """The image that a row gets.

    Attributes:
        name: its path, relative to the project or absolute.
        dtype: of the file; None if it is not known.
        shape: (ny, nx); None for that of the row.
        pixel_size: Å; None for that of the row.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int, int] | None = None
    pixel_size: float | None = None


def exposures_content(path: Path) -> bytes:
    """Return an exposure table with the slots of its passthrough as the content of one file.

    Raises:
        DataError: it cannot be read.
    """
    content = io.BytesIO()
    np.save(content, joined_exposures(path), allow_pickle=False)
    return content.getvalue()


def load_exposures(path: Path) -> Table:
    """Read such a file.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        table: Table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as the copy of a cryoSPARC table: {error}") from error
    return table


def with_images(table: Table, images: Mapping[int, Denoised]) -> Table:
    """Return some rows of a table with new images; uid and every other column are kept.

    Args:
        table: of exposures.
        images: by row, in any order; rows without one are left out.
    """
    order = sorted(images)
    chosen = [images[row] for row in order]
    path = next(field for field in PATHS if field in (table.dtype.names or ()))
    blob = path.removesuffix("/path")
    new: dict[str, list[Any]] = {path: [image.name.encode("utf-8", "surrogateescape") for image in chosen]}
    for field, values in (
        (f"{blob}/format", [image.dtype and _FORMATS[image.dtype].encode() for image in chosen]),
        (f"{blob}/shape", [image.shape for image in chosen]),
        (f"{blob}/psize_A", [image.pixel_size for image in chosen]),
    ):
        if field in (table.dtype.names or ()):
            new[field] = [
                table[field][row] if value is None else value for row, value in zip(order, values, strict=True)
            ]
    if f"{blob}/idx" in (table.dtype.names or ()):
        new[f"{blob}/idx"] = [0] * len(order)
    changed = np.zeros(len(order), [_wide_enough(entry, new) for entry in table.dtype.descr])
    for field in table.dtype.names or ():
        changed[field] = new[field] if field in new else table[field][order]
    return changed


def join(tables: Sequence[Table]) -> list[Table]:
    """Join tables with the same columns; texts take the width of the longest."""
    found: dict[tuple[str, ...], list[Table]] = {}
    for table in tables:
        found.setdefault(table.dtype.names or (), []).append(table)
    return [np.concatenate(same) for same in found.values()]


def write_group(path: Path, table: Table) -> None:
    """Write a table, and the group file that describes it beside it, `x.csg` for `x.cs`.

    Raises:
        HostError: the folder cannot be written to or has no space.
    """
    with atomic_write(path) as stream:
        np.save(stream, table, allow_pickle=False)
    slots = dict.fromkeys(field.partition("/")[0] for field in table.dtype.names or () if "/" in field)
    lines = [
        f"created: {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        "group:",
        "  description: Micrographs denoised by n2n-deploy",
        "  name: micrographs",
        "  title: Denoised micrographs",
        "  type: exposure",
        "results:",
    ]
    for slot in slots:
        kind = f"exposure.{_TYPES.get(slot, slot)}"
        lines += [f"  {slot}:", f"    metafile: '>{path.name}'", f"    num_items: {len(table)}", f"    type: {kind}"]
    with atomic_write(path.with_suffix(".csg")) as stream:
        stream.write("\n".join([*lines, f"version: {_VERSION}", ""]).encode())


def _wide_enough(entry: Any, new: Mapping[str, Sequence[Any]]) -> Any:
    """A field of a dtype's description, wide enough for new texts."""
    field, kind = entry[:2]
    if field in new and kind.startswith("|S"):
        return (field, f"|S{max(int(kind[2:]), *(len(value) for value in new[field]), 1)}", *entry[2:])
    return entry
