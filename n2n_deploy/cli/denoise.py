"""`n2n-deploy denoise`: micrographs in, denoised micrographs, tables and a summary out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from n2n_deploy.cli.common import (
    ConfigOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    MemoryOption,
    PrecisionOption,
    ThreadsOption,
    TrustedKeysOption,
    parse_precision,
    print_json,
    save_config,
)
from n2n_deploy.cli.denoise_output import Bar, print_dry_run, print_summary
from n2n_deploy.cli.halves import EvenOption, OddOption, ProjectOption, SuffixesOption, parse_suffixes
from n2n_deploy.core.errors import UsageError

_PIXELS, _FILES, _MACHINE, _RUN = "What is written", "Files", "Machine", "Run"


def denoise_command(
    ctx: typer.Context,
    micrographs: Annotated[
        list[str],
        typer.Argument(
            help="A STAR table or cryoSPARC's .cs of exposures; or MRC files or globs (models with --no-phase-flip)."
        ),
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
    project: ProjectOption = None,
    device: DeviceOption = "auto",
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="N,…",
            help="Several GPUs, such as 0,1, or all: the micrographs are shared among them. By default one.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    trusted_keys: TrustedKeysOption = None,
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    lanes: Annotated[
        int | None,
        typer.Option(
            "--lanes",
            min=1,
            help="Micrographs in hand at once, on each GPU; fewer where memory is short. By default 2 on a CPU, and on "
            "GPUs one for every two cores, up to 8 each.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report", help="Write report.html, with a picture of each micrograph.", rich_help_panel=_FILES
        ),
    ] = True,
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
            help="Do those of the micrographs only that this table lists: failed.star of an earlier run.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Do part I of N of the table, for job arrays; n2n-deploy merge-results then writes tables and report.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="WHERE",
            help="Spread the work by Dask: local:N processes, the scheduler at tcp://HOST:PORT, or slurm:N jobs.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    watching: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Follow a data collection: do micrographs as they come into the table or folder.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    idle_minutes: Annotated[
        float | None,
        typer.Option(
            "--idle-minutes",
            min=0,
            help="With --watch, end after so long without a new micrograph; by default on a signal.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Give up a file that takes longer to read or write, and the run where a table does.",
            rich_help_panel=_RUN,
        ),
    ] = 600.0,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures", min=0, help="End the run once more than this have failed.", rich_help_panel=_RUN
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Denoise micrographs with a trained model.

    [bold]n2n-deploy denoise micrographs.star model.n2n -o Denoised[/]

    Writes one MRC per micrograph under the output folder with the input's size, pixel size and grey scale,
    [bold]denoised.star[/] with every column of the input table, [bold]failed.star[/] with the micrographs that failed,
    summary.json, [bold]report.html[/] and the ledger that these are made of. A micrograph that fails is recorded and
    skipped. Run the same command again to go on after an interruption.
    """
    del config
    from n2n_deploy.batch.denoise import run_request
    from n2n_deploy.batch.options import parse_options
    from n2n_deploy.batch.request import Request, Shard
    from n2n_deploy.batch.watch import watch
    from n2n_deploy.device.gpus import parse_gpus
    from n2n_deploy.device.memory import parse_bytes

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
        gpus=parse_gpus(gpus) if gpus else None,
        engine=engine,
        precision=parse_precision(precision),
        trusted_keys=trusted_keys,
        memory=parse_bytes(memory) if memory else None,
        threads=threads,
        lanes=lanes,
        timeout=timeout,
        max_failures=max_failures,
        report=report,
    )
    source = micrographs[0] if len(micrographs) == 1 else micrographs
    naming: dict[str, Any] = {
        "project": project,
        "suffixes": parse_suffixes(suffixes),
        "even_template": even,
        "odd_template": odd,
    }
    part = Shard.parse(shard) if shard else None
    request = Request.open(source, model, output, options, part, retry_failed, **naming)
    if watching and (shard or retry_failed):
        raise UsageError("--watch follows all that comes; give it without --shard and --retry-failed")
    if idle_minutes is not None and not watching:
        raise UsageError("--idle-minutes says when --watch ends; give both")
    if dry_run:
        print_dry_run(request, as_json=as_json)
    with Bar(quiet=as_json) as bar:
        if watching:
            idle = None if idle_minutes is None else 60 * idle_minutes
            summary = watch(request, idle=idle, cluster=cluster, say=bar.say, progress=bar.update)
        else:
            summary = run_request(request, cluster=cluster, say=bar.say, progress=bar.update)
    save_config(ctx, request.folder)
    if as_json:
        print_json(summary.as_dict())
    else:
        print_summary(summary)
    raise typer.Exit(summary.exit_code)
