"""RELION 5 tomography tables: a global table that names one STAR file per tilt series, read and written together.

The global table (`data_global`) has a row for each series: its name, its STAR file, voltage, spherical aberration,
amplitude contrast and pixel size. Each series' file lists its tilt images with dose, tilt angle, CTF and the even and
odd halves. Layout as RELION 5 writes it: https://relion.readthedocs.io (subtomogram tutorial, `tilt_series_ctf.star`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.micrograph_names import Folders
from n2n_deploy.io.micrograph_rows import RowReader
from n2n_deploy.io.micrograph_table import Lists, MicrographTable, whole_halves
from n2n_deploy.io.optics_groups import ROW_LABELS
from n2n_deploy.io.read_options import ReadOptions
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import NAME, StarDocument, StarTable, micrograph_table

SERIES_FILE = "rlnTomoTiltSeriesStarFile"
_SERIES_NAME = "rlnTomoName"


@dataclass(frozen=True, slots=True)
class _Series:
    """One tilt series: its name, its table, and the range of its rows among those of all series."""

    name: str
    document: StarDocument
    rows: range


class TiltSeriesTable(MicrographTable):
    """All tilt images of a two-level table, with the interface of a table of micrographs.

    The name of an image is `series/rlnMicrographName`, so that images of two series never share a name. Where images
    are selected, series without one are left out, and the flag of flipped phases goes into the global table.
    """

    def __init__(
        self,
        path: Path,
        micrographs: list[Micrograph],
        problems: Mapping[int, str],
        project: Path,
        document: StarDocument,
        series: list[_Series],
        notes: list[str],
    ) -> None:
        super().__init__(path, micrographs, problems, project, document, notes)
        self._global = document
        self._series = series

    @property
    def texts(self) -> tuple[str, dict[str, str]]:
        """The global table, and the table of each series by name, as text; `from_texts` reads them again."""
        return self._global.text(), {series.name: series.document.text() for series in self._series}

    @classmethod
    def from_texts(cls, path: Path, project: Path, shared: str, series: Mapping[str, str]) -> "TiltSeriesTable":
        """Make a table to select rows from, without records of the images.

        Args:
            path: named in messages.
            project: folder that names of files are relative to.
            shared: the global table.
            series: the table of each series, by name and in the order of the global table.

        Raises:
            DataError: one of them is damaged.
        """
        parts: list[_Series] = []
        for name, text in series.items():
            document = StarDocument(path, text)
            first = parts[-1].rows.stop if parts else 0
            parts.append(_Series(name, document, range(first, first + len(micrograph_table(document)[0]))))
        return cls(path, [], {}, project, StarDocument(path, shared), parts, [])

    @cached_property
    def names(self) -> list[str]:
        """The name of each image, as in its record."""
        return [
            f"{series.name}/{name}"
            for series, columns in zip(self._series, self._series_columns, strict=True)
            for name in columns[NAME]
        ]

    def values(self, row: int) -> dict[str, object]:
        """Return what both levels say of an image, apart from where the table of its series lies."""
        index, place = self._find(row)
        shared: dict[str, object] = {
            label: column[index] for label, column in self._global_columns.items() if label != SERIES_FILE
        }
        own = {label: column[place] for label, column in self._series_columns[index].items()}
        return shared | whole_halves(own, self.project)

    @cached_property
    def _global_columns(self) -> dict[str, list[str]]:
        table = global_table(self._global)
        return self._global.columns(table, table.labels)

    @cached_property
    def _series_columns(self) -> list[dict[str, list[str]]]:
        tables = [(series.document, micrograph_table(series.document)[0]) for series in self._series]
        return [document.columns(table, table.labels) for document, table in tables]

    def _find(self, row: int) -> tuple[int, int]:
        """The number of an image's series, and the image's row in the table of the series."""
        index = next(index for index, series in enumerate(self._series) if row in series.rows)
        return index, row - self._series[index].rows.start

    def _name(self, row: int) -> str:
        index, place = self._find(row)
        return self._series_columns[index][NAME][place]

    def _keep(self, names: Mapping[int, str]) -> tuple[StarDocument, Lists, StarTable]:
        kept: dict[int, tuple[StarDocument, list[int]]] = {}
        for index, series in enumerate(self._series):
            if rows := [row for row in series.rows if row in names]:
                images = series.document.copy()
                images.keep_rows(micrograph_table(images)[0], [row - series.rows.start for row in rows])
                kept[index] = images, rows
        named = {self._series[index].name: images for index, (images, _) in kept.items()}
        document = TiltSeriesDocument(self._global, named, self.project)
        document.keep_rows(global_table(document), kept)
        return document, list(kept.values()), global_table(document)


class TiltSeriesDocument(StarDocument):
    """A global table together with the tables of its series, which are written with it.

    Args:
        document: the global table; it is copied.
        series: the series' tables by name.
        project: folder that the names of their files will be relative to, where it contains them.

    Attributes:
        series: the series' tables by name, in the order of the global table's rows.
    """

    def __init__(self, document: StarDocument, series: Mapping[str, StarDocument], project: Path) -> None:
        vars(self).update(vars(document.copy()))
        self.series, self._project = dict(series), project

    def write(self, path: Path) -> None:
        """Write the series' tables to a folder beside `path`, and the global table, which names them, to `path` last.

        The folder is called after the table: `denoised.star` and `denoised_tilt_series/TS_01.star`. A series that an
        earlier table of this name had keeps its file there, and is no longer named.

        Raises:
            HostError: a folder cannot be written to or has no room.
        """
        folder = series_folder(path)
        names = {}
        for row, (name, document) in enumerate(self.series.items()):
            target = (folder / f"{name.replace('/', '_')}.star").absolute()
            document.write(target)
            inside = target.is_relative_to(self._project)
            names[row] = str(target.relative_to(self._project) if inside else target)
        self.set_column(global_table(self), SERIES_FILE, names)
        super().write(path)


def series_folder(path: Path) -> Path:
    """Return the folder of the series' tables that a global table is written with."""
    return path.parent / f"{path.stem}_tilt_series"


