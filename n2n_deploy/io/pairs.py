"""Whether micrographs come with even and odd halves, or their full exposures have to do."""

from collections.abc import Callable
from typing import get_args

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import Pairs
from n2n_deploy.io.micrograph_table import MicrographTable


def read_pairs(read: Callable[[bool], MicrographTable], pairs: str) -> tuple[MicrographTable, bool]:
    """Read a table with or without halves.

    Args:
        read: reads it; told whether every micrograph must have halves.
        pairs: "halves", "recorrupted", or "auto": halves where the table or the options name them.

    Returns:
        The table, and whether its halves are to be used.

    Raises:
        UsageError: `pairs` is none of the three.
        DataError: as `read` does; a micrograph without halves among others with them is a problem of the table.
    """
    if pairs not in get_args(Pairs):
        raise UsageError(f"invalid --pairs {pairs!r}; choose {', '.join(get_args(Pairs))}")
    if pairs == "halves":
        return read(True), True
    table = read(False)
    if pairs == "auto" and any(None not in (each.even, each.odd) for each in table.micrographs):
        return read(True), True
    return table, False
