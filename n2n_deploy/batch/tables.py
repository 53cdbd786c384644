"""`denoised.star` and `failed.star`: rows of the source tables, chosen by what the ledger says."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.batch.ledger import Record
from n2n_deploy.batch.outputs import half_outputs
from n2n_deploy.batch.source_tables import SourceTable
from n2n_deploy.batch.standing import Standing
from n2n_deploy.batch.status import FINISHED, UNUSABLE, Status
from n2n_deploy.batch.table_join import count_micrographs, join_tables
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.io.pixel_sizes import set_pixel_sizes
from n2n_deploy.io.star_document import StarDocument
from n2n_deploy.io.tilt_series import series_folder

DENOISED, FAILED = "denoised.star", "failed.star"


@dataclass(frozen=True)
class WrittenTables:
    """The tables of a folder.

    Attributes:
        denoised: `denoised.star`; None if nothing is finished.
        listed: micrographs that it lists, with its further parts.
        note: what the user should know of them; empty if they are whole.
    """

    denoised: Path | None
    listed: int
    note: str


def write_tables(folder: Path, standings: Sequence[Standing]) -> WrittenTables:
    """Write both tables, each complete or not at all; one without rows is removed.

    Args:
        folder: where to.
        standings: of the output folders that they list.

    Raises:
        HostError: they cannot be written.
    """
    finished = [document for standing in standings for document in _finished(standing, folder)]
    failed = [document for standing in standings for document in _failed(standing, folder)]
    paths, listed = [], 0
    for name, documents in ((DENOISED, finished), (FAILED, failed)):
        with waiting_for(f"writing {folder / name}"):
            parts = join_tables(documents)
            if name == DENOISED:
                listed = sum(map(count_micrographs, parts))
            paths.append(_write(folder / name, parts))
    further = [path.name for written in paths for path in written[1:]]
    note = f"source tables with other columns are listed in {', '.join(further)}" if further else ""
    return WrittenTables(paths[0][0] if paths[0] else None, listed, note)


def _finished(standing: Standing, folder: Path) -> list[StarDocument]:
    """Return the rows of finished micrographs under the names of their outputs, a document for each source table."""
    chosen: dict[tuple[int, bool, bool, bool], dict[int, str]] = {}
    sizes: dict[tuple[int, int], float] = {}
    prefixes = [prefix(source, standing.layout.output) for source in standing.sources]
    taken: set[str] = set()
    for name, record, number, rows in rows_of(standing):
        if record.status not in FINISHED:
            continue
        output = standing.layout.relative(name)
        if output in taken:
            continue  # another name of the same file
        taken.add(output)
        header, cropped = record.run.header, record.pixel_size is not None
        halves = bool(header["options"].get("halves")) and record.status is not Status.KEPT
        of_table = chosen.setdefault((number, header["phase_flipped"], halves, cropped), {})
        of_table.update(dict.fromkeys(rows, prefixes[number] + output))
        if record.pixel_size is not None:
            sizes |= {(number, row): record.pixel_size for row in rows}
    documents = []
    for (number, flipped, halves, cropped), names in chosen.items():
        document = standing.sources[number].table.select(
            names, phase_flipped=flipped, halves=_half_names(names) if halves else None, folder=folder
        )
        if cropped:
            set_pixel_sizes(document, [sizes[number, row] for row in sorted(names)])
        documents.append(document)
    return documents


def _half_names(names: Mapping[int, str]) -> dict[int, tuple[str, str]]:
    """Return the names of the denoised halves beside outputs."""
    pairs = {row: half_outputs(Path(name)) for row, name in names.items()}
    return {row: (str(even), str(odd)) for row, (even, odd) in pairs.items()}


def _failed(standing: Standing, folder: Path) -> list[StarDocument]:
    """Return the rows of micrographs that were refused or failed, a document for each source table."""
    chosen: dict[int, list[int]] = {}
    for name, record, number, _ in rows_of(standing):
        if record.status in UNUSABLE:
            chosen.setdefault(number, []).extend(standing.sources[number].rows(name))
    return [standing.sources[number].table.select_rows(sorted(rows), folder=folder) for number, rows in chosen.items()]


def rows_of(standing: Standing) -> Iterator[tuple[str, Record, int, list[int]]]:
    """Yield name, record, number of the source table and rows in it of each micrograph, in the order of the tables.

    A row is taken from the largest table that says of it what the run's own table said, so that a table of a few
    micrographs, such as failed.star, does not take them out of their order.
    """
    numbers = {source.file: number for number, source in enumerate(standing.sources)}
    for name, source in standing.names():
        record = standing.record(name)
        if record is None or source is None:
            continue
        number = numbers[source.file]
        rows = source.rows(name)
        own = numbers.get(record.table.file) if record.table else None
        if own is not None and own != number and name in standing.sources[own].first_row:
            expected = standing.sources[own].values(name)
            candidates = (index for index, each in enumerate(standing.sources) if name in each.first_row)
            number = next(index for index in candidates if standing.sources[index].values(name)[0] == expected[0])
            said = zip(standing.sources[number].rows(name), standing.sources[number].values(name), strict=True)
            rows = [row for row, values in said if values in expected]
        yield name, record, number, rows


def prefix(source: SourceTable, output: Path) -> str:
    """Return what stands before the name of an output, relative to its folder, in a table."""
    name = source.table.name_of(output)
    return "" if name == "." else f"{name.rstrip('/')}/"


def _write(path: Path, documents: Sequence[StarDocument]) -> list[Path]:
    """Write documents with different columns beside each other: denoised.star, denoised-2.star and so on."""
    paths = [path, *(path.with_stem(f"{path.stem}-{number}") for number in range(2, len(documents) + 1))]
    for part, document in zip(paths, documents, strict=False):
        document.write(part)
    for stale in [*paths[len(documents) :], *_parts_beyond(path, len(documents))]:
        with suppress(OSError):
            stale.unlink(missing_ok=True)
            for series in series_folder(stale).glob("*.star"):
                series.unlink()
            series_folder(stale).rmdir()
    return paths[: len(documents)]


def _parts_beyond(path: Path, count: int) -> list[Path]:
    """Find further parts that an earlier account had, and this one has not."""
    found = []
    number = max(count, 1) + 1
    while (part := path.with_stem(f"{path.stem}-{number}")).exists():
        found.append(part)
        number += 1
    return found
