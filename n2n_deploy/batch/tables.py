"""The tables of an output folder: they list what is in the folder, whichever runs did it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table
from n2n_deploy.io.star_join import append_table

DENOISED, FAILED = "denoised.star", "failed.star"
_LOCK = ".tables.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one run at a time rewrite the tables of a folder; where the file system has no locks, do without."""
    with suppress(OSError):
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
        return
    yield


def names_in(path: Path) -> list[str]:
    """The micrographs that a table lists; none where it is missing or damaged."""
    try:
        document = StarDocument.read(path)
        table, _ = micrograph_table(document)
        return document.columns(table, (NAME,))[NAME]
    except DataError:
        return []


def write_merged(path: Path, document: StarDocument | None, keep: Callable[[str], bool]) -> str | None:
    """Write a table that lists a run's micrographs, and before them those of earlier runs that still count.

    Args:
        path: the table; what it held is the earlier runs' account.
        document: the run's rows; None where it has none.
        keep: whether a row of the earlier table counts, by its name.

    Returns:
        A line about rows that could not be kept in the same table and lie in another; None where all is well.

    Raises:
        HostError: the table cannot be written.
    """
    earlier, note = None, None
    if any(keep(name) for name in names_in(path)):
        earlier = StarDocument.read(path)
        table, _ = micrograph_table(earlier)
        names = earlier.columns(table, (NAME,))[NAME]
        if table.is_loop:
            earlier.keep_rows(table, [row for row, name in enumerate(names) if keep(name)])
    if earlier is not None and document is not None:
        try:
            append_table(earlier, document)
            document = earlier
        except DataError as error:
            aside = _aside(path)
            earlier.write(aside)
            note = f"{aside.name} lists what earlier runs did, in a table of its own: {error}"
    document = document or earlier
    if document is None:
        path.unlink(missing_ok=True)
    else:
        document.write(path)
    return note


def located(name: str, output: Path) -> Path:
    """The output that a name in a table of the output folder means, whichever project folder it starts at."""
    if name.startswith("/"):
        return Path(name)
    for folder in output.parents:
        if f"{name}/".startswith(f"{output.relative_to(folder)}/"):
            return folder / name
    return output / name


def _aside(path: Path) -> Path:
    """A name beside the table's that is free."""
    number = 1
    while (aside := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return aside
