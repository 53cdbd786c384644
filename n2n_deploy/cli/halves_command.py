"""`n2n-deploy halves`: even, odd and whole sums of movies, for training without another program."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, save_config
from n2n_deploy.cli.options import ProjectOption
from n2n_deploy.cli.progress import LateProgress
from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.sizes import parse_bytes

_DETECTOR, _FRAMES, _MICROSCOPE, _RUN = "Detector", "Frames", "Microscope", "Run"


def halves_command(
    ctx: typer.Context,
    movies: Annotated[
        list[str],
        typer.Argument(
            help="Movies (.mrc, .mrcs, .tif, .tiff, .eer), globs or lists of names (.txt); or one STAR table: of "
            "imported movies, or of motion-corrected micrographs, whose motion, gain and CTF are then used."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output folder; the movies' folders are mirrored under it.")
    ],
    motion: Annotated[
        str | None,
        typer.Option(
            "--motion",
            metavar="TEMPLATE",
            help="Name of each movie's motion table, such as 'MotionCorr/job002/Movies/{stem}.star' (RELION), "
            "'{folder}/{stem}-Full.log' or '{folder}/{stem}.aln' (MotionCor), or 'J5/motioncorrected/*{stem}_traj.npy' "
            "(cryoSPARC, rigid motion).",
            rich_help_panel=_FRAMES,
        ),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--first", min=1, help="First frame to sum, from 1.", rich_help_panel=_FRAMES)
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=2, help="Last frame to sum.", rich_help_panel=_FRAMES)
    ] = None,
    binning: Annotated[
        float | None,
        typer.Option(
            "--bin",
            min=1,
            help="Factor to Fourier-crop by; by default that of the motion table, or 1.",
            rich_help_panel=_FRAMES,
        ),
    ] = None,
    dose_weighting: Annotated[
        bool,
        typer.Option(
            "--dose-weighting",
            help="Weight frames by dose (Grant & Grigorieff, 2015); needs dose, voltage and pixel size.",
            rich_help_panel=_FRAMES,
        ),
    ] = False,
    dose_per_frame: Annotated[
        float | None,
        typer.Option(
            "--dose-per-frame",
            help="Electrons per Å² in a frame; of EER movies in a fraction. By default as the motion table says.",
            rich_help_panel=_FRAMES,
        ),
    ] = None,
    pre_exposure: Annotated[
        float | None,
        typer.Option("--pre-exposure", help="Electrons per Å² before the first frame.", rich_help_panel=_FRAMES),
    ] = None,
    eer_grouping: Annotated[
        int | None,
        typer.Option(
            "--eer-grouping",
            min=1,
            help="EER frames in a fraction; by default as the motion table says, or 40.",
            rich_help_panel=_FRAMES,
        ),
    ] = None,
    eer_upsampling: Annotated[
        int | None,
        typer.Option(
            "--eer-upsampling",
            min=1,
            max=2,
            help="1 renders EER movies at 4K, 2 at 8K; by default as the motion table says, or 1.",
            rich_help_panel=_FRAMES,
        ),
    ] = None,
    gain: Annotated[
        Path | None,
        typer.Option(
            "--gain",
            help="Gain reference (MRC, TIFF or .gain); by default the motion table's, 'none' for none at all.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    gain_rotation: Annotated[
        int,
        typer.Option(
            "--gain-rotation",
            min=0,
            max=3,
            help="Times 90°: RELION's --gain_rot, MotionCor's -RotGain.",
            rich_help_panel=_DETECTOR,
        ),
    ] = 0,
    gain_flip: Annotated[
        int,
        typer.Option(
            "--gain-flip",
            min=0,
            max=2,
            help="1 upside down, 2 left to right: RELION's --gain_flip, MotionCor's -FlipGain.",
            rich_help_panel=_DETECTOR,
        ),
    ] = 0,
    defects: Annotated[
        Path | None,
        typer.Option(
            "--defects",
            help="Bad pixels: a text file with MotionCor's lines x y w h, or a map (MRC, TIFF) that is not 0 there.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option("--pixel-size", help="Å per pixel of the frames.", rich_help_panel=_MICROSCOPE),
    ] = None,
    voltage: Annotated[float | None, typer.Option("--voltage", help="kV.", rich_help_panel=_MICROSCOPE)] = None,
    cs: Annotated[
        float | None, typer.Option("--cs", help="Spherical aberration in mm.", rich_help_panel=_MICROSCOPE)
    ] = None,
    amplitude_contrast: Annotated[
        float | None, typer.Option("--amplitude-contrast", help="As a fraction.", rich_help_panel=_MICROSCOPE)
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or float16 (half the disk).")] = "float32",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace sums made of other files or with other options.", rich_help_panel=_RUN
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="i/n",
            help="Do one of n parts, for job arrays. A run without it afterwards writes the table of all.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Movies at once, while memory lasts.", rich_help_panel=_RUN),
    ] = None,
    project: ProjectOption = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Limit of host memory, such as 8GB; fewer movies at once where it is short. By default a share of "
            "what is free.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sum the frames of movies into even, odd and whole sums.

    Gain, defects, dose weights and motion that another program has found are applied; motion is never estimated
    here. Without a motion table the sums are not aligned: drift blurs both halves alike, so noise2noise training
    holds, but the blurred detail is lost.

    Writes [bold]OUT/…/x.mrc, x_EVN.mrc, x_ODD.mrc[/] and [bold]OUT/halves.star[/], which [bold]n2n-deploy train[/]
    and RELION take as it is. Finished sums are recognised and never made again. Exit code 1 where movies failed:
    [bold]OUT/failed.txt[/] lists them with the reasons, and the same command tries them again.
    """
    del config
    from n2n_deploy.imaging.ctf import Optics
    from n2n_deploy.io.movie_table import read_movies
    from n2n_deploy.movies.options import HalvesOptions
    from n2n_deploy.movies.run import sum_movies

    options = HalvesOptions(
        gain=gain,
        gain_rotation=gain_rotation,
        gain_flip=gain_flip,
        defects=defects,
        first=first,
        last=last,
        dose_weighting=dose_weighting,
        dose_per_frame=dose_per_frame,
        pre_exposure=pre_exposure,
        binning=binning,
        pixel_size=pixel_size,
        voltage=voltage,
        spherical_aberration=cs,
        amplitude_contrast=amplitude_contrast,
        eer_grouping=eer_grouping,
        eer_upsampling=eer_upsampling,
        dtype=_dtype(dtype),
    )
    part = _shard(shard)
    fallback = Optics(math.nan if pixel_size is None else pixel_size, voltage, cs, amplitude_contrast)
    table = read_movies(movies, motion=motion, project=project, fallback=fallback)
    with LateProgress(console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task("summing", total=len(table.movies))

        def progress(_: Any, reason: str | None, done: int, total: int) -> None:
            bar.start()
            bar.update(task, completed=done, total=total)
            if reason is not None:
                bar.console.print(f"[red]failed:[/] {escape(reason)}", soft_wrap=True)

        account = sum_movies(
            table,
            output,
            options,
            jobs=jobs,
            memory=parse_bytes(memory) if memory else None,
            shard=part,
            overwrite=overwrite,
            progress=progress,
        )
    save_config(ctx, output)
    if as_json:
        print_json(
            {
                "table": account.table,
                "summed": account.summed,
                "finished_before": account.finished_before,
                "failures": {movie.name: reason for movie, reason in account.failures},
                "notes": account.notes,
            }
        )
        raise typer.Exit(account.exit_code)
    for note in account.notes:
        out.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    before = f", {account.finished_before} were finished before" if account.finished_before else ""
    failed = f", {len(account.failures)} failed" if account.failures else ""
    out.print(
        f"{account.summed} movies summed{before}{failed}: {account.table or output}", soft_wrap=True, markup=False
    )
    raise typer.Exit(account.exit_code)


def _dtype(text: str) -> Literal["float32", "float16"]:
    match text:
        case "float32" | "float16":
            return text
    raise UsageError(f"--dtype {text!r} does not exist; choose float32 or float16")


def _shard(text: str | None) -> tuple[int, int] | None:
    """(i, n) of i/n."""
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"shard {text!r}: expected i/n with i from 1 to n, such as 3/8")
    return int(index), int(count)
