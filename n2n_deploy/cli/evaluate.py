"""`n2n-deploy evaluate`: how good a model is on micrographs, from halves or full exposures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_deploy.cli.common import ConfigOption, JsonOption, print_json, save_config
from n2n_deploy.cli.evaluate_output import print_comparison, print_evaluation
from n2n_deploy.cli.models import InvertOption, ModelsOption, ResolutionOption, split_models
from n2n_deploy.cli.options import (
    AmplitudeContrastOption,
    AugmentOption,
    DeviceOption,
    EngineOption,
    EvenOption,
    LanesOption,
    MemoryOption,
    OddOption,
    PairsOption,
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
        typer.Argument(
            help="A STAR file, or MRC files or globs (with the general model, or one trained with --no-phase-flip)."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for numbers, figures and the report.")],
    model: ModelsOption = None,
    max_resolution: ResolutionOption = None,
    invert: InvertOption = False,
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
    pairs: PairsOption = "auto",
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
    """Measure how good a model is on micrographs, from their even and odd halves; no ground truth is needed.

    [bold]n2n-deploy evaluate micrographs.star model.n2n -o Evaluation --suffixes DW,EVN,ODD[/]

    [bold]n2n-deploy evaluate micrographs.star --model general --model model.n2n -o Compared --suffixes DW,EVN,ODD[/]

    Each half is denoised on its own. What the denoised halves share is signal or bias, what differs is noise. Reported
    are the variances of signal, noise and bias, the SNR before and after, the signal-to-bias ratio, and the recovered
    signal fraction (1: the true signal; 0: no better than a blank image; below 0: worse), for each micrograph, each
    Fourier ring and the whole set, with 95 % confidence intervals over micrographs (jackknife, Student's t).

    Where neither table nor options name halves, two are made of each full exposure: half of it with noise of its own
    spectrum added, and half with the same noise subtracted ([bold]--pairs[/]).

    Writes [bold]evaluation.json[/], [bold]evaluation.csv[/] (micrographs), [bold]rings.csv[/] (Fourier rings of the
    set), rings/ (those of each micrograph), ssnr.png, recovered_signal_fraction.png and [bold]report.html[/].

    Several models are compared on the same halves, side by side, in [bold]comparison.json[/], [bold]comparison.csv[/],
    report.html and figures with a curve for each; a model that takes a range of resolutions follows one that does not.
    What a single evaluation writes is in a folder for each model.
    """
    from n2n_deploy.evaluation.comparison import Comparison, compare_models
    from n2n_deploy.evaluation.evaluation_run import run_evaluation

    sources, models = split_models(ctx, micrographs, model or [])
    with MicrographProgress("evaluating", "evaluated", quiet=as_json) as bar:

        def progress(total: int, name: str | None, error: str | None) -> None:
            if name is None:
                bar.expect(len(models) * total)
                return
            bar.advance(failed=error is not None)
            if error is not None:
                bar.say(error, "failed")

        ctx.params["tta"] = tta or augment
        source = sources[0] if len(sources) == 1 else sources
        options: dict[str, Any] = {
            "max_resolution": max_resolution,
            "invert": invert,
            "compute": gather(ctx, ComputeOptions),
            "naming": gather(ctx, NamingOptions),
            "optics": gather(ctx, OpticsOptions),
            "pairs": pairs,
            "truth": truth,
            "tta": tta or augment,
            "say": lambda note: bar.say(note, "note", "yellow"),
            "progress": progress,
        }
        found: EvaluationRun | Comparison
        if len(models) == 1:
            found = run_evaluation(source, models[0], output, **options)
        else:
            found = compare_models(source, models, output, **options)
    save_config(ctx, output)
    if as_json:
        print_json(found.document)
    elif isinstance(found, Comparison):
        print_comparison(found, output)
    else:
        print_evaluation(found, output)
    raise typer.Exit(found.exit_code)
