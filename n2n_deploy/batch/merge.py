"""`merge_results`: one account of all shards of a table, or of several output folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_deploy.batch.account import LOCK, write_files
from n2n_deploy.batch.ledger import FOLDER, Ledger, Run
from n2n_deploy.batch.ledger_writer import write_joined
from n2n_deploy.batch.report import describe_runs
from n2n_deploy.batch.standing import Standing
from n2n_deploy.batch.summary import summarise
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.files.atomic import make_writable_folder, remove_stale_temporaries
from n2n_deploy.files.locks import locked


@dataclass(frozen=True)
class Merged:
    """The account of several runs.

    Attributes:
        folder: where it is.
        missing: shards that have not ended, such as "3-of-8".
        summary: as `summary.json` holds it.
    """

    folder: Path
    missing: Sequence[str]
    summary: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 if every shard has ended and every micrograph has its output, otherwise 1."""
        return 1 if self.missing or self.summary["failures"] or self.summary["not_begun"] else 0


def merge_results(folders: Sequence[Path | str], into: Path | str | None = None) -> Merged:
    """Write tables, summary and report about all runs in the ledgers of output folders.

    A micrograph that one shard failed and a later run denoised counts as done. Merging again, when more shards have
    ended, brings the account up to date.

    Args:
        folders: output folders.
        into: where the account goes; by default the folder, if only one is given. The outputs stay where they are.

    Raises:
        UsageError: several folders, and no place for the account.
        DataError: a folder has no ledger, or none of its shards has ended.
        HostError: the account cannot be written.
    """
    outputs = [Path(folder).absolute() for folder in folders]
    if into is None and len(outputs) != 1:
        raise UsageError(f"{len(outputs)} folders are given; say with -o where their common account goes")
    target = outputs[0] if into is None else Path(into).absolute()
    for output in outputs:
        if not any((output / FOLDER).glob("*.jsonl")):
            raise DataError(f"{output}: has no ledger; give the output folders of n2n-deploy denoise")
        remove_stale_temporaries(output)
    make_writable_folder(target)
    if others := [output for output in outputs if output != target]:
        ledgers = [Ledger.read(folder) for folder in (target, *others)]
        write_joined(target, [*others, *(folder for ledger in ledgers for folder in ledger.joined)])
    with locked(target / LOCK):
        standings = Standing.of(target)
        runs = [run for standing in standings for run in standing.ledger.runs]
        if not runs:
            raise DataError(f"{target}: its ledger is damaged; run n2n-deploy denoise again")
        missing = missing_shards(runs)
        summary = summarise(target, standings, runs, None)
        summary.stopped_by = summary.gave_up = None
        summary.run = {name: value for name, value in summary.run.items() if name not in ("host", "shard")}
        reports = any(run.header["options"]["report"] for run in runs)
        info = describe_runs(runs, summary, missing) if reports else None
        parts = [{"run": run.path.stem, "host": run.header["host"]["name"], "shard": run.shard} for run in runs]
        more = {"missing": missing, "runs": parts}
        write_files(target, summary, standings, info, **more)
    return Merged(target, missing, summary.as_dict() | more)


def missing_shards(runs: Sequence[Run]) -> list[str]:
    """Return the shards that have not ended.

    A table that was divided anew is complete with either division.

    Raises:
        DataError: no shard has ended.
    """
    shards = {run.shard for run in runs if run.shard}
    ended = {run.shard for run in runs if run.shard and run.end is not None}
    if shards and not ended:
        raise DataError(f"{runs[0].path.parent}: no shard has ended yet; wait for one")
    lacking = [
        [f"{index}-of-{count}" for index in range(1, count + 1) if (index, count) not in ended]
        for count in {count for _, count in shards}
    ]
    return min(lacking, key=len, default=[])
