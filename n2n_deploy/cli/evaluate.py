"""`n2n-deploy evaluate`: how good a model is on micrographs with even and odd halves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from n2n_deploy.cli.common import (
    ConfigOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    MemoryOption,
    PrecisionOption,
    ThreadsOption,
    TrustedKeysOption,
    err,
    out,
    parse_precision,
    print_json,
    save_config,
)
from n2n_deploy.cli.halves import EvenOption, OddOption, ProjectOption, SuffixesOption, parse_suffixes
from n2n_deploy.cli.progress import LateProgress

if TYPE_CHECKING:
    from n2n_deploy.evaluation.evaluation_run import EvaluationRun

_MACHINE = "Machine"


def evaluate_command(
    ctx: typer.Context,
    micrographs: Annotated[
        list[str],
        typer.Argument(help="A STAR file, or MRC files or globs (with a model trained with --no-phase-flip)."),
    ],
    model: Annotated[Path, typer.Argument(help="The bundle that n2n-deploy export made (MODEL.n2n).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for numbers, figures and the report.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Folder of noiseless images, as n2n-deploy simulate writes it (OUT/truth): adds the true error.",
            file_okay=False,
            exists=True,
        ),
    ] = None,
    augment: Annotated[
        bool,
        typer.Option("--augment", help="Average the network over the eight flips and quarter turns of each image."),
    ] = False,
    suffixes: SuffixesOption = None,
    even: EvenOption = None,
    odd: OddOption = None,
    project: ProjectOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    trusted_keys: TrustedKeysOption = None,
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    lanes: Annotated[
        int, typer.Option("--lanes", min=1, help="Micrographs in hand at once.", rich_help_panel=_MACHINE)
    ] = 2,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on micrographs with even and odd halves, which need no truth.

    [bold]n2n-deploy evaluate micrographs.star model.n2n -o Evaluation --suffixes DW,EVN,ODD[/]

    Each half is denoised on its own. What both agree on is signal, what they differ in is noise, and what the
    network does alike to both is bias: their variances, the SNR before and after, the signal-to-bias ratio, and the
    recovered signal fraction (1 the true signal, 0 a blank image, below 0 harm), for each micrograph, each Fourier
    ring and the set, with 95 % confidence intervals over micrographs (jackknife, Student's t).

    Writes [bold]evaluation.json[/], [bold]evaluation.csv[/] (micrographs), [bold]rings.csv[/] (the set's Fourier
    rings), rings/ (those of each micrograph), ssnr.png, recovered_signal_fraction.png and [bold]report.html[/].
    """
    del config
    from n2n_deploy.device.memory import parse_bytes
    from n2n_deploy.evaluation.evaluation_run import run_evaluation

    with LateProgress(console=err, disable=as_json) as bar:
        task = bar.add_task("evaluating", total=None)

        def progress(total: int, name: str | None, error: str | None) -> None:
            bar.start()
            bar.update(task, total=total, advance=0 if name is None else 1)
            if error:
                bar.console.print(f"[red]failed:[/] {escape(error)}", soft_wrap=True)

        run = run_evaluation(
            micrographs[0] if len(micrographs) == 1 else micrographs,
            model,
            output,
            truth=truth,
            augment=augment,
            device=device,
            memory=parse_bytes(memory) if memory else None,
            threads=threads,
            lanes=lanes,
            engine=engine,
            precision=parse_precision(precision),
            trusted_keys=trusted_keys,
            project=project,
            suffixes=parse_suffixes(suffixes),
            even_template=even,
            odd_template=odd,
            progress=progress,
        )
    save_config(ctx, output)
    if as_json:
        print_json(run.document)
    else:
        _print(run, output)
    raise typer.Exit(run.exit_code)


def _print(run: "EvaluationRun", output: Path) -> None:
    """The set's numbers with their intervals, and where the rest is."""
    from n2n_deploy.evaluation.set_evaluation import LABELS

    done, failed = len(run.result.done), len(run.result.failures)
    out.print(f"{done} micrographs measured" + (f", {failed} failed" if failed else ""))
    if run.whole is not None:
        table = Table(box=None, pad_edge=False)
        columns = ["", "value", "95 % confidence", *(["truth"] if run.whole.truth else [])]
        for column in columns:
            table.add_column(column, justify="left" if not column else "right")
        for name, interval in run.whole.image.items():
            row = [LABELS[name], f"{interval.value:.4g}", interval.text()]
            table.add_row(*row, *([f"{getattr(run.whole.truth, name):.4g}"] if run.whole.truth else []))
        out.print(table)
    for remark in run.result.remarks:
        out.print(f"[yellow]{remark}[/]", soft_wrap=True)
    out.print(f"written to {output}; report: {run.report}")
