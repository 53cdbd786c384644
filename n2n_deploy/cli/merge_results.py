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
        typer.Option("--output", "-o", help="Output folder. By default the input folder, if there is only one."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the tables and the report of the shards of a job array, or of several output folders.

    [bold]n2n-deploy merge-results Denoised[/]

    Writes [bold]denoised.star[/], failed.star, summary.json and [bold]report.html[/] of all shards. The exit code is 0
    if every shard has ended and every micrograph has an output, otherwise 1.

    """
    from n2n_deploy.batch.merge import merge_results
    from n2n_deploy.batch.summary import PHASES_FLIPPED

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
        if summary["phases_flipped"] and summary["listed"]:
            out.print(PHASES_FLIPPED, soft_wrap=True)
        if merged.missing:
            out.print(f"unfinished shards: {', '.join(merged.missing)}", soft_wrap=True)
    raise typer.Exit(merged.exit_code)
