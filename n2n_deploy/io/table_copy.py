"""A micrograph table as the content of one file, and back: copies from which rows can be selected later."""

import json
from dataclasses import asdict
from pathlib import Path

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.micrograph_table import MicrographTable
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table
from n2n_deploy.io.tilt_series import TiltSeriesTable


def table_content(table: MicrographTable) -> tuple[str, bytes]:
    """Return the ending and the content of a file that holds everything from which a table's rows can be selected.

    That is the STAR file itself; of tilt series JSON with the text of both levels; of MRC files without a table JSON
    with their names and optics.
    """
    if isinstance(table, TiltSeriesTable):
        shared, series = table.texts
        return ".json", json.dumps({"global": shared, "series": series}).encode()
    if table.document is not None:
        return ".star", table.document.content()
    return ".json", json.dumps([[each.name, asdict(each.optics)] for each in table.micrographs]).encode()


def read_table_copy(path: Path, project: Path) -> tuple[MicrographTable, list[str]]:
    """Read a copy.

    Args:
        path: a file with the content and the ending that `table_content` gave.
        project: of the table.

    Returns:
        The table, to select rows from (the records of its micrographs are not made again), and the name of each row.

    Raises:
        DataError: the file is missing or damaged.
    """
    if path.suffix == ".star":
        document = StarDocument.read(path)
        names = document.columns(micrograph_table(document)[0], (NAME,))[NAME]
        return MicrographTable(path, [], {}, project, document), names
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            series = TiltSeriesTable.from_texts(path, project, content["global"], content["series"])
            return series, series.names
        micrographs = [
            Micrograph(name, project / name, Optics(**optics), row=row) for row, (name, optics) in enumerate(content)
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as the copy of a table: {error}") from error
    return MicrographTable(None, micrographs, {}, project), [micrograph.name for micrograph in micrographs]
