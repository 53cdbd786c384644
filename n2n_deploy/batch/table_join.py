"""Tables with the same columns made one: rows follow rows, and optics groups are matched by what they say."""

from collections.abc import Iterable

from n2n_deploy.io.optics_groups import GROUP, group_values
from n2n_deploy.io.star_document import StarDocument, StarTable, micrograph_table
from n2n_deploy.io.tilt_series import SERIES_FILE, TiltSeriesDocument, global_table


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
        if isinstance(document, TiltSeriesDocument):
            before = (each for each in joined.values() if isinstance(each, TiltSeriesDocument))
            if not any(_join_tilt_series(each, document) for each in before):
                joined[document] = document
            continue
        table, groups = micrograph_table(document)
        columns = frozenset(table.labels), frozenset(groups.labels) if groups else None, table.is_loop
        if columns in joined and table.is_loop:
            _append(joined[columns], document)
        else:
            joined[columns if table.is_loop else document] = document
    return list(joined.values())


def count_micrographs(document: StarDocument) -> int:
    """Return how many micrographs or tilt images a table lists."""
    images = document.series.values() if isinstance(document, TiltSeriesDocument) else (document,)
    return sum(len(micrograph_table(each)[0]) for each in images)


def _join_tilt_series(document: TiltSeriesDocument, other: TiltSeriesDocument) -> bool:
    """Add the series of another table; return False, with nothing changed, where columns or common series differ."""
    ours, theirs = _shared_values(document), _shared_values(other)
    if set(global_table(document).labels) != set(global_table(other).labels):
        return False
    for name in document.series.keys() & other.series.keys():
        columns = (set(micrograph_table(each.series[name])[0].labels) for each in (document, other))
        if ours[name] != theirs[name] or next(columns) != next(columns):
            return False
    table, new = global_table(document), []
    for name, images in other.series.items():
        if name in document.series:
            _append(document.series[name], images)
        else:
            document.series[name] = images
            new.append([theirs[name].get(label, "") for label in table.labels])
    document.append_rows(table, new)
    return True


def _shared_values(document: TiltSeriesDocument) -> dict[str, dict[str, str]]:
    """What the global table says of each series, apart from its file, which is named when the table is written."""
    table = global_table(document)
    columns = document.columns(table, [label for label in table.labels if label != SERIES_FILE])
    return {name: {label: column[row] for label, column in columns.items()} for row, name in enumerate(document.series)}


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
    known, numbers, rows = group_values(document), {}, []
    for number, content in group_values(other).items():
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
