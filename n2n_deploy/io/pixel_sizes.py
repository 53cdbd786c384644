"""Pixel sizes written into a micrograph table: in its optics groups, or in the columns that RELION had before them."""

from collections.abc import Sequence
from statistics import median

from n2n_deploy.io.optics_groups import DETECTOR, GROUP, MAGNIFICATION, plain_number
from n2n_deploy.io.star_document import StarDocument, StarTable, micrograph_table

PIXEL_SIZE = "rlnMicrographPixelSize"
_OTHER = "rlnPixelSize"
_ANGSTROM_PER_MICROMETRE = 1e4


def set_pixel_sizes(document: StarDocument, sizes: Sequence[float]) -> None:
    """Change what a table says of the pixel size of its micrographs, after they were cropped or padded.

    From RELION 3.1 on it is `rlnMicrographPixelSize` of the optics group; micrographs of one group that differ, by less
    than a pixel over their side, get their median. Before, it is the rows' own column, or the magnification, which
    RELION changed when it scaled images. `rlnMicrographOriginalPixelSize`, the movies', stays.

    Args:
        document: changed in place.
        sizes: Å, for each row of the table of micrographs.
    """
    table, groups = micrograph_table(document)
    if groups is not None:
        _set_in_groups(document, table, groups, sizes)
        return
    columns = document.columns(table, (DETECTOR, MAGNIFICATION))
    if PIXEL_SIZE not in table.labels and len(columns) == 2:
        detectors = map(float, columns[DETECTOR])
        scaled = [detector * _ANGSTROM_PER_MICROMETRE / size for detector, size in zip(detectors, sizes, strict=True)]
        document.set_column(table, MAGNIFICATION, {row: f"{value:.6f}" for row, value in enumerate(scaled)})
        return
    label = _OTHER if _OTHER in table.labels and PIXEL_SIZE not in table.labels else PIXEL_SIZE
    document.set_column(table, label, {row: f"{size:.6f}" for row, size in enumerate(sizes)})


def _set_in_groups(document: StarDocument, table: StarTable, groups: StarTable, sizes: Sequence[float]) -> None:
    columns = document.columns(groups, (GROUP, PIXEL_SIZE))
    numbers = [plain_number(each) for each in columns.get(GROUP, map(str, range(1, len(groups) + 1)))]
    members = document.columns(table, (GROUP,)).get(GROUP, [numbers[0]] * len(table))
    by_group: dict[str, list[float]] = {}
    for member, size in zip(members, sizes, strict=True):
        by_group.setdefault(plain_number(member), []).append(size)
    before = columns.get(PIXEL_SIZE, [f"{median(sizes):.6f}"] * len(groups))
    values = {
        row: f"{median(by_group[number]):.6f}" if number in by_group else before[row]
        for row, number in enumerate(numbers)
    }
    document.set_column(groups, PIXEL_SIZE, values)
