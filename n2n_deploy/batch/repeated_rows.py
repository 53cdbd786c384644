"""Rows of a table that name one output: the same micrograph twice is done once, different ones are refused."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from n2n_deploy.batch.outputs import OutputLayout, half_outputs
from n2n_deploy.io.records import Micrograph


def without_repeated(micrographs: Sequence[Micrograph]) -> Sequence[Micrograph]:
    """Leave out rows that say the same as an earlier one: name, files, optics and CTF."""
    of_name: dict[str, list[Micrograph]] = {}
    kept = []
    for micrograph in micrographs:
        # Hashing whole records would cost a tenth of the plan; few names are repeated.
        earlier = of_name.setdefault(micrograph.name, [])
        if not any(replace(micrograph, row=other.row) == other for other in earlier):
            earlier.append(micrograph)
            kept.append(micrograph)
    return kept


def clashing_rows(micrographs: Sequence[Micrograph], layout: OutputLayout, *, halves: bool) -> dict[int, str]:
    """Find rows that would write the same file.

    Args:
        micrographs: the rows of a table, without repeated ones.
        layout: where outputs go.
        halves: denoised halves are written, too.

    Returns:
        The reason by row.
    """
    writers: dict[str, list[int]] = defaultdict(list)
    for micrograph in micrographs:
        output = layout.relative(micrograph.name)
        for path in (output, *(map(str, half_outputs(Path(output))) if halves else ())):
            writers[path].append(micrograph.row)
    return {
        row: f"{len(rows)} rows of the table have the same output {layout.output / path}, and differ in name, "
        "file, optics or CTF; give each micrograph a name of its own"
        for path, rows in writers.items()
        if len(rows) > 1
        for row in rows
    }
