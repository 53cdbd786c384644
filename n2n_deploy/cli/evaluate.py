"""`n2n-deploy evaluate`: how good a model is on micrographs with even and odd halves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from n2n_deploy.cli.common import ConfigOption, JsonOption, out, print_json, print_rows, save_config
from n2n_deploy.cli.options import (
    AmplitudeContrastOption,
    AugmentOption,
    DeviceOption,
    EngineOption,
    EvenOption,
    LanesOption,
    MemoryOption,
    OddOption,
    PixelSizeOption,
    PrecisionOption,
    ProjectOption,
    SphericalAberrationOption,
    SuffixesOption,
    ThreadsOption,
    TrustedKeysOption,
    TtaOption,
    VoltageOption,
    gather,
)
from n2n_deploy.cli.progress import MicrographProgress
from n2n_deploy.core.options import ComputeOptions, NamingOptions, OpticsOptions

if TYPE_CHECKING:
    from n2n_deploy.evaluation.evaluation_run import EvaluationRun


def evaluate_command(
    ctx: typer.Context,
    micrographs: Annotated[
        list[str],
        typer.Argument(help="A STAR file, or MRC files or globs (with a model trained with --no-phase-flip)."),
    ],
    model: Annotated[Path, typer.Argument(help="The bundle (MODEL.n2n) from n2n-deploy export.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for numbers, figures and the report.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Folder of noiseless images, such as OUT/truth of n2n-deploy simulate; adds the true values.",
            file_okay=False,
            exists=True,
        ),
    ] = None,
    tta: TtaOption = False,
    augment: AugmentOption = False,
    suffixes: SuffixesOption = None,
    even_template: EvenOption = None,
    odd_template: OddOption = None,
    project: ProjectOption = None,
    pixel_size: PixelSizeOption = None,
    voltage: VoltageOption = None,
    spherical_aberration: SphericalAberrationOption = None,
    amplitude_contrast: AmplitudeContrastOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    trusted_keys: TrustedKeysOption = None,
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    lanes: LanesOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how good a model is on micrographs with even and odd halves; no ground truth is needed.

    [bold]n2n-deploy evaluate micrographs.star model.n2n -o Evaluation --suffixes DW,EVN,ODD[/]

    Each half is denoised on its own. What the denoised halves share is signal or bias, what differs is noise. Reported
    are the variances of signal, noise and bias, the SNR before and after, the signal-to-bias ratio, and the recovered
    signal fraction (1: the true signal; 0: no better than a blank image; below 0: worse), for each micrograph, each
    Fourier ring and the whole set, with 95 % confidence intervals over micrographs (jackknife, Student's t).

    Writes [bold]evaluation.json[/], [bold]evaluation.csv[/] (micrographs), [bold]rings.csv[/] (Fourier rings of the
    set), rings/ (those of each micrograph), ssnr.png, recovered_signal_fraction.png and [bold]report.html[/].
    """
    from n2n_deploy.evaluation.evaluation_run import run_evaluation

    with MicrographProgress("evaluating", "evaluated", quiet=as_json) as bar:

        def progress(total: int, name: str | None, error: str | None) -> None:
            if name is None:
                bar.expect(total)
                return
            bar.advance(failed=error is not None)
            if error is not None:
                bar.say(error, "failed")

        ctx.params["tta"] = tta or augment
        run = run_evaluation(
            micrographs[0] if len(micrographs) == 1 else micrographs,
            model,
            output,
            compute=gather(ctx, ComputeOptions),
            naming=gather(ctx, NamingOptions),
            optics=gather(ctx, OpticsOptions),
            truth=truth,
            tta=tta or augment,
            say=lambda note: bar.say(note, "note", "yellow"),
            progress=progress,
        )
    save_config(ctx, output)
    if as_json:
        print_json(run.document)
    else:
        _print(run, output)
    raise typer.Exit(run.exit_code)


def _print(run: "EvaluationRun", output: Path) -> None:
    """Print the numbers of the set with their intervals, and where the rest is."""
    from n2n_deploy.evaluation.set_evaluation import LABELS

    done, failed = len(run.result.done), len(run.result.failures)
    out.print(f"{done} micrographs evaluated" + (f", {failed} failed" if failed else ""))
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
        out.print(f"[yellow]{escape(remark)}[/]", soft_wrap=True)
    print_rows([("output", str(output)), ("report", str(run.report))])
