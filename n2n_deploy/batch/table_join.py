"""Tables with the same columns made one: rows follow rows, and optics groups are matched by what they say."""

from collections.abc import Iterable

from n2n_deploy.batch.source_tables import optics_groups
from n2n_deploy.io.optics_groups import GROUP
from n2n_deploy.io.star_document import StarDocument, StarTable, micrograph_table


def join_tables(documents: Iterable[StarDocument]) -> list[StarDocument]:
    """Join tables as far as their columns allow.

    A column that only some tables have cannot be filled for all rows; tables with other columns stay apart.

    Args:
        documents: the first of those with the same columns is changed in place, the others are left as they are.

    Returns:
        One document for each set of columns, in the order of their first tables.
    """
    joined: dict[object, StarDocument] = {}
    for document in documents:
        table, groups = micrograph_table(document)
        columns = frozenset(table.labels), frozenset(groups.labels) if groups else None, table.is_loop
        if columns in joined and table.is_loop:
            _append(joined[columns], document)
        else:
            joined[columns if table.is_loop else document] = document
    return list(joined.values())


def _append(document: StarDocument, other: StarDocument) -> None:
    """Append the micrographs of another table."""
    table, groups = micrograph_table(document)
    added, _ = micrograph_table(other)
    columns = other.columns(added, added.labels)
    if groups is not None:
        numbers = _add_groups(document, groups, other)
        if GROUP in columns:
            columns[GROUP] = [numbers.get(number, number) for number in columns[GROUP]]
    document.append_rows(table, zip(*(columns[label] for label in table.labels), strict=True))


def _add_groups(document: StarDocument, groups: StarTable, other: StarDocument) -> dict[str, str]:
    """Add the optics groups that the document lacks; return the number in it of each of the other's groups."""
    known, numbers, rows = optics_groups(document), {}, []
    for number, content in optics_groups(other).items():
        same = next((old for old, what in known.items() if what == content), None)
        if same is None:
            taken = {int(float(old)) for old in known}
            same = number if int(float(number)) not in taken else str(max(taken) + 1)
            known[same] = content
            rows.append([same if label == GROUP else str(content[label]) for label in groups.labels])
        numbers[number] = same
    if rows:
        document.append_rows(groups, rows)
    return numbers