def is_tilt_series(document: StarDocument) -> bool:
    """Whether a document is the global table of tilt series."""
    return any(SERIES_FILE in table.labels for table in document.tables)


def series_files(document: StarDocument, folders: Folders) -> dict[str, Path]:
    """Find the STAR file of each series, by name and in order.

    Raises:
        DataError: there is no series, or two have one name.
    """
    table = global_table(document)
    files = document.columns(table, (SERIES_FILE,))[SERIES_FILE]
    names = document.columns(table, (_SERIES_NAME,)).get(_SERIES_NAME) or [Path(file).stem for file in files]
    if not files:
        raise DataError(f"{document.path}: data_{table.block} lists no tilt series; give a table with at least one")
    found: dict[str, Path] = {}
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        if name in found:
            raise DataError(
                f"{document.path}: {document.where(table, row)}: a second tilt series is called {name}; "
                f"give each its own {_SERIES_NAME}"
            )
        found[name] = folders.locate(file)
    return found


def read_tilt_series(path: Path, document: StarDocument, project: Path | None, options: ReadOptions) -> TiltSeriesTable:
    """Read a global table and the tables of all its series.

    Args:
        path: of the global table.
        document: the global table.
        project: folder that relative names start at; None to try the current folder, the table's and those above it,
            for the names in a series' table also that table's own folder.
        options: what every image must have, and fallback values.

    Returns:
        One record for each tilt image, series after series. What is wrong with one image is in `problems`.

    Raises:
        DataError: a series' file is missing or damaged, a needed label is missing, or optics make no sense.
    """
    folders = Folders(path.parent, project)
    table = global_table(document)
    shared = document.columns(table, ROW_LABELS)
    micrographs: list[Micrograph] = []
    problems: dict[int, str] = {}
    notes: list[str] = []
    series: list[_Series] = []
    base: Path | None = None
    for row, (name, file) in enumerate(series_files(document, folders).items()):
        try:
            images = StarDocument.read(file)
            image_table, groups = micrograph_table(images)
        except DataError as error:
            place = document.where(table, row)
            raise DataError(f"{path}: {place}: tilt series {name} cannot be read: {error}") from error
        image_folders = Folders(file.parent, project, known=folders.project)
        first = len(micrographs)
        rows = RowReader(
            images,
            image_table,
            groups,
            image_folders,
            options,
            shared={label: column[row] for label, column in shared.items()},
            series=name,
            first_row=first,
        )
        micrographs += rows.micrographs
        problems |= rows.problems
        notes += rows.notes
        series.append(_Series(name, images, range(first, len(micrographs))))
        base = base or image_folders.project
    return TiltSeriesTable(path, micrographs, problems, base or folders.project, document, series, notes)


def global_table(document: StarDocument) -> StarTable:
    """Return the table that lists the series."""
    return next(table for table in document.tables if SERIES_FILE in table.labels)
