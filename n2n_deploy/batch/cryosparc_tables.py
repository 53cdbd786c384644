"""`denoised.cs` and `denoised.csg`: what `denoised.star` lists, where it came from cryoSPARC's exposures."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from n2n_deploy.batch.ledger import FOLDER, Record
from n2n_deploy.batch.source_tables import TABLES
from n2n_deploy.batch.standing import Standing
from n2n_deploy.batch.status import FINISHED, Status
from n2n_deploy.batch.tables import prefix, rows_of
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.output_grid import output_grid
from n2n_deploy.io.cryosparc_output import Denoised, Table, join, load_exposures, with_images, write_group

DENOISED_CS = "denoised.cs"


def write_exposures(folder: Path, standings: Sequence[Standing]) -> None:
    """Write the table and its group file; where nothing came from cryoSPARC, those of an earlier run are removed.

    Exposures with other columns go to `denoised-2.cs` and so on, like those of `denoised.star`.

    Args:
        folder: where to.
        standings: of the output folders that they list.

    Raises:
        HostError: they cannot be written.
    """
    with waiting_for(f"writing {folder / DENOISED_CS}"):
        tables = join([table for standing in standings for table in _finished(standing)])
        path = folder / DENOISED_CS
        names = (path if number == 1 else path.with_stem(f"{path.stem}-{number}") for number in count(1))
        for table in tables:
            write_group(next(names), table)
        stale = next(names)
        while stale.exists():
            for each in (stale, stale.with_suffix(".csg")):
                each.unlink(missing_ok=True)
            stale = next(names)


def _finished(standing: Standing) -> list[Table]:
    """Return the rows of finished micrographs, a table for each source."""
    folder = standing.layout.output / FOLDER / TABLES
    copies: dict[int, Table] = {}
    for number, source in enumerate(standing.sources):
        with suppress(DataError):
            table = load_exposures(folder / Path(source.file).with_suffix(".cs"))
            if len(table) == len(source.names):
                copies[number] = table
    chosen: dict[int, dict[int, Denoised]] = {}
    if not copies:
        return []
    for name, record, number, rows in rows_of(standing):
        if record.status in FINISHED and number in copies:
            path = prefix(standing.sources[number], standing.layout.output) + standing.layout.relative(name)
            image = _image(path, record, copies[number], rows[0])
            chosen.setdefault(number, {}).update(dict.fromkeys(rows, image))
    return [with_images(copies[number], images) for number, images in chosen.items()]


def _image(path: str, record: Record, table: Table, row: int) -> Denoised:
    """Describe an output; of one that other work left there only the name is known."""
    if record.status is Status.KEPT:
        return Denoised(path)
    options = record.run.header["options"]
    shape = None
    if record.pixel_size is not None and "micrograph_blob/shape" in (table.dtype.names or ()):
        height, width = map(int, table["micrograph_blob/shape"][row])
        raw = float(table["micrograph_blob/psize_A"][row])
        shape = output_grid((height, width), raw, options["output_pixel_size"]).shape
    return Denoised(path, options["dtype"], shape, record.pixel_size)
