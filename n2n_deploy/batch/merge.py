"""`merge_results`: the accounts of shards, or of several output folders, made one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_deploy.batch.ledger_writer import merge_logs
from n2n_deploy.batch.merge_report import merge_reports
from n2n_deploy.batch.outputs import BASE, SUMMARY, OutputLayout
from n2n_deploy.batch.request import SHARDS
from n2n_deploy.batch.tables import DENOISED, FAILED, located, locked, names_in, write_merged
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.files.atomic import atomic_write, make_writable_folder, remove_stale_temporaries
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table
from n2n_deploy.io.star_join import append_table

_SUMMED = ("denoised", "already_done", "kept", "not_begun", "megapixels")


@dataclass(frozen=True)
class Part:
    """One account.

    Attributes:
        output: the output folder.
        folder: where its tables and summary are.
        summary: as `summary.json` holds it.
    """

    output: Path
    folder: Path
    summary: dict[str, Any]

    @property
    def mirror(self) -> OutputLayout:
        """Where its outputs went."""
        return OutputLayout(self.output, self.summary[BASE])


@dataclass(frozen=True)
class Merged:
    """What was joined.

    Attributes:
        folder: where the joined account is.
        missing: shards that have not ended, such as "3-of-8".
        summary: the joined summary.
    """

    folder: Path
    missing: Sequence[str]
    summary: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 where all parts are there and every micrograph has its output, otherwise 1."""
        return 1 if self.missing or self.summary["failures"] or self.summary["not_begun"] else 0


def merge_results(folders: Sequence[Path | str], into: Path | str | None = None) -> Merged:
    """Join tables, `summary.json`, `log.jsonl` and `report.html` of the parts of a job.

    The parts of a folder are its shards where it has any, or else itself. A micrograph that one part failed and
    another did, or a later run over the folder, counts as done. Merging again, when more shards have ended, brings the
    account up to date.

    Args:
        folders: output folders.
        into: where the joined account goes; by default the folder, where one is given.

    Raises:
        UsageError: several folders, and no place to join them at.
        DataError: a folder holds no account, or the tables have different columns.
        HostError: the account cannot be written.
    """
    outputs = [Path(folder).absolute() for folder in folders]
    if into is None and len(outputs) != 1:
        raise UsageError(f"{len(outputs)} folders are to be joined; say where to with -o")
    target = outputs[0] if into is None else Path(into).absolute()
    parts: list[Part] = []
    missing: list[str] = []
    for output in outputs:
        found, lacking = _parts(output)
        parts += found
        missing += lacking
        remove_stale_temporaries(output)
    ended = {part.folder.name for part in parts}
    missing = [name for name in missing if name not in ended]
    make_writable_folder(target)
    with locked(target):
        done = _merge_denoised(parts, target)
        failures = {
            name: reason
            for part in parts
            for name, reason in part.summary["failures"].items()
            if str(part.mirror(name)) not in done
        }
        _merge_failed(parts, target, failures)
        summary = {
            **parts[0].summary,
            "output": str(target),
            "table": str(target / DENOISED) if (target / DENOISED).exists() else None,
            "listed": len(names_in(target / DENOISED)),
            **{key: sum(part.summary[key] for part in parts) for key in _SUMMED},
            "failed": len(failures),
            "failures": failures,
            "notes": {name: notes for part in parts for name, notes in part.summary["notes"].items()},
            "seconds": max(part.summary["seconds"] for part in parts),
            "missing": missing,
            "parts": [{"folder": str(part.folder), "host": part.summary["host"]["name"]} for part in parts],
        }
        summary = {
            key: value for key, value in summary.items() if key not in ("megapixels_per_second", "shard", "host")
        }
        merge_logs([part.folder for part in parts], target)
        report = merge_reports([(part.folder, part.mirror) for part in parts], target, summary)
        summary["report"] = str(report) if report else None
        with atomic_write(target / SUMMARY) as stream:
            stream.write((json.dumps(summary, indent=2) + "\n").encode())
    return Merged(target, missing, summary)


def _parts(output: Path) -> tuple[list[Part], list[str]]:
    """The accounts in an output folder, shards in order, and the shards that have none."""
    folders = sorted(
        (output / SHARDS).glob("*-of-*"), key=lambda folder: [int(n) for n in folder.name.split("-of-")][::-1]
    )
    if not folders:
        return [Part(output, output, _summary(output / SUMMARY))], []
    parts = [Part(output, folder, _summary(folder / SUMMARY)) for folder in folders if (folder / SUMMARY).exists()]
    if not parts:
        raise DataError(f"{output / SHARDS}: no shard has ended yet; wait for one")
    ended = {part.folder.name for part in parts}
    counts = {int(folder.name.partition("-of-")[2]) for folder in folders}
    lacking = [[f"{i}-of-{count}" for i in range(1, count + 1) if f"{i}-of-{count}" not in ended] for count in counts]
    # A job that was divided anew is complete with either division.
    return parts, min(lacking, key=len)


def _summary(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if {"failures", "notes", BASE, *_SUMMED} <= content.keys():
            return dict(content)
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror})"
        raise DataError(f"{problem}; give the output folders of n2n-deploy denoise") from error
    except (ValueError, AttributeError):
        pass
    raise DataError(f"{path}: is no summary of a batch; give the output folders of n2n-deploy denoise")


def _merge_denoised(parts: Sequence[Part], target: Path) -> set[str]:
    """Write the joined table; return the outputs that it lists, those of later runs over the folder among them."""
    joined: StarDocument | None = None
    done: set[str] = set()
    # The last part to list a micrograph has the last word on it.
    for part in reversed(parts):
        path = part.folder / DENOISED
        places = [str(located(name, part.output)) for name in names_in(path)]
        fresh = [row for row, place in enumerate(places) if place not in done]
        if fresh:
            document = _rows(path, fresh)
            if joined is not None:
                append_table(document, joined)
            joined = document
            done.update(places)

    def keep(name: str) -> bool:
        place = located(name, target)
        return str(place) not in done and place.exists()

    write_merged(target / DENOISED, joined, keep)
    return done.union(str(located(name, target)) for name in names_in(target / DENOISED))


def _merge_failed(parts: Sequence[Part], target: Path, failures: dict[str, str]) -> None:
    """Write the joined table of what is to be tried again."""
    joined: StarDocument | None = None
    listed: set[str] = set()
    for part in parts:
        names = names_in(part.folder / FAILED)
        rows = [row for row, name in enumerate(names) if name in failures and name not in listed]
        if rows:
            document = _rows(part.folder / FAILED, rows)
            listed.update(names)
            if joined is None:
                joined = document
            else:
                append_table(joined, document)
    write_merged(target / FAILED, joined, lambda _: False)


def _rows(path: Path, rows: Sequence[int]) -> StarDocument:
    """A table with some of its rows."""
    document = StarDocument.read(path)
    table, _ = micrograph_table(document)
    if len(rows) < len(document.columns(table, (NAME,))[NAME]):
        document.keep_rows(table, rows)
    return document
