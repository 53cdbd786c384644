"""`n2n-deploy merge-results`: tables, summary and report of all shards of a job array."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, out, print_json


def merge_results_command(
    folders: Annotated[
        list[Path], typer.Argument(help="Output folders of n2n-deploy denoise, with or without shards.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where tables and report go; by default the folder, if only one is given."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the tables and the report of shards, or of several output folders.

    [bold]n2n-deploy merge-results Denoised[/]

    Writes [bold]denoised.star[/], failed.star, summary.json and [bold]report.html[/]. Exit code 0 if every shard has
    ended and every micrograph has its output, otherwise 1.
    """
    del config
    from n2n_deploy.batch.merge import merge_results

    merged = merge_results(folders, output)
    if as_json:
        print_json(merged.summary)
    else:
        summary = merged.summary
        out.print(f"{summary['listed']} micrographs in {escape(str(summary['table']))}", soft_wrap=True)
        if summary["failures"]:
            out.print(
                f"{len(summary['failures'])} failed: {escape(str(merged.folder / 'failed.star'))}", soft_wrap=True
            )
        if summary["report"]:
            out.print(f"report: {escape(summary['report'])}", soft_wrap=True)
        if merged.missing:
            out.print(f"shards that have not ended: {', '.join(merged.missing)}", soft_wrap=True)
    raise typer.Exit(merged.exit_code)
