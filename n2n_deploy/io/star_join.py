"""Two micrograph tables made one: the rows of the second after those of the first, optics groups matched by content."""

from collections.abc import Mapping

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.optics_groups import GROUP
from n2n_deploy.io.star_document import StarDocument, StarTable, micrograph_table


def append_table(document: StarDocument, other: StarDocument) -> None:
    """Append the micrographs of another table to those of a document.

    An optics group that says the same under another number gets the first's number, and one that the document
    does not have is added under a number that is free. Columns may come in another order, but must be the same:
    a column that only one table has cannot be kept for all rows.

    Args:
        document: changed in place.
        other: left as it is.

    Raises:
        DataError: the columns or the columns of the optics groups differ; a table is not a loop.
    """
    table, groups = micrograph_table(document)
    added, added_groups = micrograph_table(other)
    _check_columns(document, table, other, added)
    columns = other.columns(added, added.labels)
    if groups is not None and added_groups is not None:
        numbers = _match_groups(document, groups, other, added_groups)
        if GROUP in columns:
            columns[GROUP] = [numbers.get(number, number) for number in columns[GROUP]]
    elif (groups is None) != (added_groups is None):
        raise DataError(f"{other.path}: only one of it and {document.path} has optics groups; they cannot be joined")
    rows = zip(*(columns[label] for label in table.labels), strict=True)
    document.append_rows(table, rows)


def _match_groups(
    document: StarDocument, groups: StarTable, other: StarDocument, added: StarTable
) -> Mapping[str, str]:
    """The number in the document of each of the other's groups, which are added where they are not there."""
    _check_columns(document, groups, other, added)
    known = _groups(document, groups)
    numbers: dict[str, str] = {}
    rows = []
    for number, content in _groups(other, added).items():
        same = next((old for old, what in known.items() if what == content), None)
        if same is None:
            taken = {int(float(old)) for old in known}
            same = number if int(float(number)) not in taken else str(max(taken) + 1)
            known[same] = content
            rows.append([same if label == GROUP else content[label] for label in groups.labels])
        numbers[number] = same
    if rows:
        document.append_rows(groups, rows)
    return numbers


def _groups(document: StarDocument, groups: StarTable) -> dict[str, dict[str, str]]:
    """What each group says, by its number."""
    columns = document.columns(groups, groups.labels)
    numbers = columns.pop(GROUP, None) or [str(index + 1) for index in range(len(groups))]
    return {number: {label: column[row] for label, column in columns.items()} for row, number in enumerate(numbers)}


def _check_columns(document: StarDocument, table: StarTable, other: StarDocument, added: StarTable) -> None:
    differing = sorted(set(table.labels) ^ set(added.labels))
    if differing:
        raise DataError(
            f"{other.path}: data_{added.block} cannot be joined with that of {document.path}: only one of them has "
            f"{', '.join(differing)}; give tables with the same columns"
        )
    if not table.is_loop and table.block != "optics":
        raise DataError(f"{document.path}: data_{table.block} is no loop; write its one row as a loop")
