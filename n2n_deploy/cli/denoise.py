"""`n2n-deploy denoise`: micrographs in, denoised micrographs, tables and a summary out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, save_config
from n2n_deploy.cli.halves import EvenOption, OddOption, SuffixesOption, parse_suffixes

if TYPE_CHECKING:
    from n2n_deploy.batch.summary import Summary

_PIXELS, _FILES, _MACHINE = "What is written", "Files", "Machine"


def denoise_command(
    ctx: typer.Context,
    micrographs: Annotated[
        list[str],
        typer.Argument(help="A STAR file, or MRC files or globs (with a model trained with --no-phase-flip)."),
    ],
    model: Annotated[Path, typer.Argument(help="The bundle that n2n-deploy export made (MODEL.n2n).")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output folder; the inputs' folders are mirrored under it.")
    ],
    merge: Annotated[
        float | None,
        typer.Option(
            "--merge",
            metavar="Å",
            help="Keep the noisy image's frequencies above 1/Å, so that nothing beyond the model's reach is lost.",
            rich_help_panel=_PIXELS,
        ),
    ] = None,
    merge_width: Annotated[
        float,
        typer.Option("--merge-width", metavar="Å", help="Width of the merge band.", rich_help_panel=_PIXELS),
    ] = 1.0,
    flip_back: Annotated[
        bool,
        typer.Option(
            "--flip-back",
            help="Undo the phase flip, for programs that correct the CTF themselves.",
            rich_help_panel=_PIXELS,
        ),
    ] = False,
    lowpass: Annotated[
        float | None,
        typer.Option("--lowpass", metavar="Å", help="A further soft low-pass.", rich_help_panel=_PIXELS),
    ] = None,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment",
            help="Average the network over the eight flips and quarter turns of each image, at eight times the cost.",
            rich_help_panel=_PIXELS,
        ),
    ] = False,
    average_halves: Annotated[
        bool,
        typer.Option(
            "--average-halves",
            help="Denoise the even and the odd half, at the noise level of the training, and average them.",
            rich_help_panel=_PIXELS,
        ),
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32 or float16 (half the disk).", rich_help_panel=_PIXELS)
    ] = "float32",
    on_exists: Annotated[
        str,
        typer.Option(
            "--on-exists",
            help="Outputs that are there and were made by other work: error, skip (keep them) or overwrite. Finished "
            "outputs of the same model and options are recognised and never made again.",
            rich_help_panel=_FILES,
        ),
    ] = "error",
    suffixes: SuffixesOption = None,
    even: EvenOption = None,
    odd: OddOption = None,
    project: Annotated[
        Path | None,
        typer.Option("--project", help="Folder the table's relative paths start at.", rich_help_panel=_FILES),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, gpu or cuda:N.", rich_help_panel=_MACHINE)
    ] = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Most memory to use, such as 3GB; tiles are chosen to fit. By default a share of what is free.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="CPU threads of the network; all by default.", rich_help_panel=_MACHINE),
    ] = None,
    lanes: Annotated[
        int, typer.Option("--lanes", min=1, help="Micrographs in hand at once.", rich_help_panel=_MACHINE)
    ] = 2,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report", help="Write report.html, with a picture of each micrograph.", rich_help_panel=_FILES
        ),
    ] = True,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Denoise micrographs with a trained model.

    [bold]n2n-deploy denoise micrographs.star model.n2n -o Denoised[/]

    Writes one MRC per micrograph under the output folder with the input's size, pixel size and grey scale,
    [bold]denoised.star[/] with every column of the input table, [bold]failed.star[/] with what could not be done,
    log.jsonl, summary.json and [bold]report.html[/]. A file that cannot be used costs that file alone. Run the same
    command again to go on after an interruption.
    """
    del config
    from n2n_deploy.batch.options import parse_options
    from n2n_deploy.batch.run import denoise
    from n2n_deploy.memory import parse_bytes

    options = parse_options(
        merge_resolution=merge,
        merge_width=merge_width,
        flip_back=flip_back,
        lowpass=lowpass,
        augment=augment,
        average_halves=average_halves,
        dtype=dtype,
        on_exists=on_exists,
        device=device,
        memory=parse_bytes(memory) if memory else None,
        threads=threads,
        lanes=lanes,
        report=report,
    )
    source = micrographs[0] if len(micrographs) == 1 else micrographs
    with _Bar(quiet=as_json) as bar:
        summary = denoise(
            source,
            model,
            output,
            options=options,
            project=project,
            suffixes=parse_suffixes(suffixes),
            even_template=even,
            odd_template=odd,
            progress=bar.update,
        )
    save_config(ctx, output)
    if as_json:
        print_json(summary.as_dict())
    else:
        _print_summary(summary)
    raise typer.Exit(summary.exit_code)


class _Bar:
    """A progress bar with the time left; failures are printed above it as they happen."""

    def __init__(self, *, quiet: bool) -> None:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(TextColumn("denoising"), *columns, console=err, disable=quiet)
        self._task: Any = None

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, event: Any) -> None:
        from n2n_deploy.batch.plan import Status

        if event.outcome is None:
            todo = len(event.plan.with_status(Status.TODO))
            self._task = self._progress.add_task("", total=todo)
            for job in event.plan.with_status(Status.REFUSED):
                self._say("refused", job.reason)
            return
        self._progress.update(self._task, completed=event.finished)
        if event.outcome.error:
            self._say("failed", event.outcome.error)
        for note in event.outcome.notes:
            self._say("note", f"{event.outcome.job.micrograph.name}: {note}", "yellow")

    def _say(self, kind: str, text: str, colour: str = "red") -> None:
        self._progress.console.print(f"[{colour}]{kind}:[/] {escape(text)}", soft_wrap=True)


def _print_summary(summary: "Summary") -> None:
    """A small table: how many, how fast, where the time went."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("denoised", str(summary.denoised))
    for label, count in (
        ("done before", summary.already_done),
        ("kept, of other work", summary.kept),
        ("failed", len(summary.failures)),
        ("not begun", summary.not_begun),
    ):
        if count:
            table.add_row(label, str(count))
    if summary.denoised:
        rate = f"{summary.seconds:.1f} s, {summary.megapixels / summary.seconds:.2f} Mpx/s"
        table.add_row("time", rate)
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in summary.stage_seconds.items())
        table.add_row("seconds by stage", stages)
    table.add_row("output", str(summary.table or summary.output))
    if summary.report:
        table.add_row("report", str(summary.report))
    out.print(table)
    if summary.failures:
        out.print(f"what failed, with reasons: {summary.output / 'failed.star'} and {summary.output / 'log.jsonl'}")
