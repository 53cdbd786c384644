"""`n2n-deploy denoise`: micrographs in, denoised micrographs, tables and a summary out."""

from pathlib import Path
from typing import Annotated

import typer

from n2n_deploy.cli.adapt import AdaptOption, adapted_request
from n2n_deploy.cli.common import ConfigOption, JsonOption, print_json, save_config
from n2n_deploy.cli.denoise_output import DenoiseProgress, print_dry_run, print_summary
from n2n_deploy.cli.models import InvertOption, ModelOption, ResolutionOption, split_model
from n2n_deploy.cli.options import (
    FILES,
    PIXELS,
    AllowDenoisedOption,
    AmplitudeContrastOption,
    AugmentOption,
    DeviceOption,
    EngineOption,
    EvenOption,
    GpusOption,
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
from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import NamingOptions, OpticsOptions

_RUN = "Run"


def denoise_command(
    ctx: typer.Context,
    micrographs: Annotated[
        list[str],
        typer.Argument(
            help="A STAR table (also RELION 5's tilt series) or cryoSPARC's .cs of exposures; or MRC files, tilt "
            "stacks (.st, .mrcs) or globs (with the general model, or one trained with --no-phase-flip)."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output folder; keeps the folder structure of the inputs.")
    ],
    model: ModelOption = None,
    max_resolution: ResolutionOption = None,
    invert: InvertOption = False,
    merge_resolution: Annotated[
        float | None,
        typer.Option(
            "--merge",
            metavar="Å",
            help="Keep the noisy image's frequencies above 1/Å, beyond the model's resolution.",
            rich_help_panel=PIXELS,
        ),
    ] = None,
    merge_width: Annotated[
        float,
        typer.Option("--merge-width", metavar="Å", help="Width of the merge band.", rich_help_panel=PIXELS),
    ] = 1.0,
    flip_back: Annotated[
        bool,
        typer.Option(
            "--flip-back",
            help="Undo the phase flip, for programs that correct the CTF themselves.",
            rich_help_panel=PIXELS,
        ),
    ] = False,
    lowpass: Annotated[
        float | None,
        typer.Option("--lowpass", metavar="Å", help="Apply a soft low-pass to the output.", rich_help_panel=PIXELS),
    ] = None,
    output_pixel_size: Annotated[
        float | None,
        typer.Option(
            "--output-pixel-size",
            metavar="Å",
            help="Fourier-crop the output to coarser pixels, such as 4 for a picker; denoised.star says so.",
            rich_help_panel=PIXELS,
        ),
    ] = None,
    tta: TtaOption = False,
    augment: AugmentOption = False,
    average_halves: Annotated[
        bool,
        typer.Option(
            "--average-halves",
            help="Denoise the even and the odd half, which have the noise level of the training, and average them.",
            rich_help_panel=PIXELS,
        ),
    ] = False,
    halves: Annotated[
        bool,
        typer.Option(
            "--halves",
            help="Also denoise the even and the odd half and write them as x_EVN.mrc and x_ODD.mrc beside x.mrc, for "
            "half tomograms and FSC; denoised.star names them. Takes three times the time and the disk space.",
            rich_help_panel=PIXELS,
        ),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            help="Type of the output files: float32, or float16 to save disk space.",
            rich_help_panel=PIXELS,
        ),
    ] = "float32",
    png: Annotated[
        bool,
        typer.Option(
            "--png",
            help="Write a picture of each output beside it, at most 1024 pixels wide; also of outputs that an earlier "
            "run finished.",
            rich_help_panel=FILES,
        ),
    ] = False,
    on_exists: Annotated[
        str,
        typer.Option(
            "--on-exists",
            help="What to do with existing outputs of another model or other options: error, skip (keep them) or "
            "overwrite. Finished outputs of the same model and options are always kept.",
            rich_help_panel=FILES,
        ),
    ] = "error",
    suffixes: SuffixesOption = None,
    even_template: EvenOption = None,
    odd_template: OddOption = None,
    project: ProjectOption = None,
    pixel_size: PixelSizeOption = None,
    voltage: VoltageOption = None,
    spherical_aberration: SphericalAberrationOption = None,
    amplitude_contrast: AmplitudeContrastOption = None,
    allow_denoised: AllowDenoisedOption = False,
    device: DeviceOption = "auto",
    gpus: GpusOption = None,
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    trusted_keys: TrustedKeysOption = None,
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    lanes: LanesOption = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report", help="Write report.html, with a picture of each micrograph.", rich_help_panel=FILES
        ),
    ] = True,
    adapt: AdaptOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing; print what would be done, what is refused and why, disk, memory and time.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    retry_failed: Annotated[
        Path | None,
        typer.Option(
            "--retry-failed",
            metavar="FAILED.STAR",
            help="Denoise only the micrographs listed in this table, the failed.star of an earlier run.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Denoise part I of N of the table, for job arrays; n2n-deploy merge-results then writes the tables.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="WHERE",
            help="Distribute the work with Dask: local:N processes, the scheduler at tcp://HOST:PORT, or slurm:N jobs.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    watching: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Follow a data collection: denoise micrographs as they appear in the table or folder.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    idle_minutes: Annotated[
        float | None,
        typer.Option(
            "--idle-minutes",
            min=0,
            help="With --watch, end after this long without a new micrograph. By default only a signal ends it.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="A micrograph fails if reading or writing one of its files takes longer; for a table the run ends.",
            rich_help_panel=_RUN,
        ),
    ] = 600.0,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures", min=0, help="End the run once more micrographs than this fail.", rich_help_panel=_RUN
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Denoise micrographs, with a model of your own or the general one that comes with the package.

    [bold]n2n-deploy denoise micrographs.star -o Denoised[/]

    [bold]n2n-deploy denoise micrographs.star model.n2n -o Denoised[/]

    Writes one MRC per micrograph to the output folder, with the input's size, pixel size and grey scale,
    [bold]denoised.star[/] with every column of the input table, [bold]failed.star[/] with the micrographs that failed,
    summary.json, [bold]report.html[/] and the ledger from which these are made. A failing micrograph is recorded and
    skipped. To continue after an interruption, run the same command again.

    With a model that flips phases, pick on the outputs and extract the particles from the originals by their
    coordinates, or give --flip-back: RELION does not see in a table that phases are flipped, and would apply the sign
    of the CTF twice (relion_refine --ctf_phase_flipped tells it).
    """
    from n2n_deploy.batch.denoise import run_request
    from n2n_deploy.batch.options import DenoiseOptions
    from n2n_deploy.batch.request import Request, Shard
    from n2n_deploy.batch.watch import watch
    from n2n_deploy.device.gpus import parse_gpus

    ctx.params["tta"] = tta or augment
    options = gather(ctx, DenoiseOptions, gpus=parse_gpus(gpus) if gpus else None)
    if watching and (shard or retry_failed):
        raise UsageError("--watch cannot be combined with --shard or --retry-failed")
    if idle_minutes is not None and not watching:
        raise UsageError("--idle-minutes says when --watch ends; add --watch or leave it out")
    sources, chosen = split_model(ctx, micrographs, model)
    source = sources[0] if len(sources) == 1 else sources
    part = Shard.parse(shard) if shard else None
    naming, optics = gather(ctx, NamingOptions), gather(ctx, OpticsOptions)
    request = Request.open(source, chosen, output, options, part, retry_failed, naming, optics)
    idle = None if idle_minutes is None else 60 * idle_minutes
    if adapt is not None:
        request = adapted_request(request, adapt, watching=watching, idle=idle, dry_run=dry_run, quiet=as_json)
    if dry_run:
        print_dry_run(request, as_json=as_json)
    with DenoiseProgress(quiet=as_json) as bar:
        if watching:
            summary = watch(request, idle=idle, cluster=cluster, say=bar.say, progress=bar.update)
        else:
            summary = run_request(request, cluster=cluster, say=bar.say, progress=bar.update)
    save_config(ctx, request.folder)
    if as_json:
        print_json(summary.as_dict())
    else:
        print_summary(summary)
    raise typer.Exit(summary.exit_code)
