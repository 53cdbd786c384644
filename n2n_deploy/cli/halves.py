"""The options that say where the micrographs of a table and their halves are, shared by the commands that read them."""

from pathlib import Path
from typing import Annotated

import typer

from n2n_deploy.core.errors import UsageError

_FILES = "Files"

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        help="Folder the table's relative paths start at; by default the current one, the table's or one above it.",
        rich_help_panel=_FILES,
    ),
]

SuffixesOption = Annotated[
    str | None,
    typer.Option(
        "--suffixes",
        metavar="DW,EVN,ODD",
        help="How the names of whole, even and odd sums end, where the table does not name the halves.",
        rich_help_panel=_FILES,
    ),
]

EvenOption = Annotated[
    str | None,
    typer.Option(
        "--even",
        metavar="TEMPLATE",
        help="Name of the even half, such as '{folder}/{stem}_EVN.mrc' from the whole sum's.",
        rich_help_panel=_FILES,
    ),
]

OddOption = Annotated[
    str | None,
    typer.Option("--odd", metavar="TEMPLATE", help="Name of the odd half.", rich_help_panel=_FILES),
]


def parse_suffixes(text: str | None) -> tuple[str, str, str] | None:
    """Take apart what was given as DW,EVN,ODD.

    Raises:
        UsageError: they are not three.
    """
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"--suffixes {text}: expected three, of the whole, even and odd sums, such as DW,EVN,ODD")
    return parts[0], parts[1], parts[2]
