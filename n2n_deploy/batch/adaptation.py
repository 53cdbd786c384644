"""The one adaptation of a table: which micrographs a model is adapted to, and the adapted bundle that is kept.

How it is made is the business of who calls: nothing here trains.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from n2n_deploy.batch.options import OnExists
from n2n_deploy.batch.repeated_rows import without_repeated
from n2n_deploy.batch.request import Request
from n2n_deploy.bundle.adaptation import Adaptation
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import BundleError, DataError, UsageError
from n2n_deploy.io.micrograph_table import MicrographTable
from n2n_deploy.io.records import Micrograph

ADAPTED = "adapted.n2n"
"""The adapted bundle in the output folder."""

FOLDER = "adaptation"
"""Where the training's files are, in the output folder, a folder for each key."""

LOCK = ".adaptation.lock"
"""Held by the process that adapts."""

MOST = 32
"""Micrographs that a model is adapted to: in minutes a network does not see more, and cutting patches takes time."""

FIRST = 16
"""Micrographs that a model is adapted to where they arrive one after the other."""


def choose(table: MicrographTable) -> MicrographTable:
    """Return some of a table's usable micrographs, evenly spaced: with halves, where at least one of them has them.

    Raises:
        DataError: none can be used.
    """
    usable = [each for each in without_repeated(table.micrographs) if each.row not in table.problems]
    if not usable:
        first = next(iter(table.problems.values()), "the table has no rows")
        raise DataError(f"{table.path}: no micrograph can be used to adapt the model, the first because {first}")
    count = min(MOST, len(usable))
    chosen = [usable[index * len(usable) // count] for index in range(count)]
    rows = [replace(each, row=row) for row, each in enumerate([each for each in chosen if has_halves(each)] or chosen)]
    return MicrographTable(table.path, rows, {}, table.project)


def has_halves(micrograph: Micrograph) -> bool:
    """Whether both halves of a micrograph are there."""
    return all(half is not None and half.is_file() for half in (micrograph.even, micrograph.odd))


def plan_adaptation(request: Request, minutes: float, rows: Sequence[str]) -> Adaptation:
    """Describe the adaptation of a request's bundle to rows with these hashes."""
    bundle = request.bundle
    facts = [bundle.short_hash, bundle.recipe.model_dump(), request.options.invert, minutes, list(rows)]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return Adaptation(key=key, model=bundle.path.name, hash=bundle.short_hash, minutes=minutes, rows=tuple(rows))


def hashes(micrographs: Sequence[Micrograph]) -> list[str]:
    """Hash each row: its name, optics and CTF."""
    facts = ([each.name, asdict(each.optics), asdict(each.ctf) if each.ctf else None] for each in micrographs)
    return [hashlib.sha256(json.dumps(row).encode()).hexdigest()[:12] for row in facts]


def find_adapted(request: Request, table: MicrographTable | None, minutes: float) -> Bundle | None:
    """Return the bundle in the output folder if it is this model's, adapted for so long to rows that are in the table.

    A table that has grown since keeps it: another model would make all outputs anew.

    Args:
        request: with the model as it was.
        table: as it is now; None if there is none yet.
        minutes: of adaptation.

    Raises:
        UsageError: there is another adapted bundle, which outputs may have been made with.
    """
    path = request.output / ADAPTED
    if not path.exists():
        return None
    with suppress(BundleError):
        bundle = Bundle.open(path)
        found = Adaptation.of(bundle)
        rows = set(hashes(table.micrographs)) if table else set()
        if found and rows.issuperset(found.rows) and plan_adaptation(request, minutes, found.rows) == found:
            return bundle
    if request.options.on_exists is OnExists.ERROR:
        raise UsageError(
            f"{path}: was adapted to other micrographs, from another model or for another time than {minutes:g} min; "
            "choose another output folder, or --on-exists overwrite"
        )
    return None


def read_table(request: Request) -> MicrographTable | None:
    """Read the table as it is now, also where it is only about to grow; None if there is nothing yet."""
    sources = request.paths
    globs = [f"{source}/**/*.mrc" if Path(source).is_dir() else source for source in sources]
    with suppress(DataError):
        return request.read(globs[0] if len(globs) == 1 else globs)
    return None
