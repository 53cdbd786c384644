"""`n2n-deploy simulate`: micrographs to try everything on, with the truth beside them."""

import re
from pathlib import Path
from typing import Annotated

import typer

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, save_config
from n2n_deploy.cli.progress import LateProgress
from n2n_deploy.core.errors import UsageError

_MICROSCOPE = "Microscope"


def simulate_command(
    ctx: typer.Context,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.", file_okay=False)],
    micrographs: Annotated[int, typer.Option("--micrographs", "-n", help="How many.", min=1)] = 10,
    size: Annotated[str, typer.Option("--size", help="Pixels: WIDTHxHEIGHT.")] = "2048x2048",
    pixel_size: Annotated[float, typer.Option("--pixel-size", help="Å per pixel.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.", min=0)] = 0,
    particles: Annotated[
        int | None,
        typer.Option(
            "--particles",
            help="On each micrograph; by default they cover three tenths of it, and 0 is empty ice.",
            min=0,
        ),
    ] = None,
    dose: Annotated[
        float,
        typer.Option("--dose", help="Electrons per Å² of both halves together.", rich_help_panel=_MICROSCOPE),
    ] = 40.0,
    voltage: Annotated[float, typer.Option("--voltage", help="kV.", rich_help_panel=_MICROSCOPE)] = 300.0,
    defocus: Annotated[
        tuple[float, float],
        typer.Option("--defocus", help="Å of underfocus, lowest and highest.", rich_help_panel=_MICROSCOPE),
    ] = (8000.0, 25000.0),
    astigmatism: Annotated[
        float,
        typer.Option(
            "--astigmatism",
            help="Å, the largest difference between defocus U and V.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = 500.0,
    phase_shift: Annotated[
        float, typer.Option("--phase-shift", help="Degrees, of a phase plate.", rich_help_panel=_MICROSCOPE)
    ] = 0.0,
    b_factor: Annotated[
        float,
        typer.Option("--b-factor", help="Å² of the envelope exp(-B s²/4).", rich_help_panel=_MICROSCOPE),
    ] = 120.0,
    ice_gradient: Annotated[
        float,
        typer.Option(
            "--ice-gradient",
            help="Relative difference in intensity between thin and thick ice, at most.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = 0.1,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Simulate micrographs of the 20S proteasome in ice, with even and odd halves and the noiseless truth.

    Writes [bold]OUT/micrographs.star[/] (RELION 3.1, with defocus and the names of the halves),
    [bold]OUT/micrographs/mic_0001_{DW,EVN,ODD}.mrc[/] (electrons per pixel),
    [bold]OUT/truth/mic_0001.mrc[/] (the same without noise) and [bold]OUT/truth/particles.star[/] (positions
    and orientations). Particles are dark and have about the signal-to-noise ratio of real micrographs.
    """
    del config

    from n2n_deploy.simulate import simulate

    shape = _shape(size)
    with LateProgress(console=err, transient=True, disable=json_output) as bar:
        task = bar.add_task("simulating", total=micrographs)

        def progress(done: int, total: int) -> None:
            bar.start()
            bar.update(task, completed=done, total=total)

        star = simulate(
            output,
            micrographs,
            shape,
            pixel_size,
            seed,
            particles=particles,
            dose=dose,
            voltage=voltage,
            defocus=defocus,
            astigmatism=astigmatism,
            phase_shift=phase_shift,
            b_factor=b_factor,
            ice_gradient=ice_gradient,
            progress=progress,
        )
    save_config(ctx, output)
    if json_output:
        print_json({"micrographs": micrographs, "star": star, "truth": output / "truth"})
        return
    out.print(f"{micrographs} micrographs of {size} pixels in {star}, the truth in {output / 'truth'}")


def _shape(size: str) -> tuple[int, int]:
    """(ny, nx) from WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", size)
    if match is None:
        raise UsageError(f"--size is WIDTHxHEIGHT in pixels, such as 2048x2048, not {size}")
    return int(match[2]), int(match[1])
