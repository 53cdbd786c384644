"""What `n2n-deploy denoise` shows: progress, a forecast, and the account at the end."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.markup import escape

from n2n_deploy.cli.common import out, print_json, print_rows
from n2n_deploy.cli.progress import MicrographProgress
from n2n_deploy.core.sizes import size_text

if TYPE_CHECKING:
    from n2n_deploy.batch.request import Request
    from n2n_deploy.batch.summary import Summary


class DenoiseProgress(MicrographProgress):
    """The progress of a batch; refusals, failures and notes are printed as they happen."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("denoising", "denoised", quiet=quiet)
        self._said: set[str] = set()

    def update(self, event: Any) -> None:
        """Show a `Progress` of the batch."""
        from n2n_deploy.batch.status import Status

        if event.outcome is None:  # a plan; with --watch one after the other
            self.expect(self.total + len(event.plan.with_status(Status.PENDING)))
            for note in event.plan.notes:
                if note not in self._said:
                    self._said.add(note)
                    self.say(note, "note", "yellow")
            for job in event.plan.with_status(Status.REFUSED):
                self.say(job.reason, "refused")
            return
        self.advance(failed=bool(event.outcome.error))
        if event.outcome.error:
            self.say(event.outcome.error, "failed")
        for note in event.outcome.notes:
            self.say(f"{event.outcome.job.micrograph.name}: {note}", "note", "yellow")


def print_dry_run(request: "Request", *, as_json: bool) -> NoReturn:
    """Print what a run would do, and exit with the code that it would have."""
    from n2n_deploy.batch.dry_run import forecast
    from n2n_deploy.batch.status import Status

    found = forecast(request)
    if as_json:
        print_json(found.as_dict())
        raise typer.Exit(found.exit_code)
    counts = ((status.value, len(found.plan.with_status(status))) for status in Status)
    rows = [(status, str(count)) for status, count in counts if count]
    rows.append(("disk", f"{size_text(found.plan.bytes_needed)} needed, {size_text(found.plan.bytes_free)} free"))
    if found.kinds:
        for line in found.memory.lines() if found.memory else ():
            title, _, text = line.rpartition(": ")
            rows.append((title, text))
        rows.append(("engine", f"{found.session}, {found.lanes} lanes"))
    for kind in found.kinds:
        ny, nx = kind.shape
        each = "" if kind.seconds is None else f", {kind.seconds:.2f} s each"
        tiles = "1 tile" if kind.tiles == 1 else f"{kind.tiles} tiles"
        images = f", {kind.images} images" if kind.images != kind.count else ""
        rows.append((f"{kind.count} of {nx}×{ny} px", f"{kind.pixel_size:g} Å/px{images}, {tiles}{each}"))
    if found.seconds is not None:
        rows.append(("expected time", f"{timedelta(seconds=round(found.seconds))}, plus the time to write"))
    print_rows(rows)
    for note in found.plan.notes:
        out.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    for job in found.plan.with_status(Status.REFUSED):
        out.print(f"[red]refused:[/] {escape(job.reason)}", soft_wrap=True)
    if found.obstacle:
        out.print(f"[bold red]would not start:[/] {escape(found.obstacle)}", soft_wrap=True)
    raise typer.Exit(found.exit_code)


def print_summary(summary: "Summary") -> None:
    """Print how many micrographs were denoised, how fast, where the results are, and how to use them."""
    from n2n_deploy.batch.summary import PHASES_FLIPPED

    rows: list[tuple[str, str]] = []
    rows.append(("denoised", str(summary.denoised)))
    for label, count in (
        ("already finished", summary.already_done),
        ("kept from other runs", summary.kept),
        ("failed", len(summary.failures)),
        ("not started", summary.not_begun),
    ):
        if count:
            rows.append((label, str(count)))
    if summary.denoised:
        rate = f"{summary.seconds:.1f} s, {summary.megapixels / summary.seconds:.2f} Mpx/s"
        rows.append(("time", rate))
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in summary.stage_seconds.items())
        rows.append(("seconds by stage", stages))
    if summary.gave_up:
        rows.append(("ended early", summary.gave_up))
    if summary.listed > summary.denoised + summary.already_done + summary.kept:
        rows.append(("all in the folder", str(summary.listed)))
    rows.append(("output", str(summary.table or summary.output)))
    if summary.report:
        rows.append(("report", str(summary.report)))
    print_rows(rows)
    if summary.phases_flipped and summary.listed:
        out.print(PHASES_FLIPPED, soft_wrap=True)
    if summary.run["shard"]:
        out.print(f"when all shards have ended: n2n-deploy merge-results {summary.output}", soft_wrap=True)
    elif summary.failures:
        found = f"{summary.output / 'failed.star'}; reasons: {summary.output / 'summary.json'}"
        out.print(f"failed micrographs: {escape(found)}", soft_wrap=True)
