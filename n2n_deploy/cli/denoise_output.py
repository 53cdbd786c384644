"""What `n2n-deploy denoise` shows: progress, a forecast, and the account at the end."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from n2n_deploy.cli.common import err, out, print_json
from n2n_deploy.cli.progress import LateProgress
from n2n_deploy.device.memory import size_text

if TYPE_CHECKING:
    from n2n_deploy.batch.request import Request
    from n2n_deploy.batch.summary import Summary


class Bar:
    """A progress bar with the time left; failures are printed above it as they happen."""

    def __init__(self, *, quiet: bool) -> None:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = LateProgress(TextColumn("denoising"), *columns, console=err, disable=quiet)
        self._task: Any = None
        self._total = 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, event: Any) -> None:
        """Take a `Progress` of the batch."""
        from n2n_deploy.batch.status import Status

        if event.outcome is None:
            self._total += len(event.plan.with_status(Status.PENDING))
            if self._task is None:
                self._task = self._progress.add_task("", total=self._total)
                if self._progress.console.is_terminal:  # elsewhere it would only stand above what ends the run early
                    self._progress.start()
            self._progress.update(self._task, total=self._total)
            for job in event.plan.with_status(Status.REFUSED):
                self._say("refused", job.reason)
            return
        self._progress.start()
        self._progress.advance(self._task)
        if event.outcome.error:
            self._say("failed", event.outcome.error)
        for note in event.outcome.notes:
            self._say("note", f"{event.outcome.job.micrograph.name}: {note}", "yellow")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(escape(text), soft_wrap=True)

    def _say(self, kind: str, text: str, colour: str = "red") -> None:
        self._progress.console.print(f"[{colour}]{kind}:[/] {escape(text)}", soft_wrap=True)


def print_dry_run(request: "Request", *, as_json: bool) -> NoReturn:
    """Print what a run would do, and end with the exit code that it would end with."""
    from n2n_deploy.batch.dry_run import forecast
    from n2n_deploy.batch.status import Status

    found = forecast(request)
    if as_json:
        print_json(found.as_dict())
        raise typer.Exit(found.exit_code)
    table = Table(show_header=False, box=None, pad_edge=False)
    for status in Status:
        if count := len(found.plan.with_status(status)):
            table.add_row(status.value, str(count))
    table.add_row("disk", f"{size_text(found.plan.bytes_needed)} needed, {size_text(found.plan.bytes_free)} free")
    if found.kinds:
        for line in found.memory.lines() if found.memory else ():
            title, _, text = line.rpartition(": ")
            table.add_row(title, text)
        table.add_row("engine", f"{found.session}, {found.lanes} lanes")
    for kind in found.kinds:
        ny, nx = kind.shape
        each = "" if kind.seconds is None else f", {kind.seconds:.2f} s each"
        table.add_row(f"{kind.count} of {ny}×{nx}", f"{kind.pixel_size:g} Å/px, {kind.tiles} tiles each{each}")
    if found.seconds is not None:
        table.add_row("time expected", f"{timedelta(seconds=round(found.seconds))}, writing apart")
    out.print(table)
    for job in found.plan.with_status(Status.REFUSED):
        out.print(f"[red]refused:[/] {escape(job.reason)}", soft_wrap=True)
    if found.obstacle:
        out.print(f"[bold red]would not start:[/] {escape(found.obstacle)}", soft_wrap=True)
    raise typer.Exit(found.exit_code)


def print_summary(summary: "Summary") -> None:
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
    if summary.gave_up:
        table.add_row("ended early", summary.gave_up)
    if summary.listed > summary.denoised + summary.already_done + summary.kept:
        table.add_row("in the folder", str(summary.listed))
    table.add_row("output", str(summary.table or summary.output))
    if summary.report:
        table.add_row("report", str(summary.report))
    out.print(table)
    if summary.run["shard"]:
        out.print(f"when all shards have ended: n2n-deploy merge-results {summary.output}")
    elif summary.failures:
        out.print(f"failed: {summary.output / 'failed.star'}; reasons: {summary.output / 'summary.json'}")
